//! The session against a scripted edge, without sockets and clocks: every step of the conversation, and every way in
//! which it can go wrong.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::script::{self, Edge, desired, id, record, token};
use exposer_agent::desired::Desired;
use exposer_agent::edge_client::backoff::Pace;
use exposer_agent::edge_client::ending::Ending;
use exposer_agent::edge_client::session::{Event, Identity, SLOW_ACK, Session};
use exposer_agent::edge_client::sync::{Position, WINDOW};
use exposer_common::proto::auth::{AuthError, Token};
use exposer_common::proto::codec::encode;
use exposer_common::proto::error::CodecError;
use exposer_common::proto::message::{
    Ack, AgentMessage, Challenge, Change, EdgeMessage, ErrorCode, ErrorMessage, Heartbeat, ServiceOutcome,
    Welcome,
};
use exposer_common::proto::{DEAD_AFTER, HANDSHAKE_TIMEOUT, HEARTBEAT};
use proptest::prelude::*;

const SYNC: Duration = Duration::from_secs(20);

/// A session, the edge that it talks to, and what it reported.
struct Talk {
    session: Session,
    edge: Edge,
    now: Instant,
    welcomed: bool,
    outcomes: Vec<ServiceOutcome>,
    settled: Vec<(u64, usize)>,
    slow: Vec<u64>,
    disagreed: Vec<String>,
    ending: Option<Ending>,
}

impl Talk {
    fn at(position: Position) -> Self {
        let now = Instant::now();
        let identity = Identity {
            agent: "home".into(),
            sync_interval: SYNC,
        };
        let mut talk = Self {
            session: Session::new(&identity, token(), [7; 32], position, now),
            edge: Edge::new(token()),
            now,
            welcomed: false,
            outcomes: vec![],
            settled: vec![],
            slow: vec![],
            disagreed: vec![],
            ending: None,
        };
        talk.settle_events();
        talk
    }

    fn new() -> Self {
        Self::at(Position {
            epoch: 99,
            revision: 0,
        })
    }

    /// Both sides proven.
    fn open() -> Self {
        let mut talk = Self::new();
        talk.shake_hands();
        assert!(talk.welcomed);
        talk.edge.drain();
        talk
    }

    fn shake_hands(&mut self) {
        let challenge = self.edge.challenge();
        self.say(&challenge);
        let welcome = self.edge.welcome();
        self.say(&welcome);
    }

    fn settle_events(&mut self) {
        while let Some(event) = self.session.next_event() {
            assert!(self.ending.is_none(), "{event:?} after the end");
            match event {
                Event::Send(bytes) => self.edge.take(&bytes),
                Event::Welcomed {
                    software,
                    public_addresses,
                } => {
                    assert_eq!((software.as_str(), public_addresses.len()), ("scripted edge", 1));
                    self.welcomed = true;
                }
                Event::Outcomes(outcomes) => self.outcomes.extend(outcomes),
                Event::Settled { revision, services } => self.settled.push((revision, services)),
                Event::Slow { revision, waited } => {
                    assert!(waited >= SLOW_ACK);
                    self.slow.push(revision);
                }
                Event::Disagreed(disagreement) => self.disagreed.push(disagreement.to_string()),
                Event::Close(ending) => self.ending = Some(ending),
            }
        }
    }

    fn say(&mut self, bytes: &[u8]) {
        self.session.handle_bytes(bytes, self.now);
        self.settle_events();
    }

    fn tell(&mut self, message: &EdgeMessage) {
        self.say(&encode(message).unwrap());
    }

    fn want(&mut self, services: &[(&str, u16)]) {
        self.session.set_desired(desired(services), self.now);
        self.settle_events();
    }

    fn ack(&mut self) {
        let ack = self.edge.ack();
        self.say(&ack);
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.session.handle_timeout(self.now);
        self.settle_events();
    }

    fn eof(&mut self) {
        self.session.handle_eof();
        self.settle_events();
    }

