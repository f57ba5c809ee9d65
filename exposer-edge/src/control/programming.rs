//! What the datapath was told and what it made of it: one slot for each public port, with retries.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use exposer_common::proto::message::Path;

use crate::datapath::{Binding, BindingKey, DatapathError, ServiceRef};

/// First pause before a failed step is tried again; it doubles with each failure.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest pause.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Names one command to the datapath; its result carries it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Step(pub u64);

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The port is served.
    Served(Served),
    /// The port is not served any more.
    Removed,
    /// It did not work.
    Failed(Failure),
}

/// How a port is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// By which path.
    pub path: Path,
    /// Why it is not the better path; none where it is the best that was asked for.
    pub downgrade: Option<String>,
}

/// Why a step failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For the person, with what to do.
    pub text: String,
    /// Why the port can't be had, where another program has it: `in use by nginx, pid 7 on this host`.
    pub in_use_by: Option<String>,
}

impl From<&DatapathError> for Failure {
    fn from(error: &DatapathError) -> Self {
        let in_use_by = match error {
            DatapathError::PortInUse { owner, .. } => {
                let owner = owner.trim().trim_matches(['(', ')']);
                let owner = if owner.is_empty() {
                    "another program"
                } else {
                    owner
                };
                Some(format!("in use by {owner} on this host"))
            }
            _ => None,
        };
        Self {
            text: error.to_string(),
            in_use_by,
        }
    }
}

/// State of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The datapath works on it.
    Running(Step),
    /// It is served.
    Served(Served),
    /// The last step failed; it is tried again.
    Failed {
        /// What went wrong.
        failure: Failure,
        /// When it is tried again.
        retry: Instant,
    },
}

/// One public port as the datapath was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// What it was told; none = to serve it no more.
    pub told: Option<Binding>,
    /// Whose the step is: its result goes into that Service's outcome.
    pub service: ServiceRef,
    /// How it stands.
    pub state: State,
    failures: u32,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Programming {
    slots: BTreeMap<BindingKey, Slot>,
    retries: BTreeSet<(Instant, BindingKey)>,
    /// Steps under way, by agent.
    running: BTreeMap<String, usize>,
    last_step: u64,
}

impl Programming {
    /// The slot of a port.
    #[must_use]
    pub fn get(&self, key: BindingKey) -> Option<&Slot> {
        self.slots.get(&key)
    }

    /// What the datapath was told of a port.
    #[must_use]
    pub fn told(&self, key: BindingKey) -> Option<&Binding> {
        self.slots.get(&key)?.told.as_ref()
    }

    /// Every slot in the order of ports.
    pub fn slots(&self) -> impl Iterator<Item = (&BindingKey, &Slot)> {
        self.slots.iter()
    }

    /// Whether a step of a Service of `agent` is under way.
    #[must_use]
    pub fn is_running(&self, agent: &str) -> bool {
        self.running.contains_key(agent)
    }

    /// Begins a step that makes `key` what `told` says. The result of an earlier step of the key is not waited for
    /// any more.
    pub fn begin(&mut self, key: BindingKey, told: Option<Binding>, service: &ServiceRef) -> Step {
        self.last_step = self.last_step.wrapping_add(1);
        let step = Step(self.last_step);
        let failures = match self.slots.remove(&key) {
            Some(slot) => {
                self.leave(key, &slot);
                if slot.told == told { slot.failures } else { 0 }
            }
            None => 0,
        };
        let count = self.running.entry(service.agent.clone()).or_default();
        *count = count.saturating_add(1);
        let slot = Slot {
            told,
            service: service.clone(),
            state: State::Running(step),
            failures,
        };
        self.slots.insert(key, slot);
        step
    }

    /// Takes the result of `step`. None if it is not the one that is waited for; else the slot's Service.
    pub fn finish(
        &mut self,
        key: BindingKey,
        step: Step,
        report: Report,
        now: Instant,
    ) -> Option<ServiceRef> {
        if self.slots.get(&key)?.state != State::Running(step) {
            return None;
        }
        let mut slot = self.slots.remove(&key)?;
        self.leave(key, &slot);
        let service = slot.service.clone();
        match report {
            Report::Removed => return Some(service),
            Report::Served(served) => {
                slot.state = State::Served(served);
                slot.failures = 0;
            }
            Report::Failed(failure) => {
                let retry = now.checked_add(pause(slot.failures)).unwrap_or(now);
                slot.failures = slot.failures.saturating_add(1);
                self.retries.insert((retry, key));
                slot.state = State::Failed { failure, retry };
            }
        }
        self.slots.insert(key, slot);
        Some(service)
    }

    /// Takes note that a served port is served otherwise since a repair or a failure of the datapath. The Service, if
    /// that is news.
    pub fn moved_to(&mut self, key: BindingKey, generation: u32, served: Served) -> Option<ServiceRef> {
        let slot = self.slots.get_mut(&key)?;
        if slot.told.as_ref()?.generation != generation {
            return None;
        }
        match &mut slot.state {
            State::Served(present) if *present != served => {
                *present = served;
                Some(slot.service.clone())
            }
            _ => None,
        }
    }

    /// When the next failed step is to be tried again.
    #[must_use]
    pub fn next_retry(&self) -> Option<Instant> {
        self.retries.first().map(|(at, _)| *at)
    }

    /// A failed port whose time has come: what it was told, and whose it is.
    pub fn pop_retry(&mut self, now: Instant) -> Option<(BindingKey, Slot)> {
        let (at, key) = *self.retries.first()?;
        if at > now {
            return None;
        }
        self.retries.pop_first();
        self.slots.get(&key).map(|slot| (key, slot.clone()))
    }

    fn leave(&mut self, key: BindingKey, slot: &Slot) {
        match slot.state {
            State::Running(_) => {
                if let Some(count) = self.running.get_mut(&slot.service.agent) {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        self.running.remove(&slot.service.agent);
                    }
                }
            }
            State::Failed { retry, .. } => {
                self.retries.remove(&(retry, key));
            }
            State::Served(_) => {}
        }
    }
}

fn pause(failures: u32) -> Duration {
    RETRY_FIRST
        .saturating_mul(2_u32.saturating_pow(failures.min(16)))
        .min(RETRY_MAX)
}
