//! Values of the registry: what a Service claims, what it was given, and the order in which claims are heard.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use exposer_common::model::{PortRecord, Protocol, ServiceId, ServicePort, ServiceRecord};
use exposer_common::proto::message::{Refusal, RefusalCode};
use serde::{Deserialize, Serialize};

use super::ports::Taken;
use crate::datapath::{BindingKey, ServiceRef};

/// A port as the Service asked for it: names a port of a Service wherever it is moved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Wish {
    /// The public port that was asked for.
    pub requested: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// What a wish was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    /// The public port that answers.
    pub public_port: u16,
    /// Stable index of the binding.
    pub index: u32,
    /// Generation of the binding: changes with the public port and with the backend.
    pub generation: u32,
    /// Where packets go.
    pub backend: SocketAddr,
}

/// What became of a wish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortState {
    /// The port, where one was given.
    pub allocated: Option<Allocation>,
    /// Why it is not the one asked for, or none at all.
    pub refused: Option<Refusal>,
}

/// A Service in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What its agent reports.
    pub record: ServiceRecord,
    /// Why the Service as a whole is refused; it has no ports then.
    pub refused: Option<Refusal>,
    /// Its wishes and what became of them.
    pub ports: BTreeMap<Wish, PortState>,
}

/// A Service as the state file keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedService {
    /// What the agent reported last.
    pub record: ServiceRecord,
    /// Whether it held its subdomain.
    pub admitted: bool,
    /// The ports that it had.
    pub ports: Vec<SavedPort>,
}

/// A port as the state file keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPort {
    /// What was asked for.
    pub wish: Wish,
    /// What was given.
    pub allocation: Allocation,
    /// Why it is not what was asked for.
    pub refused: Option<Refusal>,
}

/// What an operation of the registry may have changed; the caller looks up how it is after that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Services whose outcome may differ.
    pub services: BTreeSet<ServiceRef>,
    /// Public ports whose binding may differ.
    pub keys: BTreeSet<BindingKey>,
}

impl Changes {
    /// Adds those of another operation.
    pub fn merge(&mut self, other: Self) {
        let Self { services, keys } = other;
        self.services.extend(services);
        self.keys.extend(keys);
    }
}

/// The order in which claims are heard: oldest first, then by namespace and name, then by agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority {
    created: u64,
    id: ServiceId,
    agent: String,
}

impl Priority {
    /// That of a Service.
    #[must_use]
    pub fn of(service: &ServiceRef, record: &ServiceRecord) -> Self {
        Self {
            created: record.created,
            id: service.id.clone(),
            agent: service.agent.clone(),
        }
    }
}

/// The sides that a port record asks for, TCP first.
pub fn sides(port: &PortRecord) -> impl Iterator<Item = (Wish, ServicePort)> {
    let port = *port;
    Protocol::ALL.into_iter().filter_map(move |protocol| {
        let wish = Wish {
            requested: port.public_port,
            protocol,
        };
        port.side(protocol).map(|side| (wish, side))
    })
}

/// Every wish of a record.
#[must_use]
pub fn wishes(record: &ServiceRecord) -> BTreeSet<Wish> {
    record
        .ports
        .iter()
        .flat_map(sides)
        .map(|(wish, _)| wish)
        .collect()
}

/// The refusal of a Service whose subdomain `holder` has.
#[must_use]
pub fn subdomain_taken(subdomain: &str, holder: &ServiceRef) -> Refusal {
    Refusal {
        code: RefusalCode::SubdomainTaken,
        text: format!(
            "subdomain \"{subdomain}\" belongs to Service {} of agent {}; choose another one, or delete that Service",
            holder.id, holder.agent
        ),
    }
}

/// The notice that a port was moved to `given`.
#[must_use]
pub fn moved(requested: u16, protocol: Protocol, taken: &Taken, given: u16) -> Refusal {
    let (code, who) = explain(taken);
    Refusal {
        code,
        text: format!("port {requested}/{protocol} {who}; port {given} was given instead"),
    }
}

/// The refusal of a port for which there is no substitute either.
#[must_use]
pub fn exhausted(
    requested: u16,
    protocol: Protocol,
    taken: &Taken,
    dynamic: &std::ops::RangeInclusive<u16>,
) -> Refusal {
    let (_, who) = explain(taken);
    Refusal {
        code: RefusalCode::PortsExhausted,
        text: format!(
            "port {requested}/{protocol} {who}, and no port of {}-{} is free; delete a Service or widen the edge's \
             port range",
            dynamic.start(),
            dynamic.end()
        ),
    }
}

/// The refusal where every binding index is in use.
#[must_use]
pub fn no_slot() -> Refusal {
    Refusal {
        code: RefusalCode::PortsExhausted,
        text: format!(
            "this edge already serves {} ports, which is all that it can",
            exposer_common::names::SERVICE_SLOTS
        ),
    }
}

fn explain(taken: &Taken) -> (RefusalCode, String) {
    match taken {
        Taken::Held(holder) => (
            RefusalCode::PortMoved,
            format!("belongs to Service {} of agent {}", holder.id, holder.agent),
        ),
        Taken::Reserved(owner) => (RefusalCode::PortReserved, format!("is {owner}")),
    }
}
