//! A core with a recording datapath, and agents that speak the real protocol to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use exposer_common::model::{
    ClientIp, PortRecord, Protocol, ServiceId, ServicePort, ServiceRecord, TargetKind,
};
use exposer_common::proto::auth::{Token, Transcript};
use exposer_common::proto::codec::{FrameDecoder, encode};
use exposer_common::proto::message::{
    Ack, AgentMessage, Change, Delta, EdgeMessage, ErrorCode, Hello, Path, PortOutcome, Proof,
    ServiceOutcome, Snapshot,
};
use exposer_edge::control::core::{Command, ConnId, Core, Settings};
use exposer_edge::control::ports::ReservedPorts;
use exposer_edge::control::programming::{Failure, Report, Served, Step};
use exposer_edge::control::tokens::Tokens;
use exposer_edge::datapath::recording::RecordingDatapath;
use exposer_edge::datapath::{BindingKey, Datapath as _, DatapathError};

pub const TOKEN: &str = "0123456789abcdef0123456789abcdef-control";
pub const STALE_AFTER: Duration = Duration::from_secs(3600);

pub fn token() -> Token {
    Token::from_bytes(TOKEN.as_bytes()).unwrap()
}

pub fn settings() -> Settings {
    Settings {
        tokens: Tokens::shared(token()),
        dynamic_ports: 30_000..=32_767,
        stale_after: STALE_AFTER,
        drain: Duration::from_secs(300),
    }
}

pub const fn key(port: u16, protocol: Protocol) -> BindingKey {
    BindingKey { port, protocol }
}

pub const fn tcp(port: u16) -> BindingKey {
    key(port, Protocol::Tcp)
}

pub fn side(port: u16) -> ServicePort {
    ServicePort {
        service_port: port,
        target_port: None,
        node_port: None,
    }
}

pub fn port(public_port: u16, protocols: &str) -> PortRecord {
    PortRecord {
        public_port,
        tcp: protocols.contains("tcp").then(|| side(public_port)),
        udp: protocols.contains("udp").then(|| side(public_port)),
    }
}

pub fn id(name: &str) -> ServiceId {
    ServiceId {
        namespace: "games".into(),
        name: name.into(),
    }
}

/// A Service whose subdomain is its name, made at `created`.
pub fn record(name: &str, created: u64, ports: Vec<PortRecord>) -> ServiceRecord {
    ServiceRecord {
        id: id(name),
        uid: format!("uid-{name}"),
        created,
        subdomain: name.into(),
        ports,
        cluster_ip: Some("10.96.0.10".parse().unwrap()),
        node_addresses: vec!["10.0.0.2".parse().unwrap()],
        target: TargetKind::Auto,
        client_ip: ClientIp::Auto,
        idle_timeout: None,
    }
}

/// The edge: a core, a datapath that records, and what was written to each connection.
pub struct Edge {
    pub core: Core,
    pub datapath: RecordingDatapath,
    pub now: Instant,
    pub written: BTreeMap<ConnId, Vec<u8>>,
    pub closed: BTreeSet<ConnId>,
    pub saves: u32,
    /// While set, steps are collected here instead of being carried out.
    pub held: Option<Vec<Command>>,
    conns: u64,
}

impl Edge {
    pub fn new() -> Self {
        Self::with_reserved(ReservedPorts::new())
    }

    pub fn with_reserved(reserved: ReservedPorts) -> Self {
        Self::over(Core::new(settings(), reserved))
    }

    pub fn over(core: Core) -> Self {
        let mut edge = Self {
            core,
            datapath: RecordingDatapath::new(),
            now: Instant::now(),
            written: BTreeMap::new(),
            closed: BTreeSet::new(),
            saves: 0,
            held: None,
            conns: 0,
        };
        edge.pump();
        edge
    }

