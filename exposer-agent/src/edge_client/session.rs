//! One session with one edge: bytes and time in, bytes and events out.
//!
//! ```text
//! Hello ─► Challenge ─► (version) ─► Proof ─► Welcome ─► (edge's proof) ─► Snapshot, Delta … ◄─ Ack, Heartbeat
//! ```
//!
//! No Service leaves before the edge has proven that it holds the token. Whatever does not fit ends the session with an
//! [`Ending`], told to the edge where that helps.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use exposer_common::model::shorten;
use exposer_common::proto::auth::{Token, Transcript, accept_version};
use exposer_common::proto::codec::{FrameBytes, FrameDecoder, encode};
use exposer_common::proto::error::printable;
use exposer_common::proto::message::{
    Ack, AgentMessage, Challenge, EdgeMessage, Heartbeat, Hello, MAC, NONCE, Proof, Welcome,
};
use exposer_common::proto::{
    DEAD_AFTER, HANDSHAKE_TIMEOUT, HEARTBEAT, MAX_FRAME, MAX_HANDSHAKE_FRAME, MAX_VERSION, MIN_VERSION,
};

use super::ending::Ending;
pub use super::event::{Event, Identity};
use super::sync::{Disagreement, Position, Sync};
use crate::desired::Desired;

/// An edge that takes longer to acknowledge is reported.
pub const SLOW_ACK: Duration = Duration::from_secs(30);

#[derive(Debug)]
enum Phase {
    /// Hello is sent.
    Challenge {
        hello_frame: Vec<u8>,
    },
    /// Proof is sent.
    Welcome {
        transcript: Transcript,
        mac: [u8; MAC],
    },
    /// Both are proven.
    Open,
    Closed,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Session {
    phase: Phase,
    token: Token,
    decoder: FrameDecoder,
    sync: Sync,
    sync_interval: Duration,
    opened: Instant,
    heard: Instant,
    told: Instant,
    reviewed: Instant,
    /// The last revision that was reported as slow, and as settled.
    slow: u64,
    settled: Option<u64>,
    services: usize,
    events: VecDeque<Event>,
}

impl Session {
    /// A connection that was just made. `nonce` is fresh and random; `position` is where the last session ended.
    #[must_use]
    pub fn new(
        identity: &Identity,
        token: Token,
        nonce: [u8; NONCE],
        position: Position,
        now: Instant,
    ) -> Self {
        let mut session = Self {
            phase: Phase::Closed,
            token,
            decoder: FrameDecoder::with_limit(MAX_HANDSHAKE_FRAME),
            sync: Sync::new(position),
            sync_interval: identity.sync_interval.max(Duration::from_secs(1)),
            opened: now,
            heard: now,
            told: now,
            reviewed: now,
            slow: 0,
            settled: None,
            services: 0,
            events: VecDeque::new(),
        };
        let hello = AgentMessage::Hello(Hello {
            min_version: MIN_VERSION,
            max_version: MAX_VERSION,
            agent: identity.agent.clone(),
            nonce,
            software: concat!("exposer-agent ", env!("CARGO_PKG_VERSION")).to_owned(),
            capabilities: Vec::new(),
        });
        match encode(&hello) {
            Ok(hello_frame) => {
                session.events.push_back(Event::Send(hello_frame.clone()));
                session.phase = Phase::Challenge { hello_frame };
            }
            Err(error) => session.events.push_back(Event::Close(error.into())),
        }
        session
    }

    /// Takes what the edge wrote, cut anywhere.
    pub fn handle_bytes(&mut self, bytes: &[u8], now: Instant) {
        self.decoder.push(bytes);
        while !self.is_closed() {
            let step = match self.decoder.next::<EdgeMessage>() {
                Ok(None) => break,
                Ok(Some((message, frame))) => {
                    self.heard = now;
                    self.handle_message(message, &frame, now)
                }
                Err(error) => Err(error.into()),
            };
            if let Err(ending) = step {
                self.end(ending);
            }
        }
        self.advance(now);
    }

    /// The edge has closed its side.
    pub fn handle_eof(&mut self) {
        let ending = self.decoder.finish().err().map_or(Ending::Closed, Ending::Codec);
        self.end(ending);
    }