    fn end(&self) -> &Ending {
        self.ending
            .as_ref()
            .unwrap_or_else(|| panic!("the session goes on"))
    }

    /// The kinds of the messages since the last look.
    fn kinds(&mut self) -> Vec<&'static str> {
        self.edge
            .drain()
            .iter()
            .map(|message| match message {
                AgentMessage::Hello(_) => "hello",
                AgentMessage::Proof(_) => "proof",
                AgentMessage::Snapshot(_) => "snapshot",
                AgentMessage::Delta(_) => "delta",
                AgentMessage::Heartbeat(_) => "heartbeat",
                AgentMessage::Error(_) => "error",
            })
            .collect()
    }

    /// The last error that the agent told the edge.
    fn told(&mut self) -> Option<ErrorMessage> {
        match self.edge.drain().pop() {
            Some(AgentMessage::Error(error)) => Some(error),
            _ => None,
        }
    }
}

#[test]
fn from_hello_to_an_acknowledged_service() {
    let mut talk = Talk::new();
    assert_eq!(talk.kinds(), ["hello"]);
    talk.want(&[("web", 80), ("game", 25_565)]);
    assert_eq!(talk.kinds(), [""; 0], "nothing leaves before the proof");
    let challenge = talk.edge.challenge();
    talk.say(&challenge);
    let welcome = talk.edge.welcome();
    assert_eq!(talk.kinds(), ["proof"]);
    talk.say(&welcome);
    assert_eq!(talk.kinds(), ["snapshot"]);
    assert_eq!(talk.edge.services.len(), 2);
    talk.ack();
    assert_eq!(talk.outcomes.len(), 2);
    assert_eq!(talk.settled, [(1, 2)]);

    talk.want(&[("web", 8_080), ("mail", 25)]);
    let messages = talk.edge.drain();
    let [AgentMessage::Delta(delta)] = &messages[..] else {
        panic!("{messages:?}")
    };
    assert_eq!((delta.epoch, delta.revision), (99, 2));
    assert_eq!(
        delta.changes,
        [
            Change::Delete(id("game")),
            Change::Update(record("mail", 25)),
            Change::Update(record("web", 8_080))
        ],
        "deletions first, then what changed"
    );
    talk.ack();
    assert_eq!(talk.settled, [(1, 2), (2, 2)]);
    assert!(talk.ending.is_none() && talk.disagreed.is_empty());
}

#[test]
fn nothing_is_sent_before_the_cluster_is_read() {
    let mut talk = Talk::open();
    talk.wait(HEARTBEAT);
    assert_eq!(talk.kinds(), ["heartbeat"]);
    talk.want(&[]);
    let messages = talk.edge.drain();
    let [AgentMessage::Snapshot(snapshot)] = &messages[..] else {
        panic!("{messages:?}")
    };
    assert!(
        snapshot.last && snapshot.services.is_empty(),
        "an empty cluster is a snapshot too"
    );
}

#[test]
fn what_did_not_change_is_not_sent() {
    let mut talk = Talk::open();
    talk.want(&[("web", 80)]);
    talk.ack();
    talk.edge.drain();
    // The same content in another allocation.
    talk.want(&[("web", 80)]);
    assert_eq!(talk.kinds(), [""; 0]);
    talk.want(&[("web", 81)]);
    talk.ack();
    assert_eq!(
        talk.settled.last(),
        Some(&(2, 1)),
        "no revision was spent on nothing"
    );
}

#[test]
fn a_full_window_makes_changes_coalesce() {
    let mut talk = Talk::open();
    for port in 1..=100 {
        talk.want(&[("web", port)]);
    }
    assert_eq!(
        talk.kinds(),
        ["snapshot", "delta", "delta", "delta"],
        "a window of {WINDOW}"
    );
    talk.ack();
    let messages = talk.edge.drain();
    let [AgentMessage::Delta(delta)] = &messages[..] else {
        panic!("{messages:?}")
    };
    assert_eq!(
        delta.changes,
        [Change::Update(record("web", 100))],
        "96 changes became one"
    );
    talk.ack();
    assert_eq!(talk.settled, [(5, 1)]);

    // What came and went while the window was full is not mentioned at all.
    for port in 1..=3 {
        talk.want(&[("web", port)]);
    }
    talk.want(&[("web", 4)]);
    talk.want(&[("web", 4), ("short-lived", 9)]);
    talk.want(&[("web", 4)]);
    talk.edge.drain();
    talk.ack();
    assert_eq!(talk.kinds(), [""; 0]);
    assert_eq!(talk.settled.last(), Some(&(9, 1)));
}

