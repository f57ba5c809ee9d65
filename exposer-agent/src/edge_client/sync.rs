//! What the edge was told, and what it has to be told: the difference of two [`Desired`] states, numbered.
//!
//! At most [`WINDOW`] messages wait for their acknowledgement. While the window is full nothing is made, so changes that
//! overtake each other meanwhile become one delta: a slow edge gets fewer messages, never a longer queue.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use exposer_common::model::{ServiceId, ServiceRecord};
use exposer_common::proto::error::PartsError;
use exposer_common::proto::message::{Ack, AgentMessage, Change};
use exposer_common::proto::parts::{delta_parts, snapshot_parts};

use crate::desired::Desired;

/// Most messages that wait for their acknowledgement before another is made.
pub const WINDOW: usize = 4;

/// The place in the agent's sequence of messages. It outlives a session: revisions only rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Drawn at random when the agent starts.
    pub epoch: u64,
    /// Revision of the last message that was made; 0 before the first.
    pub revision: u64,
}

/// Why the edge's picture is not the agent's, so that a snapshot has to mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disagreement {
    /// It acknowledged what was never sent.
    #[error("the edge acknowledged {epoch:x}/{revision}, which was never sent")]
    NeverSent {
        /// The epoch that it named.
        epoch: u64,
        /// The revision that it named.
        revision: u64,
    },
    /// It said nothing of Services that it was told.
    #[error("the edge acknowledged everything but said nothing of {count} Services, among them {first}")]
    Unmentioned {
        /// How many.
        count: usize,
        /// The first of them.
        first: ServiceId,
    },
}

/// The state of one session; see the [module](self).
#[derive(Debug)]
pub struct Sync {
    position: Position,
    /// What is wanted; none until the cluster was read.
    desired: Option<Arc<Desired>>,
    /// What the edge has once it has read all that was sent; none before the snapshot.
    sent: Option<Arc<Desired>>,
    /// Revisions that wait, with the time when each was made.
    waiting: VecDeque<(u64, Instant)>,
    /// Services of `sent` for which no outcome came yet.
    unmentioned: BTreeSet<ServiceId>,
}

impl Sync {
    /// Nothing sent yet in this session.
    #[must_use]
    pub const fn new(position: Position) -> Self {
        Self {
            position,
            desired: None,
            sent: None,
            waiting: VecDeque::new(),
            unmentioned: BTreeSet::new(),
        }
    }

    /// Where the sequence stands.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.position
    }

    /// Takes over what is wanted.
    pub fn set_desired(&mut self, desired: Arc<Desired>) {
        self.desired = Some(desired);
    }

    /// Whether the edge has acknowledged exactly what is wanted.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.sent.is_some() && self.sent == self.desired
    }

    /// How long the oldest message has waited.
    #[must_use]
    pub fn waited(&self, now: Instant) -> Option<(u64, Duration)> {
        self.waiting
            .front()
            .map(|(revision, since)| (*revision, now.saturating_duration_since(*since)))
    }

    /// Forgets what was sent, so that a snapshot comes next.
    pub fn begin_anew(&mut self) {
        self.sent = None;
    }

    /// The messages to send: a snapshot if nothing was sent, else what changed; none while nothing changed, the cluster
    /// was not read yet, or the window is full.
    ///
    /// # Errors
    ///
    /// When a record does not fit into a frame.
    pub fn next_messages(&mut self, now: Instant) -> Result<Vec<AgentMessage>, PartsError> {
        let Some(desired) = self.desired.clone().filter(|_| self.waiting.len() < WINDOW) else {
            return Ok(Vec::new());
        };
        let revision = self.position.revision.saturating_add(1);
        let messages: Vec<_> = match &self.sent {
            None => {
                let records = desired.services.values().cloned();
                self.unmentioned = desired.services.keys().cloned().collect();
                snapshot_parts(self.position.epoch, revision, records)?
                    .into_iter()
                    .map(AgentMessage::Snapshot)
                    .collect()
            }
            Some(sent) if Arc::ptr_eq(sent, &desired) => Vec::new(),
            Some(sent) => {
                let changes = difference(sent, &desired);
                for change in &changes {
                    match change {
                        Change::Update(record) => self.unmentioned.insert(record.id.clone()),
                        Change::Delete(id) => self.unmentioned.remove(id),
                    };
                }
                delta_parts(self.position.epoch, revision, changes)?
                    .into_iter()
                    .map(AgentMessage::Delta)
                    .collect()
            }
        };
        self.sent = Some(desired);
        for message in &messages {
            let (AgentMessage::Snapshot(_) | AgentMessage::Delta(_)) = message else {
                continue;
            };
            self.note(message_revision(message), now);
        }
        Ok(messages)
    }

    /// Takes an acknowledgement; it covers every earlier message too.
    ///
    /// # Errors
    ///
    /// When it is of something that was never sent.
    pub fn acknowledge(&mut self, ack: &Ack) -> Result<(), Disagreement> {
        let Ack {
            epoch,
            revision,
            outcomes,
        } = ack;
        if *epoch != self.position.epoch || *revision > self.position.revision {
            return Err(Disagreement::NeverSent {
                epoch: *epoch,
                revision: *revision,
            });
        }
        self.waiting.retain(|(waiting, _)| waiting > revision);
        for outcome in outcomes {
            self.unmentioned.remove(&outcome.id);
        }
        Ok(())
    }

    /// Compares the edge's picture with ours, as far as it can be seen from here.
    ///
    /// # Errors
    ///
    /// What does not fit, once everything was acknowledged.
    pub fn review(&self) -> Result<(), Disagreement> {
        match self.unmentioned.first() {
            Some(first) if self.waiting.is_empty() => Err(Disagreement::Unmentioned {
                count: self.unmentioned.len(),
                first: first.clone(),
            }),
            _ => Ok(()),
        }
    }

    fn note(&mut self, revision: u64, now: Instant) {
        // The parts of a snapshot share one revision and one acknowledgement.
        if revision > self.position.revision {
            self.position.revision = revision;
            self.waiting.push_back((revision, now));
        }
    }
}

const fn message_revision(message: &AgentMessage) -> u64 {
    match message {
        AgentMessage::Snapshot(snapshot) => snapshot.revision,
        AgentMessage::Delta(delta) => delta.revision,
        _ => 0,
    }
}

/// From `old` to `new`. Deletions come first: they free names and ports that an update may want.
fn difference(old: &Desired, new: &Desired) -> Vec<Change> {
    let gone = old
        .services
        .keys()
        .filter(|id| !new.services.contains_key(*id))
        .cloned()
        .map(Change::Delete);
    let changed = |record: &&ServiceRecord| old.services.get(&record.id) != Some(*record);
    let updated = new.services.values().filter(changed).cloned().map(Change::Update);
    gone.chain(updated).collect()
}
