//! Messages of the control channel.
//!
//! The order of the variants is part of the wire format: it is frozen, and `tests/golden.rs` pins the bytes of each.
//! A new message is appended.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::model::{Protocol, ServiceId, ServiceRecord};

/// Bytes of a nonce.
pub const NONCE: usize = 32;
/// Bytes of a proof: HMAC-SHA256.
pub const MAC: usize = 32;

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum AgentMessage {
    /// Opens the conversation.
    Hello(Hello),
    /// Proves knowledge of the token.
    Proof(Proof),
    /// Everything that this agent wants, or a part of it.
    Snapshot(Snapshot),
    /// What changed since.
    Delta(Delta),
    /// A sign of life.
    Heartbeat(Heartbeat),
    /// Something is wrong; the connection closes after it.
    Error(ErrorMessage),
}

/// What an edge says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum EdgeMessage {
    /// Answers `Hello` with the version that holds from here on, and a fresh nonce.
    Challenge(Challenge),
    /// Proves knowledge of the token in return.
    Welcome(Welcome),
    /// What is programmed.
    Ack(Ack),
    /// A sign of life.
    Heartbeat(Heartbeat),
    /// Something is wrong; the connection closes after it.
    Error(ErrorMessage),
}

/// See [`AgentMessage::Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// Oldest version that the agent speaks.
    pub min_version: u16,
    /// Newest version that the agent speaks.
    pub max_version: u16,
    /// The agent's name (`AGENT_NAME`): one name, one set of Services. A DNS label.
    pub agent: String,
    /// Fresh random bytes.
    pub nonce: [u8; NONCE],
    /// Software name and version, for logs.
    pub software: String,
    /// Optional abilities by name; unknown ones are ignored.
    pub capabilities: Vec<String>,
}

/// See [`EdgeMessage::Challenge`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Challenge {
    /// The version that both will speak.
    pub version: u16,
    /// Fresh random bytes.
    pub nonce: [u8; NONCE],
}

/// See [`AgentMessage::Proof`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Proof {
    /// HMAC of the transcript, keyed by the token, labelled as the agent's.
    pub mac: [u8; MAC],
}

/// See [`EdgeMessage::Welcome`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Welcome {
    /// HMAC of the transcript, keyed by the token, labelled as the edge's.
    pub mac: [u8; MAC],
    /// Software name and version, for logs.
    pub software: String,
    /// Public addresses that names should point to.
    pub public_addresses: Vec<std::net::IpAddr>,
    /// Optional abilities by name; unknown ones are ignored.
    pub capabilities: Vec<String>,
}

/// See [`AgentMessage::Snapshot`]. All parts of one snapshot carry the same epoch and revision.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Snapshot {
    /// Chosen at random by the agent at its start: revisions of different epochs do not compare.
    pub epoch: u64,
    /// Rises by one with every snapshot and delta of the epoch.
    pub revision: u64,
    /// Number of this part, from 0.
    pub part: u32,
    /// Whether this is the last part: only then the snapshot takes effect.
    pub last: bool,
    /// The Services of this part.
    pub services: Vec<ServiceRecord>,
}

/// See [`AgentMessage::Delta`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Delta {
    /// The epoch of the snapshot before it.
    pub epoch: u64,
    /// One more than that of the message before it.
    pub revision: u64,
    /// Applied in order.
    pub changes: Vec<Change>,
}

/// One change of a [`Delta`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Change {
    /// The Service is as given, whatever it was.
    Update(ServiceRecord),
    /// The Service is gone.
    Delete(ServiceId),
}

/// See [`AgentMessage::Heartbeat`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Heartbeat {
    /// From the agent: revision of its last message. From the edge: last revision that it has acted on.
    pub revision: u64,
}

/// See [`EdgeMessage::Ack`]. Sent after each snapshot and delta, and again whenever an outcome changes by itself.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ack {
    /// Epoch of what is acknowledged.
    pub epoch: u64,
    /// Revision of what is acknowledged.
    pub revision: u64,
    /// One for each Service that the acknowledged message named, and for each whose outcome changed.
    pub outcomes: Vec<ServiceOutcome>,
}

/// What became of one Service.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct ServiceOutcome {
    /// Which Service.
    pub id: ServiceId,
    /// Why the Service as a whole is refused; its ports are then empty.
    pub refused: Option<Refusal>,
    /// Its public ports, one entry for each port and protocol that it asked for.
    pub ports: Vec<PortOutcome>,
}

/// What became of one public port.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct PortOutcome {
    /// The port that was asked for.
    pub requested: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The port that answers, where one does.
    pub public_port: Option<u16>,
    /// Which path serves it.
    pub path: Option<Path>,
    /// Why it is not what was asked for: a port that moved, a path that is not the first choice, or nothing at all.
    pub refused: Option<Refusal>,
}

/// Which path serves a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// The BPF programs, with userspace as the fallback.
    Kernel,
    /// The userspace proxy alone.
    Userspace,
}

/// A code for programs and a text for the person.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Refusal {
    /// What kind.
    pub code: RefusalCode,
    /// What happened and what to do, one sentence or two.
    pub text: String,
}

/// Kinds of refusal. Append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalCode {
    /// The record breaks a rule of its own.
    InvalidRecord,
    /// Another Service has the subdomain.
    SubdomainTaken,
    /// Another Service has the port; a port of the dynamic range was given instead.
    PortMoved,
    /// The edge uses the port itself (ssh, WireGuard, another program, a nat rule); a dynamic one was given instead.
    PortReserved,
    /// Neither the port nor one of the dynamic range is free.
    PortsExhausted,
    /// The target has no address or port that the edge can send to.
    NoTarget,
    /// Programming failed; it is tried again.
    ProgramFailed,
    /// A path other than the wished one serves the port.
    PathDowngraded,
    /// The tunnel is down: the port answers nobody until it is up.
    TunnelDown,
    /// The agent's token is not for this namespace, subdomain or port, or not for so many ports.
    NotAllowed,
}

/// Kinds of protocol errors. Append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum ErrorCode {
    /// The bytes are no message, or not one that fits here.
    Malformed,
    /// The frame is larger than allowed.
    FrameTooLarge,
    /// No common version.
    Version,
    /// The proof of the token is wrong.
    Unauthenticated,
    /// The agent's name is not a DNS label.
    AgentName,
    /// Epoch or revision does not follow the one before.
    OutOfOrder,
    /// More than this edge allows an agent.
    Limit,
    /// The peer was silent for too long, or too slow to say who it is.
    Timeout,
    /// A newer connection of the same agent took over.
    Replaced,
    /// This side is shutting down.
    ShuttingDown,
    /// The agent's token was replaced or revoked, or allows other things than before: connect again.
    AccessChanged,
}

/// See [`AgentMessage::Error`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ErrorMessage {
    /// What kind.
    pub code: ErrorCode,
    /// For the person who reads the other side's log: what happened and what to do.
    pub text: String,
}
