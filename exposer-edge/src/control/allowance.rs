//! The [registry](super::registry) keeps to the [limits](super::limits) of tokens: which public ports an agent may have,
//! and how many.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use exposer_common::proto::message::Refusal;

use super::claim::{Changes, Wish};
use super::limits::Limits;
use super::registry::{Registry, Work};
use crate::datapath::ServiceRef;

impl Registry {
    /// Replaces what the tokens of agents allow. Services of an agent whose limits changed lose what is not allowed
    /// any more: all of a Service in a namespace or under a subdomain, single ports, and of too many ports those of
    /// the youngest Services.
    pub fn set_limits(&mut self, limits: BTreeMap<String, Limits>) -> Changes {
        let former = std::mem::replace(&mut self.limits, limits);
        let agents: BTreeSet<String> = self
            .limits
            .keys()
            .chain(former.keys())
            .filter(|agent| self.limits.get(*agent) != former.get(*agent))
            .cloned()
            .collect();
        let mut changes = Changes::default();
        for agent in agents {
            let withdrawn = self
                .of_agent(&agent)
                .filter(|(_, entry)| !self.lets_in(&agent, &entry.record))
                .map(|(service, _)| (service.clone(), None))
                .collect();
            changes.merge(self.apply(withdrawn));
            let mut work = Work::default();
            self.trim(&agent, &mut work);
            changes.merge(self.settle(self.services_of(&agent), work));
        }
        changes
    }

    /// Whether a Service with this record may be there at all.
    pub(super) fn lets_in(&self, agent: &str, record: &exposer_common::model::ServiceRecord) -> bool {
        self.judge(agent, record).is_ok()
    }

    /// Whether a Service with this record may be there at all.
    ///
    /// # Errors
    ///
    /// What to tell the agent where it may not.
    pub fn judge(&self, agent: &str, record: &exposer_common::model::ServiceRecord) -> Result<(), Refusal> {
        self.limits
            .get(agent)
            .map_or(Ok(()), |limits| limits.judge(agent, record))
    }

    /// How many public ports `agent` has; TCP and UDP of one number count as two.
    #[must_use]
    pub fn ports_of(&self, agent: &str) -> u32 {
        self.held.get(agent).copied().unwrap_or(0)
    }

    pub(super) fn allows_port(&self, agent: &str, port: u16) -> bool {
        self.limits
            .get(agent)
            .is_none_or(|limits| limits.allows_port(port))
    }

    /// Whether `agent` may have one port more.
    pub(super) fn has_room(&self, agent: &str) -> bool {
        self.room(agent) > 0
    }

    /// Why a port record can't be given what it asks for; none where the limits do not stand against it.
    pub(super) fn over_limits(
        &self,
        service: &ServiceRef,
        requested: u16,
        reachable: &[(Wish, SocketAddr)],
    ) -> Option<Refusal> {
        let limits = self.limits.get(&service.agent)?;
        if !limits.allows_port(requested) {
            return Some(limits.port_refusal(&service.agent, requested));
        }
        let ports = &self.services.get(service)?.ports;
        let more = reachable
            .iter()
            .filter(|(wish, _)| ports.get(wish).is_none_or(|state| state.allocated.is_none()))
            .count();
        let room = usize::try_from(self.room(&service.agent)).unwrap_or(usize::MAX);
        (more > room).then(|| limits.count_refusal(&service.agent, requested))
    }

    /// The refusal of a port that is taken and has no substitute: the token may be the reason.
    pub(super) fn no_substitute(&self, agent: &str, exhausted: Refusal) -> Refusal {
        match self.limits.get(agent) {
            Some(limits) if !limits.ports.is_empty() => limits.substitute_refusal(agent, &exhausted),
            _ => exhausted,
        }
    }

    /// Counts a port that `agent` gets (`more`) or gives back.
    pub(super) fn count_port(&mut self, agent: &str, more: bool) {
        let held = self.held.entry(agent.to_owned()).or_default();
        *held = if more {
            held.saturating_add(1)
        } else {
            held.saturating_sub(1)
        };
        if *held == 0 {
            self.held.remove(agent);
        }
    }

    fn room(&self, agent: &str) -> u32 {
        let most = self.limits.get(agent).and_then(|limits| limits.max_ports);
        most.unwrap_or(u32::MAX).saturating_sub(self.ports_of(agent))
    }

    /// Takes ports from the youngest Services of `agent` until there are no more than the limit.
    fn trim(&mut self, agent: &str, work: &mut Work) {
        let Some(limits) = self.limits.get(agent).cloned() else {
            return;
        };
        let most = limits.max_ports.unwrap_or(u32::MAX);
        for service in self.by_age(&self.services_of(agent)).into_iter().rev() {
            let wishes: Vec<Wish> = self.services.get(&service).map_or_else(Vec::new, |entry| {
                let held = entry.ports.iter().filter(|(_, state)| state.allocated.is_some());
                held.map(|(wish, _)| *wish).collect()
            });
            for wish in wishes.into_iter().rev() {
                if self.ports_of(agent) <= most {
                    return;
                }
                let refusal = limits.count_refusal(agent, wish.requested);
                self.refuse(&service, wish, refusal, work);
                self.starved.insert(service.clone());
            }
        }
    }
}
