//! The registry: which Service has which subdomain and which public ports.
//!
//! Pure and deterministic. Claims that arrive together are heard in the order of their age ([`Priority`]), whatever
//! the order in which they were read; a live holder keeps what it has; a Service that was moved to another port stays
//! there while it lives; whatever is freed goes to the oldest that waits for it. An operation costs as much as the
//! Services that it touches, not as much as there are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use exposer_common::model::ServiceRecord;

use super::claim::{self, Changes, Entry, Priority, Wish};
use super::limits::Limits;
use super::ports::{PortTable, ReservedPorts};
use super::slots::Slots;
use crate::datapath::{Binding, BindingKey, ServiceRef};

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct Registry {
    pub(super) services: BTreeMap<ServiceRef, Entry>,
    pub(super) subdomains: BTreeMap<String, ServiceRef>,
    /// Services that were refused for their subdomain.
    waiting: BTreeMap<String, BTreeSet<ServiceRef>>,
    /// How many Services each agent has.
    counts: BTreeMap<String, usize>,
    /// Services that miss a port.
    pub(super) starved: BTreeSet<ServiceRef>,
    pub(super) ports: PortTable,
    pub(super) slots: Slots,
    pub(super) own_addresses: BTreeSet<IpAddr>,
    /// Ports of Services whose agent was given up; it gets them again if they are free when it comes back.
    pub(super) memory: BTreeMap<ServiceRef, BTreeMap<Wish, u16>>,
    /// What the tokens of agents allow.
    pub(super) limits: BTreeMap<String, Limits>,
    /// How many public ports each agent has.
    pub(super) held: BTreeMap<String, u32>,
}

/// What an operation has done so far.
#[derive(Default)]
pub(super) struct Work {
    pub(super) changes: Changes,
    pub(super) freed_port: bool,
    freed_subdomains: BTreeSet<String>,
}

impl Registry {
    /// An empty registry that moves Services into the port range `dynamic`. Generations go on after `generation`.
    #[must_use]
    pub fn new(dynamic: RangeInclusive<u16>, generation: u32) -> Self {
        Self {
            services: BTreeMap::new(),
            subdomains: BTreeMap::new(),
            waiting: BTreeMap::new(),
            counts: BTreeMap::new(),
            starved: BTreeSet::new(),
            ports: PortTable::new(dynamic),
            slots: Slots::new(generation),
            own_addresses: BTreeSet::new(),
            memory: BTreeMap::new(),
            limits: BTreeMap::new(),
            held: BTreeMap::new(),
        }
    }

    /// Applies changes that arrived together: a record claims, none withdraws. Records are valid
    /// ([`ServiceRecord::validate`]).
    pub fn apply(&mut self, batch: BTreeMap<ServiceRef, Option<ServiceRecord>>) -> Changes {
        let mut work = Work::default();
        let mut candidates = BTreeSet::new();
        for (service, wish) in batch {
            match wish {
                None => self.withdraw(&service, &mut work),
                Some(record) => {
                    self.admit(&service, record, &mut work);
                    candidates.insert(service);
                }
            }
        }
        self.settle(candidates, work)
    }

    /// Gives up all Services of `agent`, but remembers their ports for the day when it comes back.
    pub fn expire_agent(&mut self, agent: &str) -> Changes {
        let mut work = Work::default();
        for service in self.services_of(agent) {
            self.remember(&service);
            self.withdraw(&service, &mut work);
        }
        self.settle(BTreeSet::new(), work)
    }

    /// Replaces what is known of the ports that the host itself uses. Live holders keep what they have: they listen
    /// there, so the host does not.
    pub fn set_reserved(&mut self, reserved: ReservedPorts) {
        self.ports.set_scanned(reserved);
    }

    /// Takes note that `key` can't be listened on because `owner` has it. Its holder is moved.
    pub fn port_in_use(&mut self, key: BindingKey, owner: String) -> Changes {
        self.ports.observe(key, owner);
        let holder = self.ports.holder(key).map(|holder| holder.service.clone());
        self.settle(holder.into_iter().collect(), Work::default())
    }

    /// Lets `key` be given again after [`Self::port_in_use`].
    pub fn port_may_be_free(&mut self, key: BindingKey) {
        self.ports.forget_observed(key);
    }

