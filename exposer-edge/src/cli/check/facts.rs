//! What several checks look at, gathered once.

use crate::cli::client;
use crate::config::Config;
use crate::net::environment::Environment;
use crate::net::firewall::Firewall;
use crate::net::links::{self, LinkSettings};
use crate::net::listeners::{self, Listener};
use crate::status::Status;

/// The host at one moment.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub environment: Environment,
    /// Why the network could not be read.
    pub network_error: Option<String>,
    /// Listeners of every process but this one.
    pub listeners: Vec<Listener>,
    pub firewall: Firewall,
    /// What a running daemon says, if one runs.
    pub daemon: Option<Status>,
}

impl Facts {
    pub(super) async fn gather(config: &Config) -> Self {
        let (environment, network_error) = match links::read(&LinkSettings::from(config)).await {
            Ok(environment) => (environment, None),
            Err(error) => (Environment::default(), Some(error.to_string())),
        };
        let scanned = tokio::task::spawn_blocking(listeners::scan).await;
        Self {
            environment,
            network_error,
            listeners: scanned.ok().and_then(Result::ok).unwrap_or_default(),
            firewall: Firewall::read().await,
            daemon: client::status(config.admin).await.ok(),
        }
    }

    /// Whether `listener` is the daemon that runs on this machine.
    pub(super) fn is_daemon(&self, listener: &Listener) -> bool {
        let Some(daemon) = &self.daemon else { return false };
        listener
            .owner
            .as_ref()
            .is_some_and(|owner| u32::try_from(owner.pid) == Ok(daemon.pid))
    }
}

/// A number in a file of /proc/sys.
pub(super) fn sysctl(name: &str) -> Option<u32> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}
