//! The userspace path: a proxy on every public port.
//!
//! It is the fallback of the kernel path and the reservation of the port at once (DESIGN §3). Every dial goes through
//! the tunnel interface alone. The trait's calls do their work at once and spawn tasks for the rest.

mod limits;
mod listener;
mod port;
mod proxy;
mod served;
mod settings;
mod stats;
mod tcp;
mod tunnel;
mod udp;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use exposer_common::model::{ClientIp, Protocol};
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use self::limits::Limits;
use self::port::{Closing, Port};
use self::served::{Context, Served};
pub use self::settings::UserspaceSettings;
pub use self::stats::UserspaceStats;
use self::tcp::splice::PipePool;
use self::tunnel::Tunnel;
use super::{Binding, BindingKey, BindingStats, Datapath, DatapathError, Removal};
use crate::net::environment::Environment;

/// How often a port that can't be bound is reported by [`Datapath::tick`].
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// The userspace implementation of [`Datapath`].
#[derive(Debug)]
pub struct UserspaceDatapath {
    runtime: Handle,
    context: Arc<Context>,
    addresses: Vec<IpAddr>,
    /// Index of the tunnel interface when it was last there.
    tunnel: Option<u32>,
    ports: BTreeMap<BindingKey, Port>,
    /// UDP sockets that were let go of and may still be held by a task for a moment.
    closing: Closing,
}

impl UserspaceDatapath {
    /// A datapath without bindings. Public addresses come with [`Datapath::set_environment`]; a binding that is made
    /// before is served from then on.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, whose handle it keeps for its tasks.
    #[must_use]
    pub fn new(settings: UserspaceSettings) -> Self {
        let context = Context {
            limits: Arc::new(Limits::new(settings.per_service, settings.per_source)),
            pipes: PipePool::new(settings.pipe_bytes),
            tunnel: Tunnel::new(settings.tunnel.clone()),
            tasks: TaskTracker::new(),
            over: CancellationToken::new(),
            settings,
        };
        Self {
            runtime: Handle::current(),
            context: Arc::new(context),
            addresses: Vec::new(),
            tunnel: None,
            ports: BTreeMap::new(),
            closing: BTreeMap::new(),
        }
    }

    /// Closes every port at once and waits until the connections have ended, at most for `drain`; what is left then
    /// gets RST.
    pub async fn shutdown(mut self, drain: Duration) {
        for (_, port) in std::mem::take(&mut self.ports) {
            if port.served.key.protocol == Protocol::Udp {
                port.served.route().over.cancel();
            }
        }
        self.context.tasks.close();
        let drained = tokio::time::timeout(drain, self.context.tasks.wait()).await;
        if drained.is_err() {
            let left = self.context.tasks.len();
            warn!(component = "userspace", action = "drain over", connections = left);
            self.context.over.cancel();
            self.context.tasks.wait().await;
        }
    }

    /// The live UDP sessions of `key`, as (client, public address), sorted: the kernel path leaves these clients here
    /// when it takes the port over (DESIGN §2, hand-over).
    #[must_use]
    pub fn live_udp_clients(&self, key: BindingKey) -> Vec<(SocketAddr, SocketAddr)> {
        let sessions = self.ports.get(&key).map(|port| port.sessions.clients());
        let keys = sessions.unwrap_or_default().into_iter();
        keys.map(|session| (session.client, session.public)).collect()
    }

    /// What failed on `key`, by kind.
    #[must_use]
    pub fn detail(&self, key: BindingKey) -> Option<UserspaceStats> {
        self.ports.get(&key).map(|port| port.served.counters.detail())
    }
}

impl Drop for UserspaceDatapath {
    fn drop(&mut self) {
        self.context.over.cancel();
    }
}

