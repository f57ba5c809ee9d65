//! One control connection: bytes and time in, frames and events out.
//!
//! ```text
//! Hello ─► (version, name) ─► Challenge … Proof ─► (token) ─► Welcome … Snapshot, Delta, Heartbeat
//! ```
//!
//! Whatever does not fit is answered with an error in words and ends the connection. Before the proof a peer costs one
//! small buffer, one HMAC and ten seconds.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use exposer_common::model::{is_dns_label, shorten};
use exposer_common::proto::auth::{AuthError, Token, Transcript, negotiate};
use exposer_common::proto::codec::{FrameBytes, FrameDecoder, encode};
use exposer_common::proto::error::printable;
use exposer_common::proto::message::{
    AgentMessage, Challenge, Change, Delta, EdgeMessage, ErrorCode, ErrorMessage, Heartbeat, Hello, NONCE,
    Proof, Snapshot, Welcome,
};
use exposer_common::proto::{DEAD_AFTER, HEARTBEAT};

use super::snapshot::{Assembly, Whole};
use super::tokens::Tokens;

/// How long a peer may take from the connection to its proof.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// Largest frame before the proof, in bytes.
pub const HANDSHAKE_FRAME: u32 = 4_096;

/// What all sessions of an edge share.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    /// Who has to prove what.
    pub tokens: Tokens,
    /// Addresses that names should point to, for `Welcome`.
    pub public_addresses: Vec<IpAddr>,
}

/// What a session wants from its owner, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Write these bytes.
    Send(Vec<u8>),
    /// The agent has proven itself.
    Opened {
        /// Its name, a DNS label.
        agent: String,
        /// What it says of its software, printable.
        software: String,
    },
    /// Everything that the agent wants. The records are not validated.
    Snapshot(Whole),
    /// Changes of that. The records are not validated.
    Delta {
        /// Epoch of the message.
        epoch: u64,
        /// Revision of the message.
        revision: u64,
        /// In order.
        changes: Vec<Change>,
    },
    /// Close the connection; it is the last event.
    Close {
        /// Why, printable; for the log.
        reason: String,
        /// What was told to the agent, or by it.
        code: ErrorCode,
    },
}

#[derive(Debug)]
enum Phase {
    Hello,
    Proof {
        agent: String,
        software: String,
        transcript: Transcript,
    },
    Open,
    Closed,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Session {
    phase: Phase,
    decoder: FrameDecoder,
    nonce: [u8; NONCE],
    opened: Instant,
    heard: Instant,
    told: Instant,
    assembly: Option<Assembly>,
    /// Epoch and revision of the last message that was passed on.
    position: Option<(u64, u64)>,
    events: VecDeque<Event>,
}

impl Session {
    /// A connection that was just accepted. `nonce` is fresh and random.
    #[must_use]
    pub const fn new(nonce: [u8; NONCE], now: Instant) -> Self {
        Self {
            phase: Phase::Hello,
            decoder: FrameDecoder::with_limit(HANDSHAKE_FRAME),
            nonce,
            opened: now,
            heard: now,
            told: now,
            assembly: None,
            position: None,
            events: VecDeque::new(),
        }
    }

    /// Takes what the peer wrote, cut anywhere.
    pub fn handle_bytes(&mut self, bytes: &[u8], shared: &Shared, now: Instant) {
        self.decoder.push(bytes);
        while !matches!(self.phase, Phase::Closed) {
            match self.decoder.next::<AgentMessage>() {
                Ok(None) => return,
                Ok(Some((message, frame))) => {
                    self.heard = now;
                    if let Err(error) = self.handle_message(message, &frame, shared, now) {
                        self.fail(error);
                    }
                }
                Err(error) => self.fail(ErrorMessage::from(&error)),
            }
        }
    }

