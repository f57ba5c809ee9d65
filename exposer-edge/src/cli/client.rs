//! Asks the running daemon over its admin API.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::status::Status;

/// The daemon is on this machine: it answers at once or not at all.
const PATIENCE: Duration = Duration::from_secs(3);
/// Largest answer that is read, in bytes.
const LARGEST: usize = 64 << 20;

/// Why the daemon did not tell its status.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error(
        "no daemon answers on {address} (EXPOSER_ADMIN_ADDR): {source}. Is it running? systemctl status exposer-edge; \
         journalctl -u exposer-edge"
    )]
    NotRunning {
        /// Where it was asked.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Somebody listens, but takes too long.
    #[error("the daemon on {0} does not answer within {patience} s; see journalctl -u exposer-edge", patience = PATIENCE.as_secs())]
    Silent(SocketAddr),
    /// Something else listens there, or another version.
    #[error("{address} answers, but not as an exposer-edge of this version: {problem}")]
    NotOurs {
        /// Where it was asked.
        address: SocketAddr,
        /// What was odd.
        problem: String,
    },
}

/// The daemon's status.
///
/// # Errors
///
/// When no daemon answers, or something else does.
pub async fn status(address: SocketAddr) -> Result<Status, ClientError> {
    let stream = match timeout(PATIENCE, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(source)) => return Err(ClientError::NotRunning { address, source }),
        Err(_) => return Err(ClientError::Silent(address)),
    };
    let body = timeout(PATIENCE, get(stream, address, "/v1/status"))
        .await
        .map_err(|_| ClientError::Silent(address))?
        .map_err(|problem| ClientError::NotOurs { address, problem })?;
    serde_json::from_slice(&body).map_err(|error| ClientError::NotOurs {
        address,
        problem: error.to_string(),
    })
}

/// The body of a successful answer.
async fn get(stream: TcpStream, address: SocketAddr, path: &str) -> Result<Bytes, String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let connection = tokio::spawn(connection);
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(text)?;
    let response = sender.send_request(request).await.map_err(text)?;
    let code = response.status();
    if !code.is_success() {
        return Err(format!("GET {path} gives {code}"));
    }
    let body = Limited::new(response.into_body(), LARGEST)
        .collect()
        .await
        .map_err(text)?;
    connection.abort();
    Ok(body.to_bytes())
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