/// What this path cannot do, in words for the user of the Service.
fn check(binding: &Binding) -> Result<(), DatapathError> {
    let text = match (binding.client_ip, binding.key.protocol) {
        (ClientIp::Transparent, _) => {
            "client-ip transparent needs the kernel path; the userspace path can only masquerade (client-ip snat) or \
             send a PROXY protocol header (client-ip proxy-v1 or proxy-v2)"
        }
        (ClientIp::ProxyV1, Protocol::Udp) => {
            "PROXY protocol version 1 has no form for UDP; use client-ip snat"
        }
        (ClientIp::ProxyV2, Protocol::Udp) => {
            "client-ip proxy-v2 is not built for UDP yet; use client-ip snat for this port"
        }
        (ClientIp::Auto | ClientIp::Snat, _) | (ClientIp::ProxyV1 | ClientIp::ProxyV2, Protocol::Tcp) => {
            return Ok(());
        }
    };
    Err(DatapathError::Unsupported(text.into()))
}

impl Datapath for UserspaceDatapath {
    fn upsert(&mut self, binding: &Binding, removal: Removal) -> Result<(), DatapathError> {
        let _runtime = self.runtime.enter();
        let key = binding.key;
        if let Err(error) = check(binding) {
            self.remove(key, removal)?;
            return Err(error);
        }
        let same_service = |port: &Port| port.served.route().binding.service == binding.service;
        if self.ports.get(&key).is_some_and(|port| !same_service(port)) {
            self.remove(key, removal)?;
        }
        let port = self.ports.entry(key).or_insert_with(|| {
            info!(
                component = "userspace",
                service = %binding.service,
                port = key.port,
                protocol = %key.protocol,
                action = "serve",
                target = %binding.backend,
            );
            Port::new(Served::new(Arc::clone(&self.context), binding))
        });
        if let Some(before) = port.served.change(binding) {
            before.end_after(port.drain(removal));
        }
        let outcome = port.complete(&self.addresses, &mut self.closing);
        if outcome.is_err() {
            self.remove(key, removal)?;
        }
        outcome
    }

    fn remove(&mut self, key: BindingKey, removal: Removal) -> Result<(), DatapathError> {
        let _runtime = self.runtime.enter();
        if let Some(mut port) = self.ports.remove(&key) {
            let route = port.served.route();
            // The sockets first: from here on nothing is accepted.
            port.close(&[], &mut self.closing);
            route.end_after(port.drain(removal));
            info!(
                component = "userspace",
                service = %route.binding.service,
                port = key.port,
                protocol = %key.protocol,
                action = "close",
            );
        }
        Ok(())
    }

    fn set_environment(&mut self, environment: &Environment) -> Result<(), DatapathError> {
        let _runtime = self.runtime.enter();
        self.addresses.clone_from(&environment.public_addresses);
        if let Some(index) = environment.tunnel.ifindex
            && let Some(before) = self.tunnel.replace(index)
            && before != index
        {
            info!(
                component = "userspace",
                action = "tunnel made anew",
                ifindex = index
            );
            self.context.tunnel.made_anew();
        }
        let mut outcome = Ok(());
        for port in self.ports.values_mut() {
            port.endpoints
                .retain(|address, _| self.addresses.contains(address));
            outcome = outcome.and(port.complete(&self.addresses, &mut self.closing));
        }
        outcome
    }

    fn tick(&mut self) -> Result<(), DatapathError> {
        let _runtime = self.runtime.enter();
        self.closing.retain(|_, socket| socket.strong_count() > 0);
        let mut outcome = Ok(());
        for port in self.ports.values_mut() {
            if port.endpoints.len() == self.addresses.len() {
                continue;
            }
            let completed = port.complete(&self.addresses, &mut self.closing);
            if completed.is_err() && port.reported.is_none_or(|at| at.elapsed() >= REPORT_EVERY) {
                port.reported = Some(Instant::now());
                outcome = outcome.and(completed);
            }
        }
        outcome
    }

    fn stats(&self, key: BindingKey) -> Option<BindingStats> {
        self.ports.get(&key).map(|port| port.served.counters.snapshot())
    }
}