#[test]
fn an_acknowledgement_covers_the_messages_before_it() {
    let mut talk = Talk::open();
    for port in 1..=4 {
        talk.want(&[("web", port)]);
    }
    let early = Ack {
        epoch: 99,
        revision: 2,
        outcomes: vec![],
    };
    talk.tell(&EdgeMessage::Ack(early));
    assert_eq!(talk.settled, []);
    talk.ack();
    assert_eq!(talk.settled, [(4, 1)]);
    // An outcome that changes by itself comes as an acknowledgement of the same revision.
    let again = Ack {
        epoch: 99,
        revision: 4,
        outcomes: vec![script::outcome(&id("web"), 30_000)],
    };
    talk.tell(&EdgeMessage::Ack(again));
    assert_eq!(talk.outcomes.last().unwrap().ports[0].public_port, Some(30_000));
    assert_eq!(talk.settled.len(), 1, "said once");
}

#[test]
fn a_large_cluster_goes_in_parts_of_one_revision() {
    let mut talk = Talk::open();
    let services = (0..12_000)
        .map(|number| format!("service-{number}"))
        .map(|name| (id(&name), record(&name, 80)))
        .collect();
    let all = Arc::new(Desired { services });
    talk.session.set_desired(Arc::clone(&all), talk.now);
    talk.settle_events();
    assert!(talk.kinds().len() > 2);
    assert_eq!(talk.edge.services, all.services);
    assert_eq!(talk.edge.position, (99, 1));
    talk.want(&[("web", 80)]);
    assert_eq!(
        talk.kinds().len(),
        3,
        "12,000 deletions in deltas of at most 4,096"
    );
    assert_eq!(talk.edge.services.len(), 1);
}

#[test]
fn an_edge_that_confirms_what_was_never_sent_gets_everything_again() {
    for (epoch, revision) in [(99, 2), (98, 1), (0, 0)] {
        let mut talk = Talk::open();
        talk.want(&[("web", 80)]);
        talk.edge.drain();
        talk.tell(&EdgeMessage::Ack(Ack {
            epoch,
            revision,
            outcomes: vec![],
        }));
        assert_eq!(talk.kinds(), ["snapshot"], "after {epoch}/{revision}");
        assert_eq!(talk.edge.position, (99, 2));
        assert!(talk.disagreed[0].contains("never sent"), "{:?}", talk.disagreed);
        talk.ack();
        assert_eq!(talk.settled, [(2, 1)]);
    }
}

#[test]
fn an_edge_that_keeps_silent_about_a_service_gets_everything_again() {
    let mut talk = Talk::open();
    talk.want(&[("mail", 25), ("web", 80)]);
    talk.edge.drain();
    let partial = Ack {
        epoch: 99,
        revision: 1,
        outcomes: vec![script::outcome(&id("mail"), 25)],
    };
    talk.tell(&EdgeMessage::Ack(partial));
    assert_eq!(talk.kinds(), [""; 0], "the rest may still come");
    talk.wait(SYNC);
    assert_eq!(talk.kinds(), ["snapshot"]);
    assert!(talk.disagreed[0].contains("default/web"), "{:?}", talk.disagreed);
    talk.ack();
    talk.wait(SYNC);
    assert_eq!(talk.disagreed.len(), 1);
    assert_eq!(talk.kinds(), [""; 0]);
}

