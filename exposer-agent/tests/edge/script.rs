//! An edge made of exposer-common alone: it reads what the agent sends and says what the test tells it to.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use exposer_agent::desired::Desired;
use exposer_common::model::{
    ClientIp, PortRecord, Protocol, ServiceId, ServicePort, ServiceRecord, TargetKind,
};
use exposer_common::proto::auth::{Token, Transcript};
use exposer_common::proto::codec::{FrameDecoder, encode};
use exposer_common::proto::message::{
    Ack, AgentMessage, Challenge, Change, EdgeMessage, PortOutcome, ServiceOutcome, Snapshot, Welcome,
};

pub const TOKEN: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

pub fn token() -> Token {
    Token::from_bytes(TOKEN.as_bytes()).unwrap()
}

pub fn id(name: &str) -> ServiceId {
    ServiceId {
        namespace: "default".into(),
        name: name.into(),
    }
}

pub fn record(name: &str, port: u16) -> ServiceRecord {
    let side = ServicePort {
        service_port: port,
        target_port: None,
        node_port: None,
    };
    ServiceRecord {
        id: id(name),
        uid: format!("uid-{name}"),
        created: 1_700_000_000,
        subdomain: name.into(),
        ports: vec![PortRecord {
            public_port: port,
            tcp: Some(side),
            udp: None,
        }],
        cluster_ip: Some(IpAddr::from([10, 96, 0, 10])),
        node_addresses: vec![],
        target: TargetKind::Auto,
        client_ip: ClientIp::Auto,
        idle_timeout: None,
    }
}

pub fn desired(services: &[(&str, u16)]) -> Arc<Desired> {
    let services = services
        .iter()
        .map(|(name, port)| (id(name), record(name, *port)))
        .collect();
    Arc::new(Desired { services })
}

pub fn outcome(id: &ServiceId, public_port: u16) -> ServiceOutcome {
    ServiceOutcome {
        id: id.clone(),
        refused: None,
        ports: vec![PortOutcome {
            requested: public_port,
            protocol: Protocol::Tcp,
            public_port: Some(public_port),
            path: None,
            refused: None,
        }],
    }
}

/// What an edge has been told, and how it proves itself.
pub struct Edge {
    decoder: FrameDecoder,
    token: Token,
    hello_frame: Vec<u8>,
    challenge_frame: Vec<u8>,
    /// Every message that was read, in order.
    pub read: Vec<AgentMessage>,
    /// The agent's Services as this edge knows them.
    pub services: BTreeMap<ServiceId, ServiceRecord>,
    /// Epoch and revision of the last whole message, and the Services that it named.
    pub position: (u64, u64),
    pub named: Vec<ServiceId>,
    parts: Vec<Snapshot>,
}

impl Edge {
    pub fn new(token: Token) -> Self {
        Self {
            decoder: FrameDecoder::new(),
            token,
            hello_frame: Vec::new(),
            challenge_frame: Vec::new(),
            read: Vec::new(),
            services: BTreeMap::new(),
            position: (0, 0),
            named: Vec::new(),
            parts: Vec::new(),
        }
    }

    /// Takes bytes of the agent and applies the messages in them, strictly.
    pub fn take(&mut self, bytes: &[u8]) {
        self.decoder.push(bytes);
        while let Some((message, frame)) = self.decoder.next::<AgentMessage>().unwrap() {
            if matches!(message, AgentMessage::Hello(_)) {
                self.hello_frame = frame.as_slice().to_vec();
            }
            self.apply(&message);
            self.read.push(message);
        }
    }

    fn apply(&mut self, message: &AgentMessage) {
        match message {
            AgentMessage::Snapshot(part) => {
                assert_eq!(part.part as usize, self.parts.len(), "parts follow each other");
                self.parts.push(part.clone());
                if !part.last {
                    return;
                }
                assert!(
                    part.epoch != self.position.0 || part.revision > self.position.1,
                    "snapshot {} after {:?}",
                    part.revision,
                    self.position
                );
                let parts = std::mem::take(&mut self.parts);
                self.services = parts
                    .into_iter()
                    .flat_map(|part| part.services)
                    .map(|record| (record.id.clone(), record))
                    .collect();
                self.position = (part.epoch, part.revision);
                self.named = self.services.keys().cloned().collect();
            }
            AgentMessage::Delta(delta) => {
                assert!(self.parts.is_empty(), "a delta inside a snapshot");
                assert_eq!(delta.epoch, self.position.0, "epoch of a delta");
                assert_eq!(
                    Some(delta.revision),
                    self.position.1.checked_add(1),
                    "revision of a delta"
                );
                assert!(!delta.changes.is_empty(), "an empty delta");
                for change in &delta.changes {
                    match change {
                        Change::Update(record) => {
                            self.named.push(record.id.clone());
                            self.services.insert(record.id.clone(), record.clone());
                        }
                        Change::Delete(id) => {
                            assert!(self.services.remove(id).is_some(), "{id} was never there");
                            self.named.retain(|named| named != id);
                        }
                    }
                }
                self.position = (delta.epoch, delta.revision);
            }
            _ => {}
        }
    }

    /// The messages since the last call.
    pub fn drain(&mut self) -> Vec<AgentMessage> {
        std::mem::take(&mut self.read)
    }

    pub fn challenge(&mut self) -> Vec<u8> {
        self.challenge_frame = encode(&EdgeMessage::Challenge(Challenge {
            version: 1,
            nonce: [0xee; 32],
        }))
        .unwrap();
        self.challenge_frame.clone()
    }

    /// The transcript as this edge saw it.
    pub fn transcript(&self) -> Transcript {
        Transcript::new(&self.hello_frame, &self.challenge_frame)
    }

    /// Checks the agent's proof and answers it.
    pub fn welcome(&mut self) -> Vec<u8> {
        let Some(AgentMessage::Proof(proof)) = self.read.last() else {
            panic!("no proof: {:?}", self.read)
        };
        self.token.verify_agent(&self.transcript(), &proof.mac).unwrap();
        encode(&EdgeMessage::Welcome(Welcome {
            mac: self.token.prove_edge(&self.transcript(), &proof.mac),
            software: "scripted edge".into(),
            public_addresses: vec![IpAddr::from([203, 0, 113, 7])],
            capabilities: vec!["unknown-to-the-agent".into()],
        }))
        .unwrap()
    }

    /// Acknowledges everything, with an outcome for each Service that was named since the last one: it is
    /// served as it was asked for.
    pub fn ack(&mut self) -> Vec<u8> {
        let (epoch, revision) = self.position;
        let served = |id: &ServiceId| outcome(id, self.services[id].ports[0].public_port);
        let outcomes = self.named.iter().map(served).collect();
        self.named.clear();
        encode(&EdgeMessage::Ack(Ack {
            epoch,
            revision,
            outcomes,
        }))
        .unwrap()
    }
}
