//! Why the agent does not start, or ends by itself.

use std::net::SocketAddr;

use thiserror::Error;

use crate::config::ConfigError;
use crate::kube::ConnectError;
use crate::telemetry::TelemetryError;

/// See the [module](self).
#[derive(Debug, Error)]
pub enum AgentError {
    /// A setting can't be used.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// A setting of logging can't be used.
    #[error("{0}")]
    Telemetry(#[from] TelemetryError),
    /// No way to the cluster.
    #[error("{0}")]
    Kubernetes(#[from] ConnectError),
    /// The address for probes can't be had.
    #[error(
        "--metrics-addr (METRICS_ADDR) {address} can't be used: {source}; choose another address or port, or \"off\""
    )]
    Probes {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system refused something that is needed to run at all.
    #[error("{action}: {source}")]
    System {
        /// What was tried, in words.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A task that runs for ever has ended.
    #[error(
        "the {task} task ended unexpectedly ({cause}); this is a bug, please report it with the log before it"
    )]
    TaskEnded {
        /// Which.
        task: &'static str,
        /// How.
        cause: String,
    },
}

impl AgentError {
    /// 2 for what was typed wrong, 1 for the rest.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Telemetry(_) => 2,
            Self::Kubernetes(_) | Self::Probes { .. } | Self::System { .. } | Self::TaskEnded { .. } => 1,
        }
    }
}
