//! The core: sessions, registry and what the datapath was told, behind `handle_*`, [`Core::next_command`] and
//! [`Core::poll_timeout`].

mod access;
mod inbound;
mod telling;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use exposer_common::proto::message::{ErrorCode, ErrorMessage, NONCE};
use tracing::{debug, warn};

use super::agents::Agent;
use super::plan::Plan;
use super::ports::ReservedPorts;
use super::programming::{Programming, Report, Served, Step};
use super::registry::Registry;
use super::session::{Session, Shared};
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
    pub(super) shared: Shared,
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
        let _nothing_placed_yet = registry.set_limits(settings.tokens.limits());
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

    pub(super) fn want_save(&mut self) {
        if !self.save_wanted {
            self.save_wanted = true;
            self.commands.push_back(Command::SaveState);
        }
    }

    pub(super) const fn save_begins(&mut self) {
        self.save_wanted = false;
    }
}
