//! The control channel between agent and edge: messages, framing and the proof of the shared token.
//!
//! TCP, by default to port [`DEFAULT_PORT`] of the edge's tunnel address, opened by the agent. Nothing in here does I/O,
//! reads a clock or waits: [`codec`] turns bytes into messages, [`auth`] computes proofs, and the two state machines
//! (one at each side) live in the agent and the edge.
//!
//! # Frame
//!
//! ```text
//! +-------------------------+-------------------------------------------+
//! | length: u32, big-endian | body: `length` bytes, one bincode message |
//! +-------------------------+-------------------------------------------+
//! ```
//!
//! The body is an [`AgentMessage`](message::AgentMessage) or an [`EdgeMessage`](message::EdgeMessage), by direction, in
//! bincode 2's standard configuration: little-endian, variable-length integers, the variant's number first. A body has
//! 1 to [`MAX_FRAME`] bytes, at most [`MAX_HANDSHAKE_FRAME`] until the sender is proven. The message consumes all of
//! it, and it is the only encoding of its message ([`codec`] says why).
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
//! | message | from | when | answered by |
//! |---|---|---|---|
//! | `Hello` | agent | first of all | `Challenge` or `Error` |
//! | `Challenge` | edge | after a `Hello` that it likes | `Proof`, or `Error` |
//! | `Proof` | agent | after `Challenge`; nothing else may come first | `Welcome`, or `Error` |
//! | `Welcome` | edge | after a `Proof` that holds | a `Snapshot`, once the agent has read its cluster |
//! | `Snapshot` | agent | first after `Welcome`, and whenever it wants to begin anew | `Ack` after the last part |
//! | `Delta` | agent | after a change, once a snapshot was sent in this connection | `Ack` |
//! | `Ack` | edge | after each whole snapshot and each delta; again when an outcome changes by itself | nothing |
//! | `Heartbeat` | both | every [`HEARTBEAT`] after `Welcome` | nothing |
//! | `Error` | both | at any time; the sender closes after it | nothing |
//!
//! # Revisions
//!
//! An agent draws an *epoch* at its start and counts *revisions* from 1 in it, one for each snapshot (however many parts)
//! and each delta, across connections. A snapshot stands by itself: the edge takes it whatever it knew before. A delta
//! follows the message before it: same epoch, one revision more, else `Error{OutOfOrder}`. A snapshot takes effect when
//! its last part is there; its parts follow each other with no other message of that revision between them. Large
//! acknowledgements come as several `Ack`s of one revision. [`parts`] splits all three.
//!
//! # Versions
//!
//! `Hello` names the oldest and the newest version that the agent speaks, `Challenge` the one that holds: the newest that
//! both speak ([`auth::negotiate`]). `Hello`, `Challenge` and `Error` are the same in every version, so that two sides
//! can always tell each other that they do not fit. What an old peer may ignore is announced in `capabilities` and needs
//! no new version; what it must understand does. Variants and messages are appended, never moved: `tests/golden.rs`
//! pins the bytes of each.
//!
//! # Proof
//!
//! See [`auth`]. The agent sends no Service before it has checked the edge's proof, and the edge reads none before it has
//! checked the agent's.
//!
//! # Limits
//!
//! | what | limit | where |
//! |---|---|---|
//! | frame body | 1 MiB | [`MAX_FRAME`] |
//! | frame body before the proof | 4 KiB | [`MAX_HANDSHAKE_FRAME`] |
//! | memory that decoding one message may claim | 4 MiB | [`codec::DECODE_BUDGET`] |
//! | elements of one part | 4,096 | [`parts::PART_ITEMS`] |
//! | ports of a Service | 256 | [`crate::model::MAX_PORTS`] |
//! | text of an error, shown or sent | 512 characters | [`error::MAX_ERROR_TEXT`] |
//! | silence of a peer | 90 s | [`DEAD_AFTER`] |
//! | the whole handshake | 10 s | [`HANDSHAKE_TIMEOUT`] |
//!
//! # Error codes
//!
//! | code | meaning | what the agent does |
//! |---|---|---|
//! | `malformed` | the bytes are no message, or not one that fits here | tries again, rarely |
//! | `frame-too-large` | over the limit | tries again, rarely |
//! | `version` | no common version | tries again, rarely: somebody must update |
//! | `unauthenticated` | the proof is wrong | tries again, rarely: somebody must fix the token |
//! | `agent-name` | the name is no DNS label | tries again, rarely |
//! | `out-of-order` | a delta without what it follows | connects anew, with a snapshot |
//! | `limit` | more than this edge allows | tries again, rarely |
//! | `timeout` | silent or slow for too long | connects anew |
//! | `replaced` | another connection of the same agent name took over | tries again, rarely: two agents share a name |
//! | `shutting-down` | the other side stops | connects anew |
//! | `access-changed` | the agent's token was replaced or revoked, or allows other things than before | connects anew |

pub mod auth;
pub mod codec;
pub mod error;
pub mod message;
pub mod parts;

use std::time::Duration;

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
pub const HEARTBEAT: Duration = Duration::from_secs(30);
/// A peer that is silent for so long is dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(90);
/// From the connection to `Welcome`: who takes longer is not served.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
