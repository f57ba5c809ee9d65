//! What the core shows of itself for the status.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use exposer_common::proto::message::{PortOutcome, Refusal};

use super::agents::Presence;
use super::core::Core;
use super::outcome;
use crate::datapath::{BindingKey, ServiceRef};

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentView {
    /// Its name.
    pub name: String,
    /// Where it connects from; none while it is away.
    pub peer: Option<SocketAddr>,
    /// For how long it has been there, or away.
    pub since: Duration,
    /// In how long its Services end if it stays away.
    pub expires_in: Option<Duration>,
    /// Its software, as it says.
    pub software: String,
    /// Revision of its last message on this connection that was acted on.
    pub revision: u64,
    /// Number of its Services, refused ones included.
    pub services: usize,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortView {
    /// What its agent is told.
    pub outcome: PortOutcome,
    /// The public port that was given, whether it answers or not.
    pub key: Option<BindingKey>,
    /// Index of the binding.
    pub index: Option<u32>,
    /// Where its packets go.
    pub backend: Option<SocketAddr>,
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceView {
    /// Whose it is, and its name.
    pub service: ServiceRef,
    /// Its name under the cluster domain; empty for a record that broke a rule.
    pub subdomain: String,
    /// Why the Service as a whole is refused.
    pub refused: Option<Refusal>,
    /// Its ports.
    pub ports: Vec<PortView>,
}

impl Core {
    /// Every agent, by name.
    #[must_use]
    pub fn view_agents(&self, now: Instant) -> Vec<AgentView> {
        self.agents
            .iter()
            .map(|(name, agent)| {
                let (peer, since) = match &agent.presence {
                    Presence::Connected { peer, since, .. } => {
                        (Some(*peer), now.saturating_duration_since(*since))
                    }
                    Presence::Away { .. } => (None, agent.presence.away_for(now).unwrap_or_default()),
                };
                AgentView {
                    name: name.clone(),
                    peer,
                    since,
                    expires_in: agent
                        .presence
                        .expires(self.settings.stale_after)
                        .map(|at| at.saturating_duration_since(now)),
                    software: agent.software.clone(),
                    revision: agent.position.map_or(0, |(_, revision)| revision),
                    services: self.registry.count_of(name).saturating_add(agent.invalid.len()),
                }
            })
            .collect()
    }

    /// Every Service, in the order of agent, namespace and name; those whose record broke a rule come last.
    #[must_use]
    pub fn view_services(&self) -> Vec<ServiceView> {
        let valid = self.registry.entries().map(|(service, entry)| ServiceView {
            service: service.clone(),
            subdomain: entry.record.subdomain.clone(),
            refused: entry.refused.clone(),
            ports: entry
                .ports
                .iter()
                .map(|(wish, state)| PortView {
                    outcome: outcome::port(*wish, state, &self.programming, self.tunnel_up),
                    key: state.allocated.map(|allocation| BindingKey {
                        port: allocation.public_port,
                        protocol: wish.protocol,
                    }),
                    index: state.allocated.map(|allocation| allocation.index),
                    backend: state.allocated.map(|allocation| allocation.backend),
                })
                .collect(),
        });
        let invalid = self.agents.iter().flat_map(|(name, agent)| {
            agent.invalid.iter().map(|(id, refusal)| ServiceView {
                service: ServiceRef {
                    agent: name.clone(),
                    id: id.clone(),
                },
                subdomain: String::new(),
                refused: Some(refusal.clone()),
                ports: Vec::new(),
            })
        });
        valid.chain(invalid).collect()
    }
}
