//! Puts the status together.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::control::core::Core;
use crate::control::view::{AgentView, PortView, ServiceView};
use crate::datapath::{BindingKey, BindingStats};
use crate::net::environment::Environment;
use crate::status::{AgentStatus, DatapathStatus, PortStatus, ReasonCount, ServiceStatus, Status};

/// What was observed of the datapaths.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// How packets are carried.
    pub datapath: DatapathStatus,
    /// Counters by reason.
    pub reasons: Vec<ReasonCount>,
}

/// The status at this moment.
#[must_use]
pub fn build(
    core: &Core,
    environment: &Environment,
    not_ready: Vec<String>,
    started: u64,
    stats: &BTreeMap<BindingKey, BindingStats>,
    observed: Observed,
) -> Status {
    let (now, unix) = (Instant::now(), unix_now());
    let Observed { datapath, reasons } = observed;
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started,
        not_ready,
        agents: core
            .view_agents(now)
            .into_iter()
            .map(|view| agent(view, unix))
            .collect(),
        services: core
            .view_services()
            .into_iter()
            .map(|view| service(view, stats))
            .collect(),
        environment: environment.clone(),
        datapath,
        reasons,
    }
}

/// Seconds since 1970.
#[must_use]
pub fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

fn agent(view: AgentView, unix: u64) -> AgentStatus {
    let AgentView {
        name,
        peer,
        since,
        expires_in,
        software,
        revision,
        services,
    } = view;
    AgentStatus {
        name,
        peer,
        since: unix.saturating_sub(since.as_secs()),
        expires: expires_in.map(|left| unix.saturating_add(left.as_secs())),
        software,
        revision,
        services: u32::try_from(services).unwrap_or(u32::MAX),
    }
}

fn service(view: ServiceView, stats: &BTreeMap<BindingKey, BindingStats>) -> ServiceStatus {
    let ServiceView {
        service,
        subdomain,
        refused,
        ports,
    } = view;
    ServiceStatus {
        service,
        subdomain,
        refused,
        ports: ports.into_iter().map(|view| port(view, stats)).collect(),
    }
}

fn port(view: PortView, stats: &BTreeMap<BindingKey, BindingStats>) -> PortStatus {
    let PortView {
        outcome,
        key,
        index,
        backend,
    } = view;
    PortStatus {
        requested: outcome.requested,
        protocol: outcome.protocol,
        public_port: outcome.public_port,
        index,
        path: outcome.path,
        backend,
        refused: outcome.refused,
        stats: key.and_then(|key| stats.get(&key).copied()).unwrap_or_default(),
    }
}
