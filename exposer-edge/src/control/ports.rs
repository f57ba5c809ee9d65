//! Who has which public port: holders, ports that the host itself uses, and the search for a free one.
//!
//! Pure and deterministic: the table and the arguments alone decide.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use exposer_common::model::Protocol;

use crate::datapath::{BindingKey, ServiceRef};

/// Ports that no Service may have, each with a text that says why, to follow "port 22/tcp is": `in use by sshd, pid
/// 712 on this host`.
pub type ReservedPorts = BTreeMap<BindingKey, String>;

/// Whose a public port is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The Service.
    pub service: ServiceRef,
    /// The port that the Service asked for; it differs from the public port where the Service was moved.
    pub requested: u16,
}

/// Why a public port is not free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Another Service holds it.
    Held(ServiceRef),
    /// The host itself uses it.
    Reserved(String),
}

/// All public ports of this edge.
#[derive(Clone, Debug)]
pub struct PortTable {
    dynamic: RangeInclusive<u16>,
    holders: BTreeMap<BindingKey, Holder>,
    /// What the host was found to use.
    scanned: ReservedPorts,
    /// What a datapath found in use when it tried to listen.
    observed: ReservedPorts,
    /// Ports of the dynamic range that are in none of the three, so that a full range costs no search.
    free: BTreeMap<Protocol, BTreeSet<u16>>,
}

impl PortTable {
    /// An empty table that moves Services into `dynamic`.
    #[must_use]
    pub fn new(dynamic: RangeInclusive<u16>) -> Self {
        let all: BTreeSet<u16> = dynamic.clone().collect();
        Self {
            free: Protocol::ALL
                .into_iter()
                .map(|protocol| (protocol, all.clone()))
                .collect(),
            dynamic,
            holders: BTreeMap::new(),
            scanned: BTreeMap::new(),
            observed: BTreeMap::new(),
        }
    }

    /// The range that Services are moved into.
    #[must_use]
    pub const fn dynamic(&self) -> &RangeInclusive<u16> {
        &self.dynamic
    }

    /// Replaces what is known of the host's own ports.
    pub fn set_scanned(&mut self, scanned: ReservedPorts) {
        let former = std::mem::replace(&mut self.scanned, scanned.clone());
        for key in former.into_keys().chain(scanned.into_keys()) {
            self.recount(key);
        }
    }

    /// Adds a port that a datapath found in use.
    pub fn observe(&mut self, key: BindingKey, owner: String) {
        self.observed.insert(key, owner);
        self.recount(key);
    }

    /// Forgets what a datapath found in use, so that it may be tried again.
    pub fn forget_observed(&mut self, key: BindingKey) {
        self.observed.remove(&key);
        self.recount(key);
    }

    /// Ports that the host uses, each with its user.
    #[must_use]
    pub fn reserved(&self) -> ReservedPorts {
        let mut all = self.observed.clone();
        all.extend(self.scanned.clone());
        all
    }

    /// Who holds `key`.
    #[must_use]
    pub fn holder(&self, key: BindingKey) -> Option<&Holder> {
        self.holders.get(&key)
    }

    /// Every held port in order.
    pub fn holders(&self) -> impl Iterator<Item = (&BindingKey, &Holder)> {
        self.holders.iter()
    }

    /// Why `service` can't have `key`; none if it can.
    #[must_use]
    pub fn taken(&self, key: BindingKey, service: &ServiceRef, requested: u16) -> Option<Taken> {
        if let Some(owner) = self.scanned.get(&key).or_else(|| self.observed.get(&key)) {
            return Some(Taken::Reserved(owner.clone()));
        }
        match self.holders.get(&key) {
            Some(holder) if holder.service != *service || holder.requested != requested => {
                Some(Taken::Held(holder.service.clone()))
            }
            _ => None,
        }
    }

    /// Why `service` can't have `port` for all of `protocols`; none if it can.
    #[must_use]
    pub fn taken_for(
        &self,
        port: u16,
        protocols: &[Protocol],
        service: &ServiceRef,
        requested: u16,
    ) -> Option<(Protocol, Taken)> {
        protocols.iter().find_map(|protocol| {
            let key = BindingKey {
                port,
                protocol: *protocol,
            };
            self.taken(key, service, requested)
                .map(|taken| (*protocol, taken))
        })
    }

    /// A port of the dynamic range that is free for all of `protocols` and `allowed`. The search starts at a place that the Service
    /// and the port that it asked for determine, so that an edge that lost its state finds the same one again.
    #[must_use]
    pub fn free_dynamic(
        &self,
        protocols: &[Protocol],
        service: &ServiceRef,
        requested: u16,
        allowed: impl Fn(u16) -> bool,
    ) -> Option<u16> {
        let (first, last) = (*self.dynamic.start(), *self.dynamic.end());
        let size = u64::from(last.checked_sub(first)?).saturating_add(1);
        let offset = spread(service, requested).checked_rem(size)?;
        let start = first.saturating_add(u16::try_from(offset).ok()?);
        let (one, others) = protocols.split_first()?;
        let free = self.free.get(one)?;
        free.range(start..=last)
            .chain(free.range(first..start))
            .filter(|port| allowed(**port))
            .find(|port| {
                others
                    .iter()
                    .all(|other| self.free.get(other).is_some_and(|free| free.contains(port)))
            })
            .copied()
    }

    /// Brings `free` up to date for one port.
    fn recount(&mut self, key: BindingKey) {
        if !self.dynamic.contains(&key.port) {
            return;
        }
        let free = !self.holders.contains_key(&key)
            && !self.scanned.contains_key(&key)
            && !self.observed.contains_key(&key);
        let ports = self.free.entry(key.protocol).or_default();
        if free {
            ports.insert(key.port);
        } else {
            ports.remove(&key.port);
        }
    }

    /// Whether `service` holds `key` for the port `requested`.
    #[must_use]
    pub fn is_held_by(&self, key: BindingKey, service: &ServiceRef, requested: u16) -> bool {
        self.holders
            .get(&key)
            .is_some_and(|holder| holder.service == *service && holder.requested == requested)
    }

    /// Whether a datapath found `key` in use by the host.
    #[must_use]
    pub fn is_observed(&self, key: BindingKey) -> bool {
        self.observed.contains_key(&key)
    }

    /// Gives `key` to `service`. The caller has asked [`Self::taken`] before.
    pub fn hold(&mut self, key: BindingKey, service: ServiceRef, requested: u16) {
        self.holders.insert(key, Holder { service, requested });
        self.recount(key);
    }

    /// Frees `key`, if `service` holds it. Whether it did.
    pub fn release(&mut self, key: BindingKey, service: &ServiceRef) -> bool {
        match self.holders.get(&key) {
            Some(holder) if holder.service == *service => {
                self.holders.remove(&key);
                self.recount(key);
                true
            }
            _ => false,
        }
    }
}

/// FNV-1a over the Service's full name and the port: the same on every machine and in every version.
fn spread(service: &ServiceRef, requested: u16) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let ServiceRef { agent, id } = service;
    let parts: [&[u8]; 4] = [
        agent.as_bytes(),
        id.namespace.as_bytes(),
        id.name.as_bytes(),
        &requested.to_be_bytes(),
    ];
    let mut hash = OFFSET;
    for part in parts {
        for byte in part.iter().chain(&[0]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
    }
    // The low bits of FNV are weak for short inputs; fold the high ones in.
    hash ^ (hash >> 32)
}