    /// Does what is due: ends a handshake that takes too long or an edge that is silent, sends heartbeats, compares.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.phase {
            Phase::Closed => {}
            Phase::Challenge { .. } | Phase::Welcome { .. } => {
                if now >= after(self.opened, HANDSHAKE_TIMEOUT) {
                    self.end(Ending::Handshake);
                }
            }
            Phase::Open if now >= after(self.heard, DEAD_AFTER) => self.end(Ending::Silent),
            Phase::Open => {
                if now >= after(self.told, HEARTBEAT) {
                    let revision = self.sync.position().revision;
                    self.send(&AgentMessage::Heartbeat(Heartbeat { revision }), now);
                }
                if now >= after(self.reviewed, self.sync_interval) {
                    self.review(now);
                }
                self.advance(now);
            }
        }
    }

    /// When [`Self::handle_timeout`] is due; none when the session is closed.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Closed => None,
            Phase::Challenge { .. } | Phase::Welcome { .. } => Some(after(self.opened, HANDSHAKE_TIMEOUT)),
            Phase::Open => Some(
                after(self.heard, DEAD_AFTER)
                    .min(after(self.told, HEARTBEAT))
                    .min(after(self.reviewed, self.sync_interval)),
            ),
        }
    }

    /// What is wanted changed, or was read for the first time.
    pub fn set_desired(&mut self, desired: Arc<Desired>, now: Instant) {
        self.services = desired.services.len();
        self.sync.set_desired(desired);
        self.advance(now);
    }

    /// Ends the session because the agent stops. Services stay up at the edge.
    pub fn shut_down(&mut self) {
        self.end(Ending::ShuttingDown);
    }

    /// What the owner has to do next.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Where the sequence of messages stands, for the next session.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.sync.position()
    }

    const fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    fn handle_message(
        &mut self,
        message: EdgeMessage,
        frame: &FrameBytes,
        now: Instant,
    ) -> Result<(), Ending> {
        if let EdgeMessage::Error(error) = message {
            return Err(Ending::Remote(error));
        }
        match (&self.phase, message) {
            (Phase::Challenge { hello_frame }, EdgeMessage::Challenge(challenge)) => {
                let Challenge { version, nonce: _ } = challenge;
                accept_version(version)?;
                let transcript = Transcript::new(hello_frame, frame.as_slice());
                let mac = self.token.prove_agent(&transcript);
                self.phase = Phase::Welcome { transcript, mac };
                self.send(&AgentMessage::Proof(Proof { mac }), now);
                Ok(())
            }
            (Phase::Welcome { transcript, mac }, EdgeMessage::Welcome(welcome)) => {
                let Welcome {
                    mac: edge_mac,
                    software,
                    public_addresses,
                    capabilities: _,
                } = welcome;
                self.token.verify_edge(transcript, mac, &edge_mac)?;
                self.phase = Phase::Open;
                self.decoder.set_limit(MAX_FRAME);
                (self.told, self.reviewed) = (now, now);
                let software = shorten(&printable(&software));
                self.events.push_back(Event::Welcomed {
                    software,
                    public_addresses,
                });
                Ok(())
            }
            (Phase::Open, EdgeMessage::Ack(ack)) => {
                self.acknowledge(ack);
                Ok(())
            }
            (Phase::Open, EdgeMessage::Heartbeat(_)) => Ok(()),
            (_, message) => Err(Ending::Unexpected(name(&message))),
        }
    }

    fn acknowledge(&mut self, ack: Ack) {
        if let Err(disagreement) = self.sync.acknowledge(&ack) {
            self.disagree(disagreement);
            return;
        }
        if !ack.outcomes.is_empty() {
            self.events.push_back(Event::Outcomes(ack.outcomes));
        }
        let revision = self.sync.position().revision;
        if self.sync.is_settled() && self.settled != Some(revision) {
            self.settled = Some(revision);
            self.events.push_back(Event::Settled {
                revision,
                services: self.services,
            });
        }
    }

    /// The periodic comparison (`SYNC_INTERVAL`).
    fn review(&mut self, now: Instant) {
        self.reviewed = now;
        if let Err(disagreement) = self.sync.review() {
            self.disagree(disagreement);
        }
        if let Some((revision, waited)) = self.sync.waited(now)
            && waited >= SLOW_ACK
            && revision > self.slow
        {
            self.slow = revision;
            self.events.push_back(Event::Slow { revision, waited });
        }
    }

    fn disagree(&mut self, disagreement: Disagreement) {
        self.sync.begin_anew();
        self.events.push_back(Event::Disagreed(disagreement));
    }

    /// Sends what the edge has to be told, if it may be told anything.
    fn advance(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        match self.sync.next_messages(now) {
            Ok(messages) => messages.iter().for_each(|message| self.send(message, now)),
            Err(error) => self.end(error.into()),
        }
    }

    fn send(&mut self, message: &AgentMessage, now: Instant) {
        if self.is_closed() {
            return;
        }
        match encode(message) {
            Ok(bytes) => {
                self.told = now;
                self.events.push_back(Event::Send(bytes));
            }
            Err(error) => self.end(error.into()),
        }
    }

    fn end(&mut self, ending: Ending) {
        if self.is_closed() {
            return;
        }
        self.phase = Phase::Closed;
        if let Some(Ok(bytes)) = ending
            .for_the_edge()
            .map(|error| encode(&AgentMessage::Error(error)))
        {
            self.events.push_back(Event::Send(bytes));
        }
        self.events.push_back(Event::Close(ending));
    }
}

fn after(instant: Instant, duration: Duration) -> Instant {
    instant.checked_add(duration).unwrap_or(instant)
}

const fn name(message: &EdgeMessage) -> &'static str {
    match message {
        EdgeMessage::Challenge(_) => "Challenge",
        EdgeMessage::Welcome(_) => "Welcome",
        EdgeMessage::Ack(_) => "Ack",
        EdgeMessage::Heartbeat(_) => "Heartbeat",
        EdgeMessage::Error(_) => "Error",
    }
}
