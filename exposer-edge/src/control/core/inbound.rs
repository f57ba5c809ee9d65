//! What sessions want of the core: agents that come and go, snapshots, deltas.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use exposer_common::model::{ServiceId, ServiceRecord, shorten};
use exposer_common::proto::message::{Change, ErrorCode, ErrorMessage, Refusal, RefusalCode};
use tracing::{debug, info, warn};

use super::super::agents::{Agent, Presence};
use super::super::session::Event;
use super::super::snapshot::{MAX_SERVICES, Whole};
use super::{Command, ConnId, Core, SAVE_AWAY};
use crate::datapath::ServiceRef;

impl Core {
    pub(super) fn drive(&mut self, conn: ConnId, now: Instant) {
        while let Some(event) = self.sessions.get_mut(&conn).and_then(|c| c.session.next_event()) {
            match event {
                Event::Send(bytes) => self.commands.push_back(Command::Send { conn, bytes }),
                Event::Opened { agent, software } => self.opened(conn, &agent, software, now),
                Event::Snapshot(whole) => self.snapshot(conn, whole),
                Event::Delta {
                    epoch,
                    revision,
                    changes,
                } => self.delta(conn, (epoch, revision), changes),
                Event::Close { reason, code } => {
                    self.log_close(conn, code, &reason);
                    self.commands.push_back(Command::Close { conn });
                    self.forget(conn, now, &reason);
                }
            }
        }
    }

    pub(super) fn opened(&mut self, conn: ConnId, name: &str, software: String, now: Instant) {
        let Some(connection) = self.sessions.get_mut(&conn) else {
            return;
        };
        connection.agent = Some(name.to_owned());
        let peer = connection.peer;
        let presence = Presence::Connected {
            conn,
            peer,
            since: now,
        };
        let former = match self.agents.get_mut(name) {
            Some(agent) => {
                let former = agent.presence.conn();
                agent.set_presence(presence);
                agent.software = software;
                former
            }
            None => {
                self.agents
                    .insert(name.to_owned(), Agent::new(presence, software));
                None
            }
        };
        info!(
            component = "control",
            agent = name,
            action = "connected",
            "agent connected"
        );
        if let Some(former) = former.filter(|former| *former != conn) {
            if let Some(connection) = self.sessions.get_mut(&former) {
                connection.session.fail(ErrorMessage::new(
                    ErrorCode::Replaced,
                    "a newer connection of this agent took over; do two agents have the same AGENT_NAME?",
                ));
            }
            self.drive(former, now);
        }
    }

    pub(super) fn forget(&mut self, conn: ConnId, now: Instant, reason: &str) {
        let Some(connection) = self.sessions.remove(&conn) else {
            return;
        };
        let Some(name) = connection.agent else {
            return;
        };
        let Some(agent) = self.agents.get_mut(&name) else {
            return;
        };
        if agent.presence.conn() != Some(conn) {
            return;
        }
        let services = self.registry.count_of(&name);
        if services == 0 {
            self.agents.remove(&name);
        } else {
            agent.set_presence(Presence::Away {
                since: now,
                before: Duration::ZERO,
            });
            self.save_away = self.save_away.or_else(|| now.checked_add(SAVE_AWAY));
        }
        warn!(
            component = "control",
            agent = name,
            action = "disconnected",
            services,
            reason,
            "agent went away; its Services stay up for the grace period"
        );
    }

    pub(super) fn agent_of(&self, conn: ConnId) -> Option<String> {
        self.sessions.get(&conn)?.agent.clone()
    }

    fn snapshot(&mut self, conn: ConnId, whole: Whole) {
        let Whole {
            epoch,
            revision,
            services,
        } = whole;
        let Some(name) = self.agent_of(conn) else { return };
        let mut changes: BTreeMap<ServiceId, Option<ServiceRecord>> = self
            .registry
            .services_of(&name)
            .into_iter()
            .map(|service| (service.id, None))
            .collect();
        if let Some(agent) = self.agents.get_mut(&name) {
            agent.invalid.clear();
        }
        let named: BTreeSet<ServiceId> = services.iter().map(|record| short_id(&record.id)).collect();
        for record in services {
            self.sort_in(&name, record, &mut changes);
        }
        debug!(
            component = "control",
            agent = name,
            revision,
            services = named.len(),
            "snapshot"
        );
        self.act(&name, (epoch, revision), named, changes);
        self.registry.forget_memory(&name);
    }