    pub fn accept(&mut self) -> ConnId {
        self.conns += 1;
        let conn = ConnId(self.conns);
        let peer: SocketAddr = "10.0.0.2:40000".parse().unwrap();
        let nonce = [u8::try_from(self.conns % 251).unwrap(); 32];
        self.core.handle_connected(conn, peer, nonce, self.now);
        self.pump();
        conn
    }

    pub fn bytes(&mut self, conn: ConnId, bytes: &[u8]) {
        self.core.handle_bytes(conn, bytes, self.now);
        self.pump();
    }

    pub fn disconnect(&mut self, conn: ConnId) {
        self.core.handle_disconnected(conn, self.now);
        self.pump();
    }

    /// Lets time pass, doing what is due at each moment.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.core.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.core.handle_timeout(self.now);
            self.pump();
        }
        self.now = end;
        self.core.handle_timeout(self.now);
        self.pump();
    }

    /// Carries out what the core wants.
    pub fn pump(&mut self) {
        while let Some(command) = self.core.next_command() {
            match command {
                Command::Send { conn, bytes } => self.written.entry(conn).or_default().extend(bytes),
                Command::Close { conn } => {
                    self.closed.insert(conn);
                }
                Command::SaveState => self.saves += 1,
                step => match &mut self.held {
                    Some(held) => held.push(step),
                    None => self.carry_out(step),
                },
            }
        }
    }

    /// Carries out the steps that were held.
    pub fn release(&mut self) {
        for step in self.held.take().unwrap_or_default() {
            self.carry_out(step);
            self.pump();
        }
    }

    fn carry_out(&mut self, step: Command) {
        let (key, step, result): (BindingKey, Step, Result<Report, DatapathError>) = match step {
            Command::Upsert {
                step,
                binding,
                removal,
            } => {
                let served = Served {
                    path: Path::Userspace,
                    downgrade: None,
                };
                let done = self.datapath.upsert(&binding, removal);
                (binding.key, step, done.map(|()| Report::Served(served)))
            }
            Command::Remove { step, key, removal } => (
                key,
                step,
                self.datapath.remove(key, removal).map(|()| Report::Removed),
            ),
            other => panic!("{other:?} is no step"),
        };
        let report = result.unwrap_or_else(|error| Report::Failed(Failure::from(&error)));
        self.core.handle_programmed(key, step, report, self.now);
    }

    /// Which public ports are served, with the backend of each.
    pub fn served(&self) -> BTreeMap<BindingKey, String> {
        self.datapath
            .served()
            .into_iter()
            .map(|(key, binding)| (key, binding.service.id.name))
            .collect()
    }
}

/// An agent that is connected and proven.
pub struct Agent {
    pub conn: ConnId,
    pub epoch: u64,
    pub revision: u64,
    decoder: FrameDecoder,
}

impl Agent {
    pub fn connect(edge: &mut Edge, name: &str) -> Self {
        Self::connect_with(edge, name, &token())
    }

    pub fn connect_with(edge: &mut Edge, name: &str, token: &Token) -> Self {
        let conn = edge.accept();
        let mut agent = Self {
            conn,
            epoch: 7,
            revision: 0,
            decoder: FrameDecoder::new(),
        };
        let frame = hello(name);
        edge.bytes(conn, &frame);
        let (transcript, _) = agent.challenge(edge, &frame);
        let mac = token.prove_agent(&transcript);
        edge.bytes(conn, &encode(&AgentMessage::Proof(Proof { mac })).unwrap());
        let [EdgeMessage::Welcome(welcome)] = &agent.hear(edge)[..] else {
            panic!("no welcome");
        };
        token.verify_edge(&transcript, &mac, &welcome.mac).unwrap();
        agent
    }

    /// Reads the challenge, and makes the transcript.
    fn challenge(&mut self, edge: &mut Edge, hello: &[u8]) -> (Transcript, u16) {
        let bytes = edge.written.remove(&self.conn).unwrap_or_default();
        self.decoder.push(&bytes);
        let (message, frame) = self.decoder.next::<EdgeMessage>().unwrap().expect("a challenge");
        let EdgeMessage::Challenge(challenge) = message else {
            panic!("{message:?} is no challenge");
        };
        (Transcript::new(hello, frame.as_slice()), challenge.version)
    }