#[test]
fn an_edge_that_acknowledges_slowly_is_reported_once() {
    let mut talk = Talk::open();
    talk.want(&[("web", 80)]);
    for _ in 0..6 {
        talk.wait(SYNC);
        talk.tell(&EdgeMessage::Heartbeat(Heartbeat { revision: 0 }));
    }
    assert_eq!(talk.slow, [1]);
    assert!(talk.ending.is_none(), "it lives");
}

#[test]
fn heartbeats_and_a_dead_peer() {
    let mut talk = Talk::open();
    talk.want(&[("web", 80)]);
    talk.ack();
    talk.edge.drain();
    talk.wait(HEARTBEAT.checked_sub(Duration::from_millis(1)).unwrap());
    assert_eq!(talk.kinds(), [""; 0]);
    talk.wait(Duration::from_millis(1));
    assert_eq!(
        talk.edge.read,
        [AgentMessage::Heartbeat(Heartbeat { revision: 1 })]
    );
    talk.wait(DEAD_AFTER - HEARTBEAT - Duration::from_millis(1));
    assert!(talk.ending.is_none());
    // Bytes that are no message are no sign of life.
    talk.say(&[0, 0]);
    talk.wait(Duration::from_millis(1));
    assert!(matches!(talk.end(), Ending::Silent));
    assert_eq!(talk.end().pace(), Pace::Quick);
    assert_eq!(talk.told().unwrap().code, ErrorCode::Timeout);
    assert_eq!(talk.session.poll_timeout(), None);

    let mut talk = Talk::open();
    for _ in 0..10 {
        talk.wait(HEARTBEAT);
        talk.tell(&EdgeMessage::Heartbeat(Heartbeat { revision: 0 }));
    }
    assert!(talk.ending.is_none(), "a peer with a pulse lives");
}

/// The owner sleeps until `poll_timeout`: it must never lie in the past after a timeout was handled.
#[test]
fn timeouts_always_move_on() {
    let mut talk = Talk::open();
    talk.want(&[("web", 80)]);
    for _ in 0..50 {
        let Some(due) = talk.session.poll_timeout() else {
            break;
        };
        assert!(due > talk.now, "a busy loop");
        talk.now = due;
        talk.session.handle_timeout(talk.now);
        talk.settle_events();
    }
    assert!(matches!(talk.end(), Ending::Silent));
}

#[test]
fn a_handshake_that_takes_too_long() {
    for challenged in [false, true] {
        let mut talk = Talk::new();
        if challenged {
            let challenge = talk.edge.challenge();
            talk.say(&challenge);
        }
        talk.wait(HANDSHAKE_TIMEOUT - Duration::from_millis(1));
        assert!(talk.ending.is_none());
        talk.wait(Duration::from_millis(1));
        assert!(matches!(talk.end(), Ending::Handshake));
    }
}

fn assert_unproven(mut talk: Talk) {
    assert!(
        matches!(talk.end(), Ending::Auth(AuthError::WrongProof)),
        "{:?}",
        talk.ending
    );
    assert_eq!(talk.end().pace(), Pace::Slow);
    assert!(talk.end().needs_somebody());
    assert!(
        !talk.welcomed && talk.edge.services.is_empty(),
        "a Service was told to a stranger"
    );
    let text = talk.told().unwrap().text;
    assert!(
        text.contains("same token") && !text.contains(script::TOKEN),
        "{text}"
    );
}

#[test]
fn an_edge_with_another_token_learns_nothing() {
    let mut talk = Talk::new();
    talk.want(&[("web", 80)]);
    let challenge = talk.edge.challenge();
    talk.say(&challenge);
    let Some(AgentMessage::Proof(proof)) = talk.edge.read.last().cloned() else {
        panic!()
    };
    let other = Token::from_bytes(b"another-token-0123456789abcdefghijk").unwrap();
    let mac = other.prove_edge(&talk.edge.transcript(), &proof.mac);
    talk.tell(&EdgeMessage::Welcome(Welcome {
        mac,
        software: "scripted edge".into(),
        public_addresses: vec![],
        capabilities: vec![],
    }));
    assert_unproven(talk);
}

