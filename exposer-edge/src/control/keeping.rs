//! What the [registry](super::registry) keeps beyond a restart and beyond an agent's absence: the state file's part of
//! it, and the ports of Services that were given up.

use std::collections::BTreeSet;

use super::claim::{self, Changes, PortState, SavedPort, SavedService, Wish};
use super::registry::{Registry, Work};
use super::state_file::Remembered;
use crate::datapath::{BindingKey, ServiceRef};

/// Most Services whose ports are remembered after their agent was given up.
const MAX_MEMORY: usize = 4_096;

impl Registry {
    /// What the state file keeps of the Services of `agent`.
    #[must_use]
    pub fn save(&self, agent: &str) -> Vec<SavedService> {
        self.of_agent(agent)
            .map(|(_, entry)| SavedService {
                record: entry.record.clone(),
                admitted: entry.refused.is_none(),
                ports: entry
                    .ports
                    .iter()
                    .filter_map(|(wish, state)| {
                        Some(SavedPort {
                            wish: *wish,
                            allocation: state.allocated?,
                            refused: state.refused.clone(),
                        })
                    })
                    .collect(),
            })
            .collect()
    }

    /// Takes over what a state file says. What contradicts itself, or is used by the host meanwhile, is allocated
    /// anew; records that break a rule are left out.
    pub fn restore(&mut self, saved: Vec<(String, SavedService)>) -> Changes {
        let mut work = Work::default();
        let mut candidates = BTreeSet::new();
        for (
            agent,
            SavedService {
                record,
                admitted,
                ports,
            },
        ) in saved
        {
            let service = ServiceRef {
                agent,
                id: record.id.clone(),
            };
            if record.validate().is_err()
                || self.services.contains_key(&service)
                || !self.lets_in(&service.agent, &record)
            {
                continue;
            }
            let subdomain = record.subdomain.clone();
            self.admit(&service, record, &mut work);
            if admitted && !self.subdomains.contains_key(&subdomain) {
                self.subdomains.insert(subdomain, service.clone());
                self.restore_ports(&service, ports);
            }
            candidates.insert(service);
        }
        self.settle(candidates, work)
    }

    fn restore_ports(&mut self, service: &ServiceRef, saved: Vec<SavedPort>) {
        let Some(entry) = self.services.get(service) else {
            return;
        };
        let wanted = claim::wishes(&entry.record);
        for SavedPort {
            wish,
            allocation,
            refused,
        } in saved
        {
            let key = BindingKey {
                port: allocation.public_port,
                protocol: wish.protocol,
            };
            let usable = wanted.contains(&wish)
                && key.port != 0
                && self.allows_port(&service.agent, key.port)
                && self.has_room(&service.agent)
                && self.ports.holder(key).is_none()
                && self.ports.taken(key, service, wish.requested).is_none();
            if usable && self.slots.take(allocation.index) {
                self.ports.hold(key, service.clone(), wish.requested);
                self.count_port(&service.agent, true);
                let state = PortState {
                    allocated: Some(allocation),
                    refused,
                };
                if let Some(entry) = self.services.get_mut(service) {
                    entry.ports.insert(wish, state);
                }
            }
        }
    }

    /// Generations go on after `generation`, if that is further than here.
    pub fn go_on_from(&mut self, generation: u32) {
        self.slots.go_on_from(generation);
    }

    /// Ports that are remembered for Services whose agent was given up.
    #[must_use]
    pub fn remembered(&self) -> Vec<Remembered> {
        self.memory
            .iter()
            .flat_map(|(service, ports)| {
                ports.iter().map(|(wish, public_port)| Remembered {
                    service: service.clone(),
                    wish: *wish,
                    public_port: *public_port,
                })
            })
            .collect()
    }

    /// Takes over a port that is remembered, up to a limit.
    pub fn remember_port(&mut self, service: ServiceRef, wish: Wish, public_port: u16) {
        if public_port != 0 && (self.memory.contains_key(&service) || self.memory.len() < MAX_MEMORY) {
            self.memory.entry(service).or_default().insert(wish, public_port);
        }
    }

    /// Forgets ports that are remembered for Services of `agent`: it has said what it has.
    pub fn forget_memory(&mut self, agent: &str) {
        self.memory.retain(|service, _| service.agent != agent);
    }

    /// Notes which ports `service` has, for the day when its agent comes back.
    pub(super) fn remember(&mut self, service: &ServiceRef) {
        if self.memory.len() >= MAX_MEMORY {
            return;
        }
        let Some(entry) = self.services.get(service) else {
            return;
        };
        let ports = entry
            .ports
            .iter()
            .filter_map(|(wish, state)| Some((*wish, state.allocated?.public_port)))
            .collect();
        self.memory.insert(service.clone(), ports);
    }
}