    fn delta(&mut self, conn: ConnId, position: (u64, u64), list: Vec<Change>) {
        let Some(name) = self.agent_of(conn) else { return };
        let present = self.registry.count_of(&name);
        if present.saturating_add(list.len()) > MAX_SERVICES {
            let error = ErrorMessage::new(
                ErrorCode::Limit,
                &format!("one agent may have {MAX_SERVICES} Services; limit WATCH_NAMESPACES"),
            );
            if let Some(connection) = self.sessions.get_mut(&conn) {
                connection.session.fail(error);
            }
            return;
        }
        let mut changes = BTreeMap::new();
        let mut named = BTreeSet::new();
        for change in list {
            match change {
                Change::Update(record) => {
                    named.insert(short_id(&record.id));
                    self.sort_in(&name, record, &mut changes);
                }
                Change::Delete(id) => {
                    let id = short_id(&id);
                    if let Some(agent) = self.agents.get_mut(&name) {
                        agent.invalid.remove(&id);
                    }
                    named.insert(id.clone());
                    changes.insert(id, None);
                }
            }
        }
        debug!(
            component = "control",
            agent = name,
            revision = position.1,
            changes = named.len(),
            "delta"
        );
        self.act(&name, position, named, changes);
    }

    /// Judges one record. One that breaks a rule is refused alone; the Service is then as if it were not there.
    fn sort_in(
        &mut self,
        agent: &str,
        record: ServiceRecord,
        changes: &mut BTreeMap<ServiceId, Option<ServiceRecord>>,
    ) {
        let id = short_id(&record.id);
        let judged = record
            .validate()
            .map_err(|error| Refusal {
                code: RefusalCode::InvalidRecord,
                text: error.to_string(),
            })
            .and_then(|()| self.registry.judge(agent, &record));
        let known = self.agents.get_mut(agent);
        match judged {
            Ok(()) => {
                if let Some(known) = known {
                    known.invalid.remove(&id);
                }
                changes.insert(id, Some(record));
            }
            Err(refusal) => {
                let error = &refusal.text;
                warn!(component = "control", agent, service = %id, action = "refused", error, "record refused");
                if let Some(known) = known {
                    known.invalid.insert(id.clone(), refusal);
                }
                changes.insert(id, None);
            }
        }
    }

    fn act(
        &mut self,
        agent: &str,
        position: (u64, u64),
        named: BTreeSet<ServiceId>,
        changes: BTreeMap<ServiceId, Option<ServiceRecord>>,
    ) {
        let batch = changes
            .into_iter()
            .map(|(id, wish)| {
                let service = ServiceRef {
                    agent: agent.to_owned(),
                    id,
                };
                (service, wish)
            })
            .collect();
        let changes = self.registry.apply(batch);
        if let Some(known) = self.agents.get_mut(agent) {
            known.acted_on(position, named);
            self.news.insert(agent.to_owned());
        }
        self.want_save();
        self.carry_out(changes);
    }

    fn log_close(&self, conn: ConnId, code: ErrorCode, reason: &str) {
        let connection = self.sessions.get(&conn);
        let agent = connection.and_then(|c| c.agent.as_deref()).unwrap_or("");
        match code {
            ErrorCode::ShuttingDown => debug!(component = "control", agent, reason, "connection closed"),
            // Agents connect through the tunnel: their address is no client's.
            _ => warn!(
                component = "control", agent, peer = connection.map(|c| c.peer.to_string()), %code, reason,
                "control connection closed"
            ),
        }
    }
}

/// An id that is no longer than a Kubernetes name may be: it is kept and echoed even where the record is refused.
fn short_id(id: &ServiceId) -> ServiceId {
    let ServiceId { namespace, name } = id;
    ServiceId {
        namespace: shorten_name(namespace),
        name: shorten_name(name),
    }
}

fn shorten_name(text: &str) -> String {
    if text.len() <= exposer_common::model::MAX_NAME {
        text.to_owned()
    } else {
        shorten(text)
    }
}