#[test]
fn an_edge_that_sends_our_own_proof_back_learns_nothing() {
    let mut talk = Talk::new();
    talk.want(&[("web", 80)]);
    let challenge = talk.edge.challenge();
    talk.say(&challenge);
    let Some(AgentMessage::Proof(proof)) = talk.edge.read.last().cloned() else {
        panic!()
    };
    talk.tell(&EdgeMessage::Welcome(Welcome {
        mac: proof.mac,
        software: "mirror".into(),
        public_addresses: vec![],
        capabilities: vec![],
    }));
    assert_unproven(talk);
}

#[test]
fn a_version_that_was_not_offered() {
    for version in [0, 2, u16::MAX] {
        let mut talk = Talk::new();
        talk.tell(&EdgeMessage::Challenge(Challenge {
            version,
            nonce: [1; 32],
        }));
        assert!(matches!(talk.end(), Ending::Version(_)));
        assert_eq!(talk.end().pace(), Pace::Slow);
        assert_eq!(talk.told().unwrap().code, ErrorCode::Version);
    }
}

#[test]
fn what_the_edge_says_is_repeated_and_decides_the_pace() {
    let table = [
        (ErrorCode::Malformed, Pace::Slow),
        (ErrorCode::FrameTooLarge, Pace::Slow),
        (ErrorCode::Version, Pace::Slow),
        (ErrorCode::Unauthenticated, Pace::Slow),
        (ErrorCode::AgentName, Pace::Slow),
        (ErrorCode::OutOfOrder, Pace::Quick),
        (ErrorCode::Limit, Pace::Slow),
        (ErrorCode::Timeout, Pace::Quick),
        (ErrorCode::Replaced, Pace::Slow),
        (ErrorCode::ShuttingDown, Pace::Quick),
    ];
    for (code, pace) in table {
        for open in [false, true] {
            let mut talk = if open { Talk::open() } else { Talk::new() };
            talk.edge.drain();
            talk.tell(&EdgeMessage::Error(ErrorMessage {
                code,
                text: "the\nreason".into(),
            }));
            assert_eq!(
                talk.end().to_string(),
                format!("the edge says: the reason ({code})")
            );
            assert_eq!(talk.end().pace(), pace, "{code}");
            assert_eq!(talk.told(), None, "nobody answers an error");
        }
    }
}

#[test]
fn messages_that_do_not_belong() {
    let welcome = EdgeMessage::Welcome(Welcome {
        mac: [0; 32],
        software: String::new(),
        public_addresses: vec![],
        capabilities: vec![],
    });
    let challenge = EdgeMessage::Challenge(Challenge {
        version: 1,
        nonce: [0; 32],
    });
    let ack = EdgeMessage::Ack(Ack {
        epoch: 99,
        revision: 0,
        outcomes: vec![],
    });
    let heartbeat = EdgeMessage::Heartbeat(Heartbeat { revision: 0 });
    for message in [&welcome, &ack, &heartbeat] {
        let mut talk = Talk::new();
        talk.tell(message);
        assert!(matches!(talk.end(), Ending::Unexpected(_)), "{message:?} first");
        assert_eq!(talk.told().unwrap().code, ErrorCode::Malformed);
    }
    for message in [&challenge, &ack, &heartbeat] {
        let mut talk = Talk::new();
        talk.tell(&challenge);
        talk.tell(message);
        assert!(
            matches!(talk.end(), Ending::Unexpected(_)),
            "{message:?} after the challenge"
        );
    }
    for message in [&challenge, &welcome] {
        let mut talk = Talk::open();
        talk.tell(message);
        assert!(matches!(talk.end(), Ending::Unexpected(_)), "{message:?} later");
    }
}