    /// Replaces the addresses of the edge itself, which no Service may point to.
    pub fn set_own_addresses(&mut self, own: BTreeSet<IpAddr>) -> Changes {
        if own == self.own_addresses {
            return Changes::default();
        }
        self.own_addresses = own;
        self.settle(self.services.keys().cloned().collect(), Work::default())
    }

    /// The binding of a public port.
    #[must_use]
    pub fn binding(&self, key: BindingKey) -> Option<Binding> {
        let holder = self.ports.holder(key)?;
        let entry = self.services.get(&holder.service)?;
        let wish = Wish {
            requested: holder.requested,
            protocol: key.protocol,
        };
        let allocation = entry.ports.get(&wish)?.allocated?;
        Some(Binding {
            key,
            service: holder.service.clone(),
            index: allocation.index,
            generation: allocation.generation,
            backend: allocation.backend,
            client_ip: entry.record.client_ip,
            idle_timeout: entry
                .record
                .idle_timeout
                .map(|seconds| std::time::Duration::from_secs(u64::from(seconds))),
        })
    }

    /// Every binding, in the order of ports.
    pub fn bindings(&self) -> impl Iterator<Item = Binding> {
        self.ports.holders().filter_map(|(key, _)| self.binding(*key))
    }

    /// A Service and what became of it.
    #[must_use]
    pub fn get(&self, service: &ServiceRef) -> Option<&Entry> {
        self.services.get(service)
    }

    /// Every Service in the order of agent, namespace and name.
    pub fn entries(&self) -> impl Iterator<Item = (&ServiceRef, &Entry)> {
        self.services.iter()
    }

    /// The Services of one agent.
    #[must_use]
    pub fn services_of(&self, agent: &str) -> BTreeSet<ServiceRef> {
        self.of_agent(agent).map(|(service, _)| service.clone()).collect()
    }

    pub(super) fn of_agent(&self, agent: &str) -> impl Iterator<Item = (&ServiceRef, &Entry)> {
        let first = ServiceRef {
            agent: agent.to_owned(),
            id: exposer_common::model::ServiceId {
                namespace: String::new(),
                name: String::new(),
            },
        };
        self.services
            .range(first..)
            .take_while(move |(service, _)| service.agent == agent)
    }

    /// Ports that the host uses, each with its user.
    #[must_use]
    pub fn reserved(&self) -> ReservedPorts {
        self.ports.reserved()
    }

    /// The generation that was handed out last.
    #[must_use]
    pub const fn last_generation(&self) -> u32 {
        self.slots.last_generation()
    }

    /// How many Services `agent` has.
    #[must_use]
    pub fn count_of(&self, agent: &str) -> usize {
        self.counts.get(agent).copied().unwrap_or(0)
    }

    /// Enters a record: releases what the Service does not ask for any more, and nothing else.
    pub(super) fn admit(&mut self, service: &ServiceRef, record: ServiceRecord, work: &mut Work) {
        if let Some(entry) = self.services.get(service)
            && entry.record.uid != record.uid
        {
            // Deleted and made again: another Service, which competes by its own age.
            self.withdraw(service, work);
        }
        let Some(entry) = self.services.get(service) else {
            let entry = Entry {
                record,
                refused: None,
                ports: BTreeMap::new(),
            };
            self.services.insert(service.clone(), entry);
            let count = self.counts.entry(service.agent.clone()).or_default();
            *count = count.saturating_add(1);
            return;
        };
        if entry.record.subdomain != record.subdomain {
            let former = entry.record.subdomain.clone();
            self.release_subdomain(service, &former, work);
        }
        let wanted = claim::wishes(&record);
        let dropped = self.services.get(service).map_or_else(Vec::new, |entry| {
            entry
                .ports
                .keys()
                .filter(|wish| !wanted.contains(wish))
                .copied()
                .collect()
        });
        for wish in dropped {
            self.release_port(service, wish, work);
        }
        if let Some(entry) = self.services.get_mut(service) {
            entry.record = record;
        }
    }

