//! The admin API: status for the command line and scripts, health, readiness, metrics. It reads and never changes.
//!
//! | path | answer |
//! |---|---|
//! | `GET /v1/status` | [`Status`] as JSON |
//! | `GET /healthz` | 200 while the process answers at all |
//! | `GET /readyz` | 200 when ready, else 503; the body says why |
//! | `GET /metrics` | Prometheus text format, version 0.0.4 |
//!
//! It asks for no password, so it listens on a loopback address unless the operator allowed another
//! (`crate::config` checks that).

mod metrics;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::net::listeners::owner_of;
use crate::status::Status;

/// Where the status is read from.
pub type StatusReceiver = watch::Receiver<Arc<Status>>;

/// Why the admin API can't be served.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address can't be listened on.
    #[error("the admin API can't listen on {address} (EXPOSER_ADMIN_ADDR){owner}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// `, which NAME, pid N has` where that could be found out, else empty.
        owner: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The server failed.
    #[error("the admin API ended: {0}")]
    Serve(std::io::Error),
}

/// Begins to listen.
///
/// # Errors
///
/// When the address is in use, or not one of this host.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, AdminError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| AdminError::Listen {
            address,
            owner: match owner_of(address, exposer_common::model::Protocol::Tcp) {
                Some(owner) if source.kind() == std::io::ErrorKind::AddrInUse => {
                    format!(", which {owner} has")
                }
                _ => String::new(),
            },
            source,
        })
}

/// Answers until `stop` is cancelled.
///
/// # Errors
///
/// When the listener fails for good.
pub async fn serve(
    listener: TcpListener,
    status: StatusReceiver,
    stop: CancellationToken,
) -> Result<(), AdminError> {
    axum::serve(listener, router(status))
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
        .map_err(AdminError::Serve)
}

/// The paths and their answers.
pub fn router(status: StatusReceiver) -> Router {
    Router::new()
        .route("/v1/status", get(get_status))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(get_ready))
        .route("/metrics", get(get_metrics))
        .with_state(status)
}

fn latest(receiver: &StatusReceiver) -> Arc<Status> {
    Arc::clone(&receiver.borrow())
}

async fn get_status(State(receiver): State<StatusReceiver>) -> Response {
    Json(latest(&receiver).as_ref()).into_response()
}

async fn get_ready(State(receiver): State<StatusReceiver>) -> (StatusCode, String) {
    let status = latest(&receiver);
    if status.is_ready() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{}\n", status.not_ready.join("\n")),
        )
    }
}

async fn get_metrics(State(receiver): State<StatusReceiver>) -> impl IntoResponse {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, metrics::render(&latest(&receiver)))
}