#[test]
fn bytes_that_are_no_protocol() {
    let mut talk = Talk::new();
    talk.say(b"HTTP/1.1 400 Bad Request\r\n");
    assert!(matches!(
        talk.end(),
        Ending::Codec(CodecError::OtherProtocol("HTTP"))
    ));
    assert!(
        talk.end().to_string().contains("EXPOSER_LISTEN_ADDR"),
        "{}",
        talk.end()
    );
    assert_eq!(
        (talk.end().pace(), talk.end().needs_somebody()),
        (Pace::Slow, true)
    );

    let mut talk = Talk::new();
    talk.say(&4_097_u32.to_be_bytes());
    assert!(
        matches!(
            talk.end(),
            Ending::Codec(CodecError::TooLarge { limit: 4_096, .. })
        ),
        "before the proof"
    );
    assert_eq!(talk.told().unwrap().code, ErrorCode::FrameTooLarge);

    let mut talk = Talk::open();
    talk.say(&(1_048_577_u32).to_be_bytes());
    assert!(
        matches!(
            talk.end(),
            Ending::Codec(CodecError::TooLarge { limit: 1_048_576, .. })
        ),
        "after it"
    );

    let mut talk = Talk::open();
    talk.say(&[0, 0, 0, 3, 9, 9, 9]);
    assert!(matches!(talk.end(), Ending::Codec(CodecError::Malformed { .. })));
    // Bytes after the end change nothing.
    talk.say(&[0; 100]);
    talk.wait(DEAD_AFTER);
    talk.eof();
    talk.want(&[("web", 80)]);
    assert_eq!(talk.session.poll_timeout(), None);
}

#[test]
fn a_connection_that_is_cut_at_any_byte_of_the_handshake() {
    let mut whole = Talk::new();
    whole.shake_hands();
    let welcome_length = {
        let mut talk = Talk::new();
        let challenge = talk.edge.challenge();
        talk.say(&challenge);
        talk.edge.welcome().len()
    };
    let challenge_length = whole.edge.challenge().len();
    for cut in 0..challenge_length + welcome_length {
        let mut talk = Talk::new();
        talk.want(&[("web", 80)]);
        let challenge = talk.edge.challenge();
        talk.say(&challenge[..cut.min(challenge_length)]);
        if let Some(rest) = cut.checked_sub(challenge_length) {
            let welcome = talk.edge.welcome();
            talk.say(&welcome[..rest]);
        }
        talk.eof();
        let clean = cut == 0 || cut == challenge_length;
        match talk.end() {
            Ending::Closed if clean => {}
            Ending::Codec(CodecError::Cut { .. }) if !clean => {}
            other => panic!("cut after {cut} bytes: {other:?}"),
        }
        assert_eq!(talk.end().pace(), Pace::Quick);
        assert!(
            !talk.welcomed && talk.edge.services.is_empty(),
            "cut after {cut} bytes"
        );
    }
}

#[test]
fn a_handshake_byte_by_byte() {
    let mut talk = Talk::new();
    talk.want(&[("web", 80)]);
    for byte in talk.edge.challenge() {
        talk.say(&[byte]);
    }
    for byte in talk.edge.welcome() {
        talk.say(&[byte]);
    }
    assert!(talk.welcomed);
    for byte in talk.edge.ack() {
        talk.say(&[byte]);
    }
    assert_eq!(talk.settled, [(1, 1)]);
}