    fn withdraw(&mut self, service: &ServiceRef, work: &mut Work) {
        let Some(entry) = self.services.get(service) else {
            return;
        };
        let subdomain = entry.record.subdomain.clone();
        self.release_subdomain(service, &subdomain, work);
        self.release_ports(service, work);
        self.starved.remove(service);
        self.services.remove(service);
        if let Some(count) = self.counts.get_mut(&service.agent) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&service.agent);
            }
        }
        work.changes.services.insert(service.clone());
    }

    fn release_subdomain(&mut self, service: &ServiceRef, subdomain: &str, work: &mut Work) {
        if self.subdomains.get(subdomain) == Some(service) {
            self.subdomains.remove(subdomain);
            work.freed_subdomains.insert(subdomain.to_owned());
        }
        if let Some(waiting) = self.waiting.get_mut(subdomain) {
            waiting.remove(service);
            if waiting.is_empty() {
                self.waiting.remove(subdomain);
            }
        }
    }

    fn release_ports(&mut self, service: &ServiceRef, work: &mut Work) {
        let wishes: Vec<Wish> = self
            .services
            .get(service)
            .map_or_else(Vec::new, |entry| entry.ports.keys().copied().collect());
        for wish in wishes {
            self.release_port(service, wish, work);
        }
    }

    /// Frees the port and the index of a wish and forgets its state.
    pub(super) fn release_port(&mut self, service: &ServiceRef, wish: Wish, work: &mut Work) {
        let state = self
            .services
            .get_mut(service)
            .and_then(|entry| entry.ports.remove(&wish));
        if let Some(allocation) = state.and_then(|state| state.allocated) {
            let key = BindingKey {
                port: allocation.public_port,
                protocol: wish.protocol,
            };
            self.ports.release(key, service);
            self.count_port(&service.agent, false);
            self.slots.free(allocation.index);
            work.changes.keys.insert(key);
            work.freed_port = true;
        }
    }

    /// Hears the candidates, and those who wait for what was freed, in the order of their age: first all subdomains,
    /// then all ports, so that ports of Services that lose their name are free when ports are given.
    pub(super) fn settle(&mut self, mut candidates: BTreeSet<ServiceRef>, mut work: Work) -> Changes {
        for subdomain in std::mem::take(&mut work.freed_subdomains) {
            candidates.extend(self.waiting.get(&subdomain).into_iter().flatten().cloned());
        }
        let named: Vec<ServiceRef> = self
            .by_age(&candidates)
            .into_iter()
            .filter(|service| self.claim_subdomain(service, &mut work))
            .collect();
        let mut hungry: BTreeSet<ServiceRef> = named.into_iter().collect();
        if work.freed_port {
            hungry.extend(self.starved.iter().cloned());
        }
        work.freed_port = false;
        for service in self.by_age(&hungry) {
            self.place(&service, &mut work);
        }
        if work.freed_port && !self.starved.is_empty() {
            // A Service moved as a whole and left a port behind. One more round is enough: whoever is served in it
            // held nothing, so it frees nothing.
            for service in self.by_age(&self.starved.clone()) {
                self.place(&service, &mut work);
            }
        }
        work.changes
    }

    pub(super) fn by_age(&self, services: &BTreeSet<ServiceRef>) -> Vec<ServiceRef> {
        let mut sorted: Vec<(Priority, &ServiceRef)> = services
            .iter()
            .filter_map(|service| {
                Some((
                    Priority::of(service, &self.services.get(service)?.record),
                    service,
                ))
            })
            .collect();
        sorted.sort_unstable();
        sorted.into_iter().map(|(_, service)| service.clone()).collect()
    }

    /// Whether `service` has its subdomain, before or from here on.
    fn claim_subdomain(&mut self, service: &ServiceRef, work: &mut Work) -> bool {
        let Some(entry) = self.services.get_mut(service) else {
            return false;
        };
        work.changes.services.insert(service.clone());
        let subdomain = entry.record.subdomain.clone();
        let holder = self
            .subdomains
            .entry(subdomain.clone())
            .or_insert_with(|| service.clone());
        if holder == service {
            entry.refused = None;
            if let Some(waiting) = self.waiting.get_mut(&subdomain) {
                waiting.remove(service);
            }
            return true;
        }
        entry.refused = Some(claim::subdomain_taken(&subdomain, holder));
        self.waiting.entry(subdomain).or_default().insert(service.clone());
        self.starved.remove(service);
        self.release_ports(service, work);
        false
    }
}