    pub fn say(&self, edge: &mut Edge, message: &AgentMessage) {
        edge.bytes(self.conn, &encode(message).unwrap());
    }

    /// Everything that the edge has said since.
    pub fn hear(&mut self, edge: &mut Edge) -> Vec<EdgeMessage> {
        self.decoder
            .push(&edge.written.remove(&self.conn).unwrap_or_default());
        let mut heard = Vec::new();
        while let Some((message, _)) = self.decoder.next::<EdgeMessage>().unwrap() {
            heard.push(message);
        }
        heard
    }

    pub fn acks(&mut self, edge: &mut Edge) -> Vec<Ack> {
        self.hear(edge)
            .into_iter()
            .filter_map(|message| match message {
                EdgeMessage::Ack(ack) => Some(ack),
                _ => None,
            })
            .collect()
    }

    /// The code and the text of the error that ended the connection.
    pub fn error(&mut self, edge: &mut Edge) -> (ErrorCode, String) {
        match self.hear(edge).pop() {
            Some(EdgeMessage::Error(error)) => (error.code, error.text),
            other => panic!("no error but {other:?}"),
        }
    }

    /// Sends a whole snapshot and gives back its outcomes by name.
    pub fn snapshot(
        &mut self,
        edge: &mut Edge,
        services: Vec<ServiceRecord>,
    ) -> BTreeMap<String, ServiceOutcome> {
        self.send_snapshot(edge, services);
        let acks = self.acks(edge);
        self.outcomes(&acks)
    }

    pub fn send_snapshot(&mut self, edge: &mut Edge, services: Vec<ServiceRecord>) {
        self.revision += 1;
        let message = AgentMessage::Snapshot(Snapshot {
            epoch: self.epoch,
            revision: self.revision,
            part: 0,
            last: true,
            services,
        });
        self.say(edge, &message);
    }

    /// Sends a delta and gives back its outcomes by name.
    pub fn delta(&mut self, edge: &mut Edge, changes: Vec<Change>) -> BTreeMap<String, ServiceOutcome> {
        self.revision += 1;
        let message = AgentMessage::Delta(Delta {
            epoch: self.epoch,
            revision: self.revision,
            changes,
        });
        self.say(edge, &message);
        let acks = self.acks(edge);
        self.outcomes(&acks)
    }

    fn outcomes(&self, acks: &[Ack]) -> BTreeMap<String, ServiceOutcome> {
        let Some(last) = acks.last() else {
            panic!("revision {} was not acknowledged", self.revision);
        };
        assert_eq!((last.epoch, last.revision), (self.epoch, self.revision));
        acks.iter()
            .flat_map(|ack| ack.outcomes.iter().cloned())
            .map(|outcome| (outcome.id.name.clone(), outcome))
            .collect()
    }
}

pub fn hello(name: &str) -> Vec<u8> {
    hello_with(name, 1, 1)
}

pub fn hello_with(name: &str, min_version: u16, max_version: u16) -> Vec<u8> {
    encode(&AgentMessage::Hello(Hello {
        min_version,
        max_version,
        agent: name.into(),
        nonce: [9; 32],
        software: "scripted 1".into(),
        capabilities: vec!["from-the-future".into()],
    }))
    .unwrap()
}

/// The outcome of one port.
pub fn of(outcome: &ServiceOutcome, requested: u16, protocol: Protocol) -> PortOutcome {
    outcome
        .ports
        .iter()
        .find(|port| port.requested == requested && port.protocol == protocol)
        .unwrap_or_else(|| panic!("no outcome of {requested}/{protocol} in {outcome:?}"))
        .clone()
}
