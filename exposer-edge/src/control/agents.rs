//! What the core knows of each agent: its connection, what it was told, and for how long it has been away.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use exposer_common::model::ServiceId;
use exposer_common::proto::message::{Refusal, ServiceOutcome};

use super::core::ConnId;

/// Whether an agent is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is connected.
    Connected {
        /// By which connection.
        conn: ConnId,
        /// From where.
        peer: SocketAddr,
        /// Since when.
        since: Instant,
    },
    /// It is away; its Services are stale.
    Away {
        /// Since when, as far as this run of the edge saw it.
        since: Instant,
        /// For how long it had been away before that.
        before: Duration,
    },
}

impl Presence {
    /// The connection.
    #[must_use]
    pub const fn conn(&self) -> Option<ConnId> {
        match self {
            Self::Connected { conn, .. } => Some(*conn),
            Self::Away { .. } => None,
        }
    }

    /// For how long it is away at `now`.
    #[must_use]
    pub fn away_for(&self, now: Instant) -> Option<Duration> {
        match self {
            Self::Connected { .. } => None,
            Self::Away { since, before } => {
                Some(now.saturating_duration_since(*since).saturating_add(*before))
            }
        }
    }

    /// When it will have been away for `grace`.
    #[must_use]
    pub fn expires(&self, grace: Duration) -> Option<Instant> {
        match self {
            Self::Connected { .. } => None,
            Self::Away { since, before } => since.checked_add(grace.saturating_sub(*before)),
        }
    }
}

/// One agent.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Whether it is there.
    pub presence: Presence,
    /// Its software, as it says.
    pub software: String,
    /// Epoch and revision of the last message of this connection that was acted on.
    pub position: Option<(u64, u64)>,
    /// Records that broke a rule.
    pub invalid: BTreeMap<ServiceId, Refusal>,
    /// Services whose outcome is to be told.
    due: BTreeSet<ServiceId>,
    /// Of those, the ones to tell even if nothing changed.
    named: BTreeSet<ServiceId>,
    /// Whether a message waits for its acknowledgement.
    unacknowledged: bool,
    /// What was told last on this connection.
    told: BTreeMap<ServiceId, ServiceOutcome>,
}

impl Agent {
    /// An agent in this state, that was told nothing.
    #[must_use]
    pub const fn new(presence: Presence, software: String) -> Self {
        Self {
            presence,
            software,
            position: None,
            invalid: BTreeMap::new(),
            due: BTreeSet::new(),
            named: BTreeSet::new(),
            unacknowledged: false,
            told: BTreeMap::new(),
        }
    }

    /// Puts the agent on another connection, or on none: what was told on the one before does not count.
    pub fn set_presence(&mut self, presence: Presence) {
        self.presence = presence;
        self.position = None;
        self.due.clear();
        self.named.clear();
        self.unacknowledged = false;
        self.told.clear();
    }

    /// A message was acted on: it is to be acknowledged, with an outcome for each Service that it named.
    pub fn acted_on(&mut self, position: (u64, u64), named: impl IntoIterator<Item = ServiceId>) {
        self.position = Some(position);
        self.unacknowledged = true;
        self.named.extend(named);
    }

    /// The outcome of a Service may have changed.
    pub fn touch(&mut self, id: ServiceId) {
        if self.position.is_some() {
            self.due.insert(id);
        }
    }

    /// Whether there is something to tell.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.position.is_some() && (self.unacknowledged || !self.due.is_empty())
    }

    /// What is to be told: the outcomes that were asked for or that changed; none if that is nothing.
    /// `outcome` looks one up; none for a Service that is gone.
    pub fn take_news(
        &mut self,
        mut outcome: impl FnMut(&ServiceId) -> Option<ServiceOutcome>,
    ) -> Option<Vec<ServiceOutcome>> {
        let named = std::mem::take(&mut self.named);
        let mut due = std::mem::take(&mut self.due);
        due.extend(named.iter().cloned());
        let mut news = Vec::new();
        for id in due {
            let present = outcome(&id);
            let gone = present.is_none();
            let present = present.unwrap_or_else(|| ServiceOutcome {
                id: id.clone(),
                refused: None,
                ports: Vec::new(),
            });
            let known = self.told.get(&id) == Some(&present);
            if gone {
                self.told.remove(&id);
            } else if !known {
                self.told.insert(id.clone(), present.clone());
            }
            if named.contains(&id) || (!known && !gone) {
                news.push(present);
            }
        }
        let must = std::mem::take(&mut self.unacknowledged);
        (must || !news.is_empty()).then_some(news)
    }
}
