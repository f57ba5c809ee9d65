//! The wiring: which tasks there are, what passes between them, and how they end.
//!
//! ```text
//!  kube ──Desired (watch)──► edge client, one for each edge ──Outcomes (mpsc)──► kube
//!                  └───────► readiness ◄──┘        http: /healthz, /readyz
//! ```

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::Config;
use crate::edge_client::session::Identity;
use crate::edge_client::{self, EdgeSettings};
use crate::error::AgentError;
use crate::http;
use crate::kube::{self, KubeSettings};
use crate::readiness::Readiness;

/// Outcomes that may wait for the Kubernetes side, from all edges.
const OUTCOMES: usize = 64;
/// How long tasks may take to say goodbye.
const FAREWELL: Duration = Duration::from_secs(5);

/// Runs the agent until SIGINT or SIGTERM.
///
/// # Errors
///
/// When it can't start, or a task ends by itself.
pub async fn run(config: Config) -> Result<(), AgentError> {
    let signals = Signals::new()?;
    let listener = match config.metrics {
        Some(address) => Some(
            TcpListener::bind(address)
                .await
                .map_err(|source| AgentError::Probes { address, source })?,
        ),
        None => None,
    };
    if let Some(Ok(address)) = listener.as_ref().map(TcpListener::local_addr) {
        info!(component = "http", action = "listen", %address, "probes are answered");
    }
    let client = kube::connect(config.kubeconfig.as_deref()).await?;
    info!(
        component = "agent",
        action = "start",
        version = env!("CARGO_PKG_VERSION"),
        agent = config.agent_name,
        edges = %config.servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        namespaces = %if config.namespaces.is_empty() { "all".to_owned() } else { config.namespaces.join(",") },
        prefix = %config.keys,
        "the agent starts"
    );
    let shutdown = CancellationToken::new();
    let mut tasks = spawn(config, client, listener, &shutdown);
    let ended = tokio::select! {
        name = signals.wait() => {
            info!(component = "agent", action = "stop", signal = name, "the agent stops; Services stay up at the edge");
            Ok(())
        }
        Some(ended) = tasks.join_next() => Err(unexpected(ended)),
    };
    shutdown.cancel();
    let farewell = tokio::time::timeout(FAREWELL, async { while tasks.join_next().await.is_some() {} });
    if farewell.await.is_err() {
        warn!(
            component = "agent",
            action = "stop",
            "some tasks did not end in time and are cut off"
        );
    }
    ended
}

type Ended = (&'static str, Result<(), String>);

fn spawn(
    config: Config,
    client: ::kube::Client,
    listener: Option<TcpListener>,
    shutdown: &CancellationToken,
) -> JoinSet<Ended> {
    let Config {
        servers,
        agent_name,
        token_file,
        cluster_domain,
        namespaces,
        keys,
        sync_interval,
        metrics: _,
        kubeconfig: _,
    } = config;
    let (desired_sender, desired) = watch::channel(None);
    let (outcomes, outcomes_receiver) = mpsc::channel(OUTCOMES);
    let readiness = Readiness::new(desired.clone(), servers.iter().map(ToString::to_string));
    let identity = Identity {
        agent: agent_name,
        sync_interval,
    };
    let mut tasks = JoinSet::new();
    for server in servers {
        let settings = EdgeSettings {
            server,
            identity: identity.clone(),
            token_file: token_file.clone(),
        };
        let session = edge_client::run(
            settings,
            desired.clone(),
            outcomes.clone(),
            readiness.clone(),
            shutdown.clone(),
        );
        tasks.spawn(async {
            session.await;
            ("edge client", Ok(()))
        });
    }
    let settings = KubeSettings {
        namespaces,
        keys,
        resync: sync_interval,
        domain: cluster_domain,
    };
    let watching = kube::run(
        client,
        settings,
        desired_sender,
        outcomes_receiver,
        shutdown.clone(),
    );
    tasks.spawn(async {
        watching.await;
        ("Kubernetes", Ok(()))
    });
    if let Some(listener) = listener {
        let serving = http::serve(listener, readiness, shutdown.clone());
        tasks.spawn(async { ("probes", serving.await.map_err(|error| error.to_string())) });
    }
    tasks
}

fn unexpected(ended: Result<Ended, tokio::task::JoinError>) -> AgentError {
    match ended {
        Ok((task, Ok(()))) => AgentError::TaskEnded {
            task,
            cause: "without an error".to_owned(),
        },
        Ok((task, Err(cause))) => AgentError::TaskEnded { task, cause },
        Err(error) => AgentError::TaskEnded {
            task: "unknown",
            cause: error.to_string(),
        },
    }
}

/// The signals that end the agent.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, AgentError> {
        let failed = |source| AgentError::System {
            action: "listening for signals",
            source,
        };
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
        })
    }

    async fn wait(mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
