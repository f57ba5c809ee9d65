//! Giving ports to a Service that has its subdomain: the second half of the [registry](super::registry).

use std::net::SocketAddr;

use exposer_common::model::{PortRecord, Protocol};
use exposer_common::proto::message::Refusal;

use super::claim::{self, Allocation, PortState, Wish};
use super::ports::Taken;
use super::registry::{Registry, Work};
use super::target;
use crate::datapath::{BindingKey, ServiceRef};

/// A public port for one port record, and why it is not the one asked for.
struct Given {
    port: u16,
    refused: Option<Refusal>,
}

impl Registry {
    /// Gives each port record of `service` its public port, or a refusal.
    pub(super) fn place(&mut self, service: &ServiceRef, work: &mut Work) {
        let Some(entry) = self.services.get(service) else {
            return;
        };
        let ports = entry.record.ports.clone();
        self.starved.remove(service);
        work.changes.services.insert(service.clone());
        for port in &ports {
            self.place_record(service, port, work);
        }
        self.memory.remove(service);
    }

    fn place_record(&mut self, service: &ServiceRef, port: &PortRecord, work: &mut Work) {
        let mut reachable = Vec::new();
        for (wish, side) in claim::sides(port) {
            let Some(entry) = self.services.get(service) else {
                return;
            };
            match target::choose(&entry.record, side, &self.own_addresses) {
                Ok(backend) => reachable.push((wish, backend)),
                Err(refusal) => self.refuse(service, wish, refusal, work),
            }
        }
        if reachable.is_empty() {
            return;
        }
        if let Some(refusal) = self.over_limits(service, port.public_port, &reachable) {
            self.starved.insert(service.clone());
            for (wish, _) in reachable {
                self.refuse(service, wish, refusal.clone(), work);
            }
            return;
        }
        let protocols: Vec<Protocol> = reachable.iter().map(|(wish, _)| wish.protocol).collect();
        match self.find_port(service, port.public_port, &protocols) {
            Ok(given) => {
                for (wish, backend) in reachable {
                    self.give(service, wish, backend, &given, work);
                }
            }
            Err(refusal) => {
                self.starved.insert(service.clone());
                for (wish, _) in reachable {
                    self.refuse(service, wish, refusal.clone(), work);
                }
            }
        }
    }

    /// One number for all of `protocols`: the one held, else the one asked for, else the one remembered, else any of
    /// the dynamic range.
    fn find_port(
        &self,
        service: &ServiceRef,
        requested: u16,
        protocols: &[Protocol],
    ) -> Result<Given, Refusal> {
        if let Some(given) = self.held_port(service, requested, protocols) {
            return Ok(given);
        }
        let Some((protocol, taken)) = self.ports.taken_for(requested, protocols, service, requested) else {
            return Ok(Given {
                port: requested,
                refused: None,
            });
        };
        let allowed = |port| self.allows_port(&service.agent, port);
        let port = self
            .remembered_port(service, requested, protocols)
            .filter(|port| allowed(*port))
            .or_else(|| self.ports.free_dynamic(protocols, service, requested, allowed))
            .ok_or_else(|| {
                let refusal = claim::exhausted(requested, protocol, &taken, self.ports.dynamic());
                self.no_substitute(&service.agent, refusal)
            })?;
        Ok(Given {
            port,
            refused: Some(claim::moved(requested, protocol, &taken, port)),
        })
    }

    /// The number that the Service has for one of the protocols, if the others can have it too.
    fn held_port(&self, service: &ServiceRef, requested: u16, protocols: &[Protocol]) -> Option<Given> {
        let entry = self.services.get(service)?;
        protocols.iter().find_map(|protocol| {
            let wish = Wish {
                requested,
                protocol: *protocol,
            };
            let state = entry.ports.get(&wish)?;
            let port = state.allocated?.public_port;
            let keeps = protocols.iter().all(|protocol| {
                let key = BindingKey {
                    port,
                    protocol: *protocol,
                };
                if self.ports.is_held_by(key, service, requested) {
                    !self.ports.is_observed(key)
                } else {
                    self.ports.taken(key, service, requested).is_none()
                }
            });
            (keeps && self.allows_port(&service.agent, port)).then(|| Given {
                port,
                refused: state.refused.clone(),
            })
        })
    }

    fn remembered_port(&self, service: &ServiceRef, requested: u16, protocols: &[Protocol]) -> Option<u16> {
        let memory = self.memory.get(service)?;
        protocols.iter().find_map(|protocol| {
            let wish = Wish {
                requested,
                protocol: *protocol,
            };
            let port = *memory.get(&wish)?;
            self.ports
                .taken_for(port, protocols, service, requested)
                .is_none()
                .then_some(port)
        })
    }

    pub(super) fn refuse(&mut self, service: &ServiceRef, wish: Wish, refusal: Refusal, work: &mut Work) {
        self.release_port(service, wish, work);
        if let Some(entry) = self.services.get_mut(service) {
            let state = PortState {
                allocated: None,
                refused: Some(refusal),
            };
            entry.ports.insert(wish, state);
        }
    }

    fn give(
        &mut self,
        service: &ServiceRef,
        wish: Wish,
        backend: SocketAddr,
        given: &Given,
        work: &mut Work,
    ) {
        let former = self
            .services
            .get(service)
            .and_then(|entry| entry.ports.get(&wish))
            .and_then(|state| state.allocated);
        let key = BindingKey {
            port: given.port,
            protocol: wish.protocol,
        };
        let Some(index) = former
            .map(|former| former.index)
            .or_else(|| self.slots.allocate())
        else {
            self.starved.insert(service.clone());
            self.refuse(service, wish, claim::no_slot(), work);
            return;
        };
        let generation = match former {
            Some(former) if former.public_port == given.port && former.backend == backend => {
                former.generation
            }
            _ => self.slots.next_generation(),
        };
        if former.is_none() {
            self.count_port(&service.agent, true);
        }
        if let Some(former) = former
            && former.public_port != given.port
        {
            let left = BindingKey {
                port: former.public_port,
                protocol: wish.protocol,
            };
            self.ports.release(left, service);
            work.changes.keys.insert(left);
            work.freed_port = true;
        }
        self.ports.hold(key, service.clone(), wish.requested);
        work.changes.keys.insert(key);
        if let Some(entry) = self.services.get_mut(service) {
            let state = PortState {
                allocated: Some(Allocation {
                    public_port: given.port,
                    index,
                    generation,
                    backend,
                }),
                refused: given.refused.clone(),
            };
            entry.ports.insert(wish, state);
        }
    }

    /// What stands against giving `key` to `service`, for status and tests.
    #[must_use]
    pub fn taken(&self, key: BindingKey, service: &ServiceRef, requested: u16) -> Option<Taken> {
        self.ports.taken(key, service, requested)
    }
}
