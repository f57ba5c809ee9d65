//! Outcomes on their way out: to the log, once for each change, and to the Kubernetes side.
//!
//! The Kubernetes side may be slow (it waits for the API server). Outcomes that overtake each other meanwhile replace
//! each other, so what waits is bounded by the number of Services, and the session never stops for it.

use std::collections::BTreeMap;

use exposer_common::model::ServiceId;
use exposer_common::proto::error::printable;
use exposer_common::proto::message::{Path, PortOutcome, ServiceOutcome};
use tokio::sync::mpsc::Permit;
use tracing::{info, warn};

use crate::desired::{Outcomes, OutcomesSender};

/// See the [module](self).
#[derive(Debug)]
pub struct Reporter {
    edge: String,
    sender: OutcomesSender,
    waiting: BTreeMap<ServiceId, ServiceOutcome>,
    /// What was logged last, so that a reconnect does not repeat it.
    logged: BTreeMap<ServiceId, ServiceOutcome>,
}

impl Reporter {
    /// Nothing reported yet.
    #[must_use]
    pub const fn new(edge: String, sender: OutcomesSender) -> Self {
        Self {
            edge,
            sender,
            waiting: BTreeMap::new(),
            logged: BTreeMap::new(),
        }
    }

    /// Takes what an edge acknowledged.
    pub fn take(&mut self, outcomes: Vec<ServiceOutcome>) {
        for outcome in outcomes {
            if self.logged.get(&outcome.id) != Some(&outcome) {
                log(&self.edge, &outcome);
                self.logged.insert(outcome.id.clone(), outcome.clone());
            }
            self.waiting.insert(outcome.id.clone(), outcome);
        }
    }

    /// Forgets Services that are not wanted any more.
    pub fn retain(&mut self, wanted: impl Fn(&ServiceId) -> bool) {
        self.logged.retain(|id, _| wanted(id));
        self.waiting.retain(|id, _| wanted(id));
    }

    /// Whether anything waits.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Waits for room at the Kubernetes side and hands over all that waits. Safe to cancel: it either did all or nothing.
    pub async fn flush(&mut self) {
        match self.sender.reserve().await {
            Ok(permit) => hand_over(permit, &self.edge, &mut self.waiting),
            // The Kubernetes side has stopped: nobody reads them.
            Err(_) => self.waiting.clear(),
        }
    }
}

fn hand_over(permit: Permit<'_, Outcomes>, edge: &str, waiting: &mut BTreeMap<ServiceId, ServiceOutcome>) {
    let outcomes = std::mem::take(waiting).into_values().collect();
    permit.send(Outcomes {
        edge: edge.to_owned(),
        outcomes,
    });
}

fn log(edge: &str, outcome: &ServiceOutcome) {
    let ServiceOutcome { id, refused, ports } = outcome;
    if let Some(refusal) = refused {
        let text = printable(&refusal.text);
        warn!(component = "edge_client", edge, service = %id, action = "refused", "the edge refuses the Service: {text}");
    }
    for port in ports {
        let PortOutcome {
            requested,
            protocol,
            public_port,
            path,
            refused,
        } = port;
        let path = path.map(|path| match path {
            Path::Kernel => "kernel",
            Path::Userspace => "userspace",
        });
        match refused {
            None => info!(
                component = "edge_client", edge, service = %id, port = requested, %protocol, public_port, path,
                action = "serve", "the edge serves the port"
            ),
            Some(refusal) => {
                let text = printable(&refusal.text);
                warn!(
                    component = "edge_client", edge, service = %id, port = requested, %protocol, public_port, path,
                    action = "serve", "the port is not as asked for: {text}"
                );
            }
        }
    }
}