    /// Does what is due: ends a handshake that takes too long or a peer that is silent, sends heartbeats.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.phase {
            Phase::Closed => {}
            Phase::Hello | Phase::Proof { .. } => {
                if now >= after(self.opened, HANDSHAKE) {
                    self.fail(ErrorMessage::new(
                        ErrorCode::Timeout,
                        "the handshake took longer than 10 s",
                    ));
                }
            }
            Phase::Open => {
                if now >= after(self.heard, DEAD_AFTER) {
                    self.fail(ErrorMessage::new(ErrorCode::Timeout, "no sign of life for 90 s"));
                } else if now >= after(self.told, HEARTBEAT) {
                    let revision = self.position.map_or(0, |(_, revision)| revision);
                    self.send(&EdgeMessage::Heartbeat(Heartbeat { revision }));
                    self.told = now;
                }
            }
        }
    }

    /// When [`Self::handle_timeout`] is due; none when the connection is closed.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Closed => None,
            Phase::Hello | Phase::Proof { .. } => Some(after(self.opened, HANDSHAKE)),
            Phase::Open => Some(after(self.heard, DEAD_AFTER).min(after(self.told, HEARTBEAT))),
        }
    }

    /// What the owner has to do next.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Sends `message`, unless the connection is closed.
    pub fn send(&mut self, message: &EdgeMessage) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        match encode(message) {
            Ok(bytes) => self.events.push_back(Event::Send(bytes)),
            Err(error) => self.fail(ErrorMessage::from(&error)),
        }
    }

    /// Tells the peer what is wrong and closes.
    pub fn fail(&mut self, error: ErrorMessage) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        let reason = error.text.clone();
        let code = error.code;
        if let Ok(bytes) = encode(&EdgeMessage::Error(error)) {
            self.events.push_back(Event::Send(bytes));
        }
        self.close(code, reason);
    }

    fn close(&mut self, code: ErrorCode, reason: String) {
        self.phase = Phase::Closed;
        self.assembly = None;
        self.events.push_back(Event::Close { reason, code });
    }

    fn handle_message(
        &mut self,
        message: AgentMessage,
        frame: &FrameBytes,
        shared: &Shared,
        now: Instant,
    ) -> Result<(), ErrorMessage> {
        if let AgentMessage::Error(error) = message {
            self.close(error.code, format!("the agent says: {}", printable(&error.text)));
            return Ok(());
        }
        match (std::mem::replace(&mut self.phase, Phase::Open), message) {
            (Phase::Hello, AgentMessage::Hello(hello)) => self.hello(hello, frame),
            (
                Phase::Proof {
                    agent,
                    software,
                    transcript,
                },
                AgentMessage::Proof(proof),
            ) => {
                self.prove(&proof, shared.tokens.of(&agent), &transcript, shared, now)?;
                self.events.push_back(Event::Opened { agent, software });
                Ok(())
            }
            (Phase::Open, AgentMessage::Snapshot(part)) => self.snapshot(part, frame.as_slice().len()),
            (Phase::Open, AgentMessage::Delta(delta)) => self.delta(delta),
            (Phase::Open, AgentMessage::Heartbeat(_)) => Ok(()),
            (phase, message) => {
                let text = format!("{} does not belong here", name(&message));
                self.phase = phase;
                Err(ErrorMessage::new(ErrorCode::Malformed, &text))
            }
        }
    }

    fn hello(&mut self, hello: Hello, frame: &FrameBytes) -> Result<(), ErrorMessage> {
        let Hello {
            min_version,
            max_version,
            agent,
            nonce: _,
            software,
            capabilities: _,
        } = hello;
        let version = negotiate(min_version, max_version).map_err(|error| ErrorMessage::from(&error))?;
        if !is_dns_label(&agent) {
            return Err(ErrorMessage::new(
                ErrorCode::AgentName,
                &format!(
                    "the agent's name \"{}\" is not a DNS label (a-z, 0-9 and '-'); set AGENT_NAME",
                    shorten(&agent)
                ),
            ));
        }
        let challenge = EdgeMessage::Challenge(Challenge {
            version,
            nonce: self.nonce,
        });
        let bytes = encode(&challenge).map_err(|error| ErrorMessage::from(&error))?;
        self.phase = Phase::Proof {
            agent,
            software: shorten(&printable(&software)),
            transcript: Transcript::new(frame.as_slice(), &bytes),
        };
        self.events.push_back(Event::Send(bytes));
        Ok(())
    }

    fn prove(
        &mut self,
        proof: &Proof,
        token: Option<&Token>,
        transcript: &Transcript,
        shared: &Shared,
        now: Instant,
    ) -> Result<(), ErrorMessage> {
        // An unknown name and a wrong proof sound alike: names are not to be tried out.
        let wrong = |error: &AuthError| ErrorMessage::from(error);
        let token = token.ok_or_else(|| wrong(&AuthError::WrongProof))?;
        token
            .verify_agent(transcript, &proof.mac)
            .map_err(|error| wrong(&error))?;
        self.decoder.set_limit(exposer_common::proto::MAX_FRAME);
        self.told = now;
        self.send(&EdgeMessage::Welcome(Welcome {
            mac: token.prove_edge(transcript, &proof.mac),
            software: concat!("exposer-edge ", env!("CARGO_PKG_VERSION")).into(),
            public_addresses: shared.public_addresses.clone(),
            capabilities: Vec::new(),
        }));
        Ok(())
    }

    /// The first snapshot of a connection may have any epoch and revision: the nonces have proven that it is fresh, and
    /// it replaces everything. After it, revisions of one epoch only rise.
    fn snapshot(&mut self, part: Snapshot, bytes: usize) -> Result<(), ErrorMessage> {
        if let Some((epoch, revision)) = self.position
            && part.epoch == epoch
            && part.revision <= revision
        {
            return Err(out_of_order(
                "snapshot",
                part.epoch,
                part.revision,
                epoch,
                revision,
            ));
        }
        match Assembly::add(self.assembly.take(), part, bytes)? {
            Err(unfinished) => self.assembly = Some(unfinished),
            Ok(whole) => {
                self.position = Some((whole.epoch, whole.revision));
                self.events.push_back(Event::Snapshot(whole));
            }
        }
        Ok(())
    }

    fn delta(&mut self, delta: Delta) -> Result<(), ErrorMessage> {
        let Delta {
            epoch,
            revision,
            changes,
        } = delta;
        let Some(position) = self.position.filter(|_| self.assembly.is_none()) else {
            return Err(ErrorMessage::new(
                ErrorCode::OutOfOrder,
                "a delta came before the snapshot was complete",
            ));
        };
        if (epoch, Some(revision)) != (position.0, position.1.checked_add(1)) {
            return Err(out_of_order("delta", epoch, revision, position.0, position.1));
        }
        self.position = Some((epoch, revision));
        self.events.push_back(Event::Delta {
            epoch,
            revision,
            changes,
        });
        Ok(())
    }
}

fn after(instant: Instant, duration: Duration) -> Instant {
    instant.checked_add(duration).unwrap_or(instant)
}

fn out_of_order(what: &str, epoch: u64, revision: u64, last_epoch: u64, last: u64) -> ErrorMessage {
    ErrorMessage::new(
        ErrorCode::OutOfOrder,
        &format!(
            "{what} {epoch:x}/{revision} does not follow {last_epoch:x}/{last}; connect again and send a snapshot"
        ),
    )
}

const fn name(message: &AgentMessage) -> &'static str {
    match message {
        AgentMessage::Hello(_) => "Hello",
        AgentMessage::Proof(_) => "Proof",
        AgentMessage::Snapshot(_) => "Snapshot",
        AgentMessage::Delta(_) => "Delta",
        AgentMessage::Heartbeat(_) => "Heartbeat",
        AgentMessage::Error(_) => "Error",
    }
}