/// Who changes any byte of the challenge or of the edge's proof on the way is found out.
#[test]
fn a_handshake_with_any_byte_changed() {
    let challenge_length = Talk::new().edge.challenge().len();
    for at in 0..challenge_length + 5 + 32 {
        let mut talk = Talk::new();
        talk.want(&[("web", 80)]);
        let mut challenge = talk.edge.challenge();
        if let Some(byte) = challenge.get_mut(at) {
            *byte ^= 0x40;
        }
        talk.say(&challenge);
        if talk.ending.is_none() && matches!(talk.edge.read.last(), Some(AgentMessage::Proof(_))) {
            let Some(AgentMessage::Proof(proof)) = talk.edge.read.last().cloned() else {
                panic!()
            };
            let honest = token().verify_agent(&talk.edge.transcript(), &proof.mac);
            assert_eq!(
                honest.is_err(),
                at < challenge_length,
                "the edge notices a changed challenge, byte {at}"
            );
            // An edge that went on regardless would still not be believed.
            let mac = token().prove_edge(&talk.edge.transcript(), &proof.mac);
            let welcome = EdgeMessage::Welcome(Welcome {
                mac,
                software: "scripted edge".into(),
                public_addresses: vec![],
                capabilities: vec![],
            });
            let mut welcome = encode(&welcome).unwrap();
            if let Some(byte) = at
                .checked_sub(challenge_length)
                .and_then(|at| welcome.get_mut(at))
            {
                *byte ^= 0x40;
            }
            talk.say(&welcome);
        }
        talk.eof();
        assert!(!talk.welcomed && talk.edge.services.is_empty(), "byte {at}");
    }
}

#[test]
fn the_next_session_goes_on_counting_and_begins_with_a_snapshot() {
    let mut first = Talk::open();
    first.want(&[("web", 80)]);
    first.want(&[("web", 81)]);
    first.eof();
    assert!(matches!(first.end(), Ending::Closed));
    let position = first.session.position();
    assert_eq!(
        position,
        Position {
            epoch: 99,
            revision: 2
        }
    );
    let mut second = Talk::at(position);
    second.want(&[("web", 81)]);
    second.shake_hands();
    assert_eq!(second.kinds(), ["hello", "proof", "snapshot"]);
    assert_eq!(second.edge.position, (99, 3));
}

#[test]
fn the_agent_says_goodbye() {
    let mut talk = Talk::open();
    talk.want(&[("web", 80)]);
    talk.edge.drain();
    talk.session.shut_down();
    talk.settle_events();
    assert!(matches!(talk.end(), Ending::ShuttingDown));
    assert_eq!(talk.told().unwrap().code, ErrorCode::ShuttingDown);
    assert_eq!(talk.edge.services.len(), 1, "nothing is taken back");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever changes and whenever the edge acknowledges: in the end it has exactly what is wanted, and never more
    /// than a window of messages was under way.
    #[test]
    fn the_edge_converges(steps in proptest::collection::vec((0_u8..4, 0_usize..5, 1_u16..4), 1..60)) {
        const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
        let mut talk = Talk::open();
        let mut wanted: std::collections::BTreeMap<&str, u16> = std::collections::BTreeMap::new();
        let mut acknowledged = 0;
        for (what, name, port) in steps {
            match what {
                0 => drop(wanted.insert(NAMES[name], port)),
                1 => drop(wanted.remove(NAMES[name])),
                2 => {
                    if talk.edge.position.1 > acknowledged {
                        acknowledged = talk.edge.position.1;
                        talk.ack();
                    }
                }
                _ => talk.wait(Duration::from_secs(1)),
            }
            let list: Vec<_> = wanted.iter().map(|(name, port)| (*name, *port)).collect();
            talk.want(&list);
            prop_assert!(talk.edge.position.1 - acknowledged <= WINDOW as u64);
        }
        while talk.edge.position.1 > acknowledged {
            acknowledged = talk.edge.position.1;
            talk.ack();
        }
        let expected: Vec<_> = wanted.iter().map(|(name, port)| record(name, *port)).collect();
        prop_assert_eq!(talk.edge.services.values().cloned().collect::<Vec<_>>(), expected);
        talk.wait(SYNC);
        prop_assert!(talk.disagreed.is_empty() && talk.ending.is_none());
    }

    /// A stranger's bytes never make a proven edge, and never make a panic.
    #[test]
    fn noise(bytes in proptest::collection::vec(any::<u8>(), 0..600), split in 1_usize..100) {
        let mut talk = Talk::new();
        talk.want(&[("web", 80)]);
        for piece in bytes.chunks(split) {
            talk.say(piece);
        }
        talk.eof();
        prop_assert!(!talk.welcomed && talk.edge.services.is_empty());
    }
}
