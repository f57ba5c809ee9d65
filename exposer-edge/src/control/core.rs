//! The core: sessions, registry and what the datapath was told, behind `handle_*`, [`Core::next_command`] and
//! [`Core::poll_timeout`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use exposer_common::model::{ServiceId, ServiceRecord, shorten};
use exposer_common::proto::message::{
    Change, EdgeMessage, ErrorCode, ErrorMessage, NONCE, Refusal, RefusalCode, ServiceOutcome,
};
use exposer_common::proto::parts::ack_parts;
use tracing::{debug, info, warn};

use super::agents::{Agent, Presence};
use super::claim::Changes;
use super::outcome;
use super::plan::{Plan, PlanStep};
use super::ports::ReservedPorts;
use super::programming::{Failure, Programming, Report, Served, State, Step};
use super::registry::Registry;
use super::session::{Event, Session, Shared};
use super::snapshot::{MAX_SERVICES, Whole};
use super::tokens::Tokens;
use super::zones::Zones;
use crate::datapath::{Binding, BindingKey, Removal, ServiceRef};

/// After how long a port that was found in use may be given out again.
const IN_USE: Duration = Duration::from_secs(600);
/// How often the time that agents have been away is saved.
const SAVE_AWAY: Duration = Duration::from_secs(600);

/// Names one connection, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// What the owner of the core has to do, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Write to a connection.
    Send {
        /// Which.
        conn: ConnId,
        /// A whole frame.
        bytes: Vec<u8>,
    },
    /// Close a connection when all is written. Nothing of it is to be handed in any more.
    Close {
        /// Which.
        conn: ConnId,
    },
    /// Serve a port; the result goes to [`Core::handle_programmed`].
    Upsert {
        /// Names the result.
        step: Step,
        /// What to serve.
        binding: Binding,
        /// What becomes of connections of its earlier generations.
        removal: Removal,
    },
    /// Serve a port no more; the result goes to [`Core::handle_programmed`].
    Remove {
        /// Names the result.
        step: Step,
        /// Which.
        key: BindingKey,
        /// What becomes of its connections.
        removal: Removal,
    },
    /// Something changed that a restart must not lose: save [`Core::saved_state`] soon.
    SaveState,
}

/// Settings of the core.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who has to prove what.
    pub tokens: Tokens,
    /// Public ports for Services that can't have the one they ask for.
    pub dynamic_ports: RangeInclusive<u16>,
    /// How long Services of an agent that is away stay up.
    pub stale_after: Duration,
    /// How long TCP connections of a port that goes away may go on.
    pub drain: Duration,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Core {
    pub(super) settings: Settings,
    shared: Shared,
    sessions: BTreeMap<ConnId, Connection>,
    pub(super) agents: BTreeMap<String, Agent>,
    pub(super) registry: Registry,
    pub(super) programming: Programming,
    pub(super) zones: Zones,
    pub(super) tunnel_up: bool,
    in_use: BTreeMap<BindingKey, Instant>,
    /// Agents that may have to be told something.
    news: BTreeSet<String>,
    commands: VecDeque<Command>,
    save_wanted: bool,
    save_away: Option<Instant>,
}

#[derive(Debug)]
struct Connection {
    session: Session,
    peer: SocketAddr,
    agent: Option<String>,
}

impl Core {
    /// A core without agents. `reserved` are the ports that the host itself uses.
    #[must_use]
    pub fn new(settings: Settings, reserved: ReservedPorts) -> Self {
        let shared = Shared {
            tokens: settings.tokens.clone(),
            public_addresses: Vec::new(),
        };
        let mut registry = Registry::new(settings.dynamic_ports.clone(), 0);
        registry.set_reserved(reserved);
        Self {
            settings,
            shared,
            sessions: BTreeMap::new(),
            agents: BTreeMap::new(),
            registry,
            programming: Programming::default(),
            zones: Zones::default(),
            tunnel_up: true,
            in_use: BTreeMap::new(),
            news: BTreeSet::new(),
            commands: VecDeque::new(),
            save_wanted: false,
            save_away: None,
        }
    }

