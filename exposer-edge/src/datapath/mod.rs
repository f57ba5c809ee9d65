//! What carries packets: the [`Datapath`] trait and its implementations.
//!
//! A datapath is told *what is to be* ([`Binding`], [`Environment`]), never how. Every call is idempotent, so that the
//! core can repeat itself after a failure, a restart or a netlink event.

pub mod accelerator;
pub mod combined;
pub mod kernel;
pub mod recording;
pub mod userspace;

use std::net::SocketAddr;
use std::time::Duration;

use exposer_common::model::{ClientIp, Protocol, ServiceId};
use serde::{Deserialize, Serialize};

use crate::net::environment::Environment;

/// A public port, on every public address at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BindingKey {
    /// Public port, 1–65535.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

impl std::fmt::Display for BindingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

/// A Service of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceRef {
    /// The agent's name.
    pub agent: String,
    /// Namespace and name in the agent's cluster.
    pub id: ServiceId,
}

impl std::fmt::Display for ServiceRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.agent, self.id)
    }
}

/// One public port as it is to be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Where clients knock.
    pub key: BindingKey,
    /// Whose it is.
    pub service: ServiceRef,
    /// Stable number of this binding, below [`exposer_common::names::SERVICE_SLOTS`]: names its counters.
    pub index: u32,
    /// Rises when the target changes; a flow belongs to the generation that it was made in.
    pub generation: u32,
    /// Where packets go, reachable through the tunnel.
    pub backend: SocketAddr,
    /// What the backend is to see as the client.
    pub client_ip: ClientIp,
    /// Idle timeout that replaces the default of the protocol.
    pub idle_timeout: Option<Duration>,
}

/// What happens to the connections of a binding that goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removal {
    /// How long TCP connections may go on (DESIGN §5, removal rule); UDP sessions end at once.
    pub drain: Duration,
}

/// Counters of one binding, since its datapath began to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingStats {
    /// Connections or sessions made.
    pub flows: u64,
    /// Connections or sessions that live.
    pub active: u64,
    /// Packets (kernel path) from clients.
    pub packets_in: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Packets (kernel path) to clients.
    pub packets_out: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// Connections that failed: refused, timed out, over a limit.
    pub failed: u64,
}

/// Why a datapath could not do as told. The text says what the operator can do about it.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The public port is in use by another program of this host.
    #[error(
        "port {key} on {address} is in use by another program of this host{owner}; stop it or choose another port"
    )]
    PortInUse {
        /// The binding.
        key: BindingKey,
        /// The address on which it failed.
        address: std::net::IpAddr,
        /// ` (name, pid N)` where it could be found out, else empty.
        owner: String,
    },
    /// This datapath can't carry the binding; another one may.
    #[error("{0}")]
    Unsupported(String),
    /// The operating system refused.
    #[error("{action}: {source}")]
    System {
        /// What was tried, in words.
        action: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Anything of BPF, with the whole chain of causes.
    #[error("{0}")]
    Bpf(String),
}

/// What carries packets for bindings.
pub trait Datapath: Send {
    /// Serves `binding`, replacing whatever the key was served with before. Connections of an earlier generation go on
    /// by the removal rule.
    ///
    /// # Errors
    ///
    /// When the port can't be served; nothing of the binding is left behind then.
    fn upsert(&mut self, binding: &Binding, removal: Removal) -> Result<(), DatapathError>;

    /// Stops serving `key`: no new connection from here on, the present ones by the removal rule. A key that is not
    /// served is no error.
    ///
    /// # Errors
    ///
    /// When the system refused; the call may be repeated.
    fn remove(&mut self, key: BindingKey, removal: Removal) -> Result<(), DatapathError>;

    /// Takes over changed interfaces, addresses and routes for all bindings.
    ///
    /// # Errors
    ///
    /// When a binding can't be served any more; the others are served.
    fn set_environment(&mut self, environment: &Environment) -> Result<(), DatapathError>;

    /// Periodic work: expiry, heartbeat, repair. Called once a second.
    ///
    /// # Errors
    ///
    /// When something needs an operator; the call is repeated anyway.
    fn tick(&mut self) -> Result<(), DatapathError>;

    /// Counters of a binding.
    fn stats(&self, key: BindingKey) -> Option<BindingStats>;
}
