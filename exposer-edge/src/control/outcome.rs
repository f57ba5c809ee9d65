//! What an agent is told of a Service: the registry's decision and the datapath's result, port by port.

use exposer_common::proto::message::{PortOutcome, Refusal, RefusalCode, ServiceOutcome};

use super::claim::{Entry, PortState, Wish};
use super::programming::{Programming, State};
use crate::datapath::{BindingKey, ServiceRef};

/// The outcome of `service` as it stands.
#[must_use]
pub fn of(service: &ServiceRef, entry: &Entry, programming: &Programming, tunnel_up: bool) -> ServiceOutcome {
    let Entry {
        record: _,
        refused,
        ports,
    } = entry;
    let ports = match refused {
        Some(_) => Vec::new(),
        None => ports
            .iter()
            .map(|(wish, state)| port(*wish, state, programming, tunnel_up))
            .collect(),
    };
    ServiceOutcome {
        id: service.id.clone(),
        refused: refused.clone(),
        ports,
    }
}

/// The outcome of one port.
#[must_use]
pub fn port(wish: Wish, state: &PortState, programming: &Programming, tunnel_up: bool) -> PortOutcome {
    let mut outcome = PortOutcome {
        requested: wish.requested,
        protocol: wish.protocol,
        public_port: None,
        path: None,
        refused: state.refused.clone(),
    };
    let Some(allocation) = state.allocated else {
        return outcome;
    };
    let key = BindingKey {
        port: allocation.public_port,
        protocol: wish.protocol,
    };
    let slot = programming.get(key).filter(|slot| {
        slot.told
            .as_ref()
            .is_some_and(|told| told.generation == allocation.generation)
    });
    match slot.map(|slot| &slot.state) {
        Some(State::Served(served)) => {
            outcome.public_port = Some(key.port);
            outcome.path = Some(served.path);
            if !tunnel_up {
                outcome.refused = Some(tunnel_down());
            } else if let Some(reason) = &served.downgrade {
                outcome.refused = Some(downgraded(outcome.refused, reason));
            }
        }
        Some(State::Failed { failure, .. }) => {
            outcome.refused = Some(Refusal {
                code: RefusalCode::ProgramFailed,
                text: format!(
                    "port {key} could not be opened: {}; it is tried again",
                    failure.text
                ),
            });
        }
        Some(State::Running(_)) | None => {}
    }
    outcome
}

fn tunnel_down() -> Refusal {
    Refusal {
        code: RefusalCode::TunnelDown,
        text: "the edge's WireGuard interface is down: the port answers nobody until it is up again".into(),
    }
}

/// A downgrade; where the port was moved besides, that is said first.
fn downgraded(moved: Option<Refusal>, reason: &str) -> Refusal {
    match moved {
        Some(Refusal { code, text }) => Refusal {
            code,
            text: format!("{text}; besides, the kernel path does not serve it: {reason}"),
        },
        None => Refusal {
            code: RefusalCode::PathDowngraded,
            text: format!("the kernel path does not serve it: {reason}"),
        },
    }
}