    /// A connection was accepted. `nonce` is fresh and random.
    pub fn handle_connected(&mut self, conn: ConnId, peer: SocketAddr, nonce: [u8; NONCE], now: Instant) {
        debug!(component = "control", conn = conn.0, %peer, "connection accepted");
        let connection = Connection {
            session: Session::new(nonce, now),
            peer,
            agent: None,
        };
        self.sessions.insert(conn, connection);
    }

    /// A connection brought bytes.
    pub fn handle_bytes(&mut self, conn: ConnId, bytes: &[u8], now: Instant) {
        if let Some(connection) = self.sessions.get_mut(&conn) {
            connection.session.handle_bytes(bytes, &self.shared, now);
        }
        self.drive(conn, now);
        self.tell_news(now);
    }

    /// A connection ended by itself.
    pub fn handle_disconnected(&mut self, conn: ConnId, now: Instant) {
        self.forget(conn, now, "the connection ended");
    }

    /// A step of the datapath is done.
    pub fn handle_programmed(&mut self, key: BindingKey, step: Step, report: Report, now: Instant) {
        let failure = match &report {
            Report::Failed(failure) => Some(failure.clone()),
            _ => None,
        };
        let told = self.programming.told(key).cloned();
        let Some(service) = self.programming.finish(key, step, report, now) else {
            return;
        };
        self.log_result(key, &service, told.as_ref(), failure.as_ref());
        self.touch(&service);
        if let (Some(owner), Some(_)) = (failure.and_then(|failure| failure.in_use_by), told) {
            self.in_use.insert(key, now);
            let changes = self.registry.port_in_use(key, owner);
            self.carry_out(changes);
        }
        self.tell_news(now);
    }

    /// A port is served by another path than before, without a step: the datapath repaired itself, or could not.
    pub fn handle_path(&mut self, key: BindingKey, generation: u32, served: Served, now: Instant) {
        if let Some(service) = self.programming.moved_to(key, generation, served) {
            self.touch(&service);
            self.tell_news(now);
        }
    }

    /// The host's own ports were looked up again.
    pub fn handle_reserved_ports(&mut self, reserved: ReservedPorts) {
        self.registry.set_reserved(reserved);
    }

    /// The host's network changed.
    pub fn handle_environment(
        &mut self,
        tunnel_up: bool,
        public_addresses: Vec<IpAddr>,
        own_addresses: BTreeSet<IpAddr>,
        now: Instant,
    ) {
        self.shared.public_addresses = public_addresses;
        if tunnel_up != self.tunnel_up {
            self.tunnel_up = tunnel_up;
            let all: Vec<ServiceRef> = self
                .registry
                .entries()
                .map(|(service, _)| service.clone())
                .collect();
            for service in &all {
                self.touch(service);
            }
        }
        let changes = self.registry.set_own_addresses(own_addresses);
        self.carry_out(changes);
        self.tell_news(now);
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let conns: Vec<ConnId> = self
            .sessions
            .iter()
            .filter(|(_, connection)| connection.session.poll_timeout().is_some_and(|at| at <= now))
            .map(|(conn, _)| *conn)
            .collect();
        for conn in conns {
            if let Some(connection) = self.sessions.get_mut(&conn) {
                connection.session.handle_timeout(now);
            }
            self.drive(conn, now);
        }
        self.expire_agents(now);
        while let Some((key, slot)) = self.programming.pop_retry(now) {
            self.issue(key, slot.told, &slot.service);
        }
        let free: Vec<BindingKey> = self
            .in_use
            .iter()
            .filter(|(_, since)| now.saturating_duration_since(**since) >= IN_USE)
            .map(|(key, _)| *key)
            .collect();
        for key in free {
            self.in_use.remove(&key);
            self.registry.port_may_be_free(key);
        }
        if self.save_away.is_some_and(|at| at <= now) {
            self.save_away = None;
            self.want_save();
        }
        self.tell_news(now);
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let sessions = self.sessions.values().filter_map(|c| c.session.poll_timeout());
        let agents = self
            .agents
            .values()
            .filter_map(|agent| agent.presence.expires(self.settings.stale_after));
        let in_use = self.in_use.values().filter_map(|since| since.checked_add(IN_USE));
        sessions
            .chain(agents)
            .chain(in_use)
            .chain(self.programming.next_retry())
            .chain(self.save_away)
            .min()
    }

