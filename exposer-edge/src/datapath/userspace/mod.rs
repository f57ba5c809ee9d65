//! The userspace path: a proxy on every public port.
//!
//! It is the fallback of the kernel path and the reservation of the port at once (DESIGN §3). Every dial goes through
//! the tunnel interface alone. The trait's calls do their work at once and spawn tasks for the rest.

mod limits;
mod listener;
mod owner;
mod proxy;
mod served;
mod settings;
mod stats;
mod tcp;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use exposer_common::model::{ClientIp, Protocol};
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use self::limits::Limits;
use self::listener::TcpEndpoint;
use self::served::{Context, Served};
pub use self::settings::UserspaceSettings;
use self::tcp::splice::PipePool;
use super::{Binding, BindingKey, BindingStats, Datapath, DatapathError, Removal};
use crate::net::environment::Environment;

/// How often a port that can't be bound is reported by [`Datapath::tick`].
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// One binding with its sockets.
#[derive(Debug)]
struct Port {
    served: Arc<Served>,
    endpoints: BTreeMap<IpAddr, TcpEndpoint>,
    /// When a missing address was last reported.
    reported: Option<Instant>,
}

/// The userspace implementation of [`Datapath`].
#[derive(Debug)]
pub struct UserspaceDatapath {
    runtime: Handle,
    context: Arc<Context>,
    addresses: Vec<IpAddr>,
    ports: BTreeMap<BindingKey, Port>,
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
            tasks: TaskTracker::new(),
            over: CancellationToken::new(),
            settings,
        };
        Self {
            runtime: Handle::current(),
            context: Arc::new(context),
            addresses: Vec::new(),
            ports: BTreeMap::new(),
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

    fn open(port: &mut Port, address: IpAddr) -> Result<(), DatapathError> {
        let key = port.served.key;
        let socket = listener::bind(key, address)?;
        let endpoint = TcpEndpoint::start(socket, &port.served).map_err(|source| DatapathError::System {
            action: format!("could not watch the socket of {key} on {address}"),
            source,
        })?;
        port.endpoints.insert(address, endpoint);
        Ok(())
    }

    /// Opens what is missing on `port`. All addresses are tried; the first error is returned.
    fn complete(addresses: &[IpAddr], port: &mut Port) -> Result<(), DatapathError> {
        let mut outcome = Ok(());
        for address in addresses {
            if !port.endpoints.contains_key(address) {
                outcome = outcome.and(Self::open(port, *address));
            }
        }
        outcome
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
        (ClientIp::Auto | ClientIp::Snat, Protocol::Udp) => "the userspace path does not forward UDP yet",
        (ClientIp::ProxyV1, Protocol::Udp) => {
            "PROXY protocol version 1 has no form for UDP; use client-ip snat"
        }
        (ClientIp::ProxyV2, Protocol::Udp) => {
            "client-ip proxy-v2 is not built for UDP yet; use client-ip snat for this port"
        }
        (_, Protocol::Tcp) => return Ok(()),
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
            Port {
                served: Arc::new(Served::new(Arc::clone(&self.context), binding)),
                endpoints: BTreeMap::new(),
                reported: None,
            }
        });
        if let Some(before) = port.served.change(binding) {
            before.end_after(removal.drain);
        }
        let outcome = Self::complete(&self.addresses, port);
        if outcome.is_err() {
            self.remove(key, removal)?;
        }
        outcome
    }

    fn remove(&mut self, key: BindingKey, removal: Removal) -> Result<(), DatapathError> {
        let _runtime = self.runtime.enter();
        if let Some(port) = self.ports.remove(&key) {
            let route = port.served.route();
            // The sockets first: from here on nothing is accepted.
            drop(port);
            route.end_after(removal.drain);
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
        let mut outcome = Ok(());
        for port in self.ports.values_mut() {
            port.endpoints
                .retain(|address, _| self.addresses.contains(address));
            outcome = outcome.and(Self::complete(&self.addresses, port));
        }
        outcome
    }

    fn tick(&mut self) -> Result<(), DatapathError> {
        let _runtime = self.runtime.enter();
        let mut outcome = Ok(());
        for port in self.ports.values_mut() {
            if port.endpoints.len() == self.addresses.len() {
                continue;
            }
            let completed = Self::complete(&self.addresses, port);
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
