//! The control channel between agent and edge: messages, framing and the proof of the shared token.
//!
//! # Frame
//!
//! A `u32` in big-endian order, the length of what follows, then exactly one bincode-encoded message
//! ([`codec`]). A frame is at most [`MAX_FRAME`] bytes, and the whole of it must be consumed by the message.
//!
//! # Conversation
//!
//! ```text
//! agent                                   edge
//!   Hello{versions, agent, nonce}  ──►
//!                                  ◄──  Challenge{version, nonce}
//!   Proof{mac}                     ──►
//!                                  ◄──  Welcome{mac, edge}            both sides are proven
//!   Snapshot{epoch, revision, …}   ──►                                replaces all that this agent ever sent
//!                                  ◄──  Ack{revision, outcomes}       what is really programmed, port by port
//!   Delta{revision, changes}       ──►
//!                                  ◄──  Ack{…}
//!   Heartbeat / Heartbeat          ◄─►                                every 30 s
//! ```
//!
//! Either side may send `Error{code, text}` and close.

pub mod auth;
pub mod codec;
pub mod error;
pub mod message;
pub mod parts;

/// Largest frame body, in bytes.
pub const MAX_FRAME: u32 = 1 << 20;
/// Largest frame body that is taken from a peer that has not proven the token, in bytes.
pub const MAX_HANDSHAKE_FRAME: u32 = 4_096;
/// Oldest protocol version that this crate speaks.
pub const MIN_VERSION: u16 = 1;
/// Newest protocol version that this crate speaks.
pub const MAX_VERSION: u16 = 1;
/// TCP port of the control channel.
pub const DEFAULT_PORT: u16 = 9090;
/// How often each side sends a heartbeat.
pub const HEARTBEAT: std::time::Duration = std::time::Duration::from_secs(30);
/// A peer that is silent for so long is dead.
pub const DEAD_AFTER: std::time::Duration = std::time::Duration::from_secs(90);