    /// What to do next.
    pub fn next_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// Tells every agent that the edge goes down, and closes all connections. Services stay as they are.
    pub fn shut_down(&mut self, now: Instant) {
        let conns: Vec<ConnId> = self.sessions.keys().copied().collect();
        for conn in conns {
            let error = ErrorMessage::new(
                ErrorCode::ShuttingDown,
                "the edge is shutting down; its ports stay open for present connections",
            );
            if let Some(connection) = self.sessions.get_mut(&conn) {
                connection.session.fail(error);
            }
            self.drive(conn, now);
        }
    }

    /// What is to be and what was told, where they differ; empty between two calls, unless a step is being retried.
    #[must_use]
    pub fn plan(&self) -> Plan {
        Plan::whole(&self.registry, &self.programming)
    }

    /// The registry, to look at.
    #[must_use]
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The zone number of an interface, given for ever; none when all are in use.
    pub fn zone(&mut self, interface: &str) -> Option<u8> {
        let before = self.zones.saved().len();
        let zone = self.zones.zone(interface);
        if self.zones.saved().len() != before {
            self.want_save();
        }
        zone
    }

    fn drive(&mut self, conn: ConnId, now: Instant) {
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

    fn opened(&mut self, conn: ConnId, name: &str, software: String, now: Instant) {
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

    fn forget(&mut self, conn: ConnId, now: Instant, reason: &str) {
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

    fn agent_of(&self, conn: ConnId) -> Option<String> {
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
        let known = self.agents.get_mut(agent);
        match record.validate() {
            Ok(()) => {
                if let Some(known) = known {
                    known.invalid.remove(&id);
                }
                changes.insert(id, Some(record));
            }
            Err(error) => {
                warn!(component = "control", agent, service = %id, action = "refused", %error, "record refused");
                let refusal = Refusal {
                    code: RefusalCode::InvalidRecord,
                    text: error.to_string(),
                };
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

    /// Tells the datapath what changed.
    pub(super) fn carry_out(&mut self, changes: Changes) {
        let Changes { services, keys } = changes;
        if !keys.is_empty() {
            self.want_save();
        }
        for step in Plan::for_keys(&self.registry, &self.programming, &keys).steps {
            match step {
                PlanStep::Remove(key) => {
                    if let Some(service) = self.programming.get(key).map(|slot| slot.service.clone()) {
                        self.issue(key, None, &service);
                    }
                }
                PlanStep::Upsert(binding) => {
                    let service = binding.service.clone();
                    self.issue(binding.key, Some(binding), &service);
                }
            }
        }
        for service in services {
            self.touch(&service);
        }
    }

    fn issue(&mut self, key: BindingKey, told: Option<Binding>, service: &ServiceRef) {
        let step = self.programming.begin(key, told.clone(), service);
        let removal = Removal {
            drain: self.settings.drain,
        };
        self.commands.push_back(match told {
            Some(binding) => Command::Upsert {
                step,
                binding,
                removal,
            },
            None => Command::Remove { step, key, removal },
        });
    }

    fn expire_agents(&mut self, now: Instant) {
        let gone: Vec<String> = self
            .agents
            .iter()
            .filter(|(_, agent)| {
                agent
                    .presence
                    .expires(self.settings.stale_after)
                    .is_some_and(|at| at <= now)
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.agents.remove(&name);
            let changes = self.registry.expire_agent(&name);
            warn!(
                component = "control",
                agent = name,
                action = "expired",
                services = changes.services.len(),
                "agent stayed away longer than the grace period; its Services are removed"
            );
            self.want_save();
            self.carry_out(changes);
        }
        if self.save_away.is_none() && self.agents.values().any(|agent| agent.presence.conn().is_none()) {
            self.save_away = now.checked_add(SAVE_AWAY);
        }
    }

    fn touch(&mut self, service: &ServiceRef) {
        if let Some(agent) = self.agents.get_mut(&service.agent) {
            agent.touch(service.id.clone());
            self.news.insert(service.agent.clone());
        }
    }

    /// Acknowledges to every agent whose steps are all done.
    fn tell_news(&mut self, now: Instant) {
        let ready: Vec<String> = self
            .news
            .iter()
            .filter(|name| !self.programming.is_running(name))
            .cloned()
            .collect();
        for name in ready {
            self.news.remove(&name);
            self.tell(&name, now);
        }
    }

    fn tell(&mut self, name: &str, now: Instant) {
        let Some(mut agent) = self.agents.remove(name) else {
            return;
        };
        let news = if agent.has_news() {
            let invalid = std::mem::take(&mut agent.invalid);
            let news = agent.take_news(|id| self.outcome(name, id, &invalid));
            agent.invalid = invalid;
            news
        } else {
            None
        };
        let (conn, position) = (agent.presence.conn(), agent.position);
        self.agents.insert(name.to_owned(), agent);
        let (Some(news), Some(conn), Some((epoch, revision))) = (news, conn, position) else {
            return;
        };
        let Some(connection) = self.sessions.get_mut(&conn) else {
            return;
        };
        match ack_parts(epoch, revision, news) {
            Ok(parts) => {
                for part in parts {
                    connection.session.send(&EdgeMessage::Ack(part));
                }
            }
            Err(error) => connection
                .session
                .fail(ErrorMessage::new(ErrorCode::Limit, &error.to_string())),
        }
        self.drive(conn, now);
    }

    fn outcome(
        &self,
        agent: &str,
        id: &ServiceId,
        invalid: &BTreeMap<ServiceId, Refusal>,
    ) -> Option<ServiceOutcome> {
        if let Some(refusal) = invalid.get(id) {
            return Some(ServiceOutcome {
                id: id.clone(),
                refused: Some(refusal.clone()),
                ports: Vec::new(),
            });
        }
        let service = ServiceRef {
            agent: agent.to_owned(),
            id: id.clone(),
        };
        let entry = self.registry.get(&service)?;
        Some(outcome::of(&service, entry, &self.programming, self.tunnel_up))
    }

    pub(super) fn want_save(&mut self) {
        if !self.save_wanted {
            self.save_wanted = true;
            self.commands.push_back(Command::SaveState);
        }
    }

    pub(super) const fn save_begins(&mut self) {
        self.save_wanted = false;
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

    fn log_result(
        &self,
        key: BindingKey,
        service: &ServiceRef,
        told: Option<&Binding>,
        failure: Option<&Failure>,
    ) {
        let subdomain = self
            .registry
            .get(service)
            .map_or("", |entry| entry.record.subdomain.as_str());
        let target = told.map(|binding| binding.backend.to_string());
        let (port, protocol) = (key.port, key.protocol);
        match (failure, told) {
            (Some(failure), _) => warn!(
                component = "control", %service, subdomain, port, %protocol, action = "failed", target,
                error = failure.text, "port could not be programmed; it is tried again"
            ),
            (None, Some(_)) => {
                let path = match self.programming.get(key).map(|slot| &slot.state) {
                    Some(State::Served(served)) => Some(served.path),
                    _ => None,
                };
                info!(
                    component = "control", %service, subdomain, port, %protocol, action = "open", target, ?path,
                    "port is served"
                );
            }
            (None, None) => info!(
                component = "control", %service, subdomain, port, %protocol, action = "close", "port is closed"
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
