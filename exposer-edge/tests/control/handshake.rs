//! Who gets in, and what whoever does not is told.

use std::time::Duration;

use exposer_common::model::ServiceRecord;
use exposer_common::proto::auth::{Token, Transcript};
use exposer_common::proto::codec::{FrameDecoder, encode};
use exposer_common::proto::message::{
    AgentMessage, Delta, EdgeMessage, ErrorCode, Heartbeat, Proof, Snapshot,
};
use exposer_edge::control::core::ConnId;
use exposer_edge::control::limits::Limits;

use super::support::{Agent, Edge, hello, hello_with, id, port, record, token};

/// What the edge wrote to a connection, decoded.
fn heard(edge: &mut Edge, conn: ConnId) -> Vec<EdgeMessage> {
    let mut decoder = FrameDecoder::new();
    decoder.push(&edge.written.remove(&conn).unwrap_or_default());
    std::iter::from_fn(|| decoder.next::<EdgeMessage>().unwrap().map(|(message, _)| message)).collect()
}

fn refused(edge: &mut Edge, conn: ConnId) -> (ErrorCode, String) {
    assert!(edge.closed.contains(&conn), "the connection is still open");
    match heard(edge, conn).pop() {
        Some(EdgeMessage::Error(error)) => (error.code, error.text),
        other => panic!("no error but {other:?}"),
    }
}

fn one_service() -> Vec<ServiceRecord> {
    vec![record("web", 1, vec![port(80, "tcp")])]
}

/// Hello and challenge, up to the transcript.
fn begin(edge: &mut Edge, name: &str) -> (ConnId, Transcript) {
    let conn = edge.accept();
    let frame = hello(name);
    edge.bytes(conn, &frame);
    let challenge = edge.written.remove(&conn).unwrap();
    (conn, Transcript::new(&frame, &challenge))
}

fn proof(token: &Token, transcript: &Transcript) -> Vec<u8> {
    let mac = token.prove_agent(transcript);
    encode(&AgentMessage::Proof(Proof { mac })).unwrap()
}

#[test]
fn a_wrong_token_opens_nothing() {
    let mut edge = Edge::new();
    let (conn, transcript) = begin(&mut edge, "home");
    let wrong = Token::from_bytes(b"another-token-another-token-0123456789").unwrap();
    edge.bytes(conn, &proof(&wrong, &transcript));
    let (code, text) = refused(&mut edge, conn);
    assert_eq!(code, ErrorCode::Unauthenticated);
    assert!(text.contains("EXPOSER_TOKEN_FILE"), "{text}");
}

#[test]
fn a_proof_that_was_heard_before_opens_nothing() {
    let mut edge = Edge::new();
    let (first, transcript) = begin(&mut edge, "home");
    let bytes = proof(&token(), &transcript);
    edge.bytes(first, &bytes);
    assert!(matches!(heard(&mut edge, first)[..], [EdgeMessage::Welcome(_)]));
    let (second, _) = begin(&mut edge, "home");
    edge.bytes(second, &bytes);
    assert_eq!(refused(&mut edge, second).0, ErrorCode::Unauthenticated);
    assert!(
        !edge.closed.contains(&first),
        "the real agent lost its connection"
    );
}

#[test]
fn an_agent_with_its_own_token_is_not_opened_by_the_shared_one() {
    let mut settings = super::support::settings();
    let own = Token::from_bytes(b"cabin-cabin-0123456789-0123456789-abcdef").unwrap();
    settings
        .tokens
        .insert("cabin".into(), own.clone(), Limits::default());
    let core = exposer_edge::control::core::Core::new(settings, Default::default());
    let mut edge = Edge::over(core);
    let (conn, transcript) = begin(&mut edge, "cabin");
    edge.bytes(conn, &proof(&token(), &transcript));
    assert_eq!(refused(&mut edge, conn).0, ErrorCode::Unauthenticated);
    let (conn, transcript) = begin(&mut edge, "cabin");
    edge.bytes(conn, &proof(&own, &transcript));
    assert!(matches!(heard(&mut edge, conn)[..], [EdgeMessage::Welcome(_)]));
}

#[test]
fn versions_and_names_that_do_not_fit_are_refused_in_words() {
    let mut edge = Edge::new();
    for (frame, expected, words) in [
        (
            hello_with("home", 2, 9),
            ErrorCode::Version,
            "no common protocol version",
        ),
        (hello_with("home", 3, 1), ErrorCode::Version, "upside down"),
        (hello("Home!"), ErrorCode::AgentName, "AGENT_NAME"),
        (hello(""), ErrorCode::AgentName, "AGENT_NAME"),
    ] {
        let conn = edge.accept();
        edge.bytes(conn, &frame);
        let (code, text) = refused(&mut edge, conn);
        assert_eq!(code, expected);
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn garbage_is_answered_and_closed() {
    let mut edge = Edge::new();
    for (bytes, expected) in [
        (&b"GET / HTTP/1.1\r\n"[..], ErrorCode::Malformed),
        (&[0, 0, 0, 3, 0xff, 0xff, 0xff][..], ErrorCode::Malformed),
        (&[0, 0, 0, 0][..], ErrorCode::Malformed),
        // Larger than anything that is said before the proof, and than anything at all.
        (&[0, 0, 0x20, 0][..], ErrorCode::FrameTooLarge),
        (&[0x7f, 0xff, 0xff, 0xff][..], ErrorCode::FrameTooLarge),
    ] {
        let conn = edge.accept();
        edge.bytes(conn, bytes);
        assert_eq!(refused(&mut edge, conn).0, expected, "{bytes:?}");
    }
}

#[test]
fn a_large_frame_is_taken_only_after_the_proof() {
    let mut edge = Edge::new();
    let mut agent = Agent::connect(&mut edge, "home");
    let many: Vec<ServiceRecord> = (0..200)
        .map(|n| {
            record(
                &format!("s{n}"),
                n,
                vec![port(u16::try_from(1000 + n).unwrap(), "tcp")],
            )
        })
        .collect();
    assert_eq!(agent.snapshot(&mut edge, many).len(), 200);
    edge.bytes(agent.conn, &[0x00, 0x10, 0x00, 0x01]);
    assert_eq!(agent.error(&mut edge).0, ErrorCode::FrameTooLarge);
}

#[test]
fn messages_out_of_their_place_end_the_connection() {
    let snapshot = AgentMessage::Snapshot(Snapshot {
        epoch: 1,
        revision: 1,
        part: 0,
        last: true,
        services: one_service(),
    });
    let mut edge = Edge::new();
    // Services before the proof.
    let (conn, _) = begin(&mut edge, "home");
    edge.bytes(conn, &encode(&snapshot).unwrap());
    assert_eq!(refused(&mut edge, conn).0, ErrorCode::Malformed);
    let conn = edge.accept();
    edge.bytes(conn, &encode(&snapshot).unwrap());
    assert_eq!(refused(&mut edge, conn).0, ErrorCode::Malformed);
    // A second Hello.
    let mut agent = Agent::connect(&mut edge, "home");
    edge.bytes(agent.conn, &hello("home"));
    assert_eq!(agent.error(&mut edge).0, ErrorCode::Malformed);
    assert!(edge.datapath.calls().is_empty(), "something was published");
}

#[test]
fn the_handshake_has_ten_seconds_and_a_silent_agent_ninety() {
    let mut edge = Edge::new();
    let idle = edge.accept();
    let (slow, _) = begin(&mut edge, "slow");
    let mut agent = Agent::connect(&mut edge, "home");
    edge.pass(Duration::from_millis(9_900));
    assert!(edge.closed.is_empty());
    edge.pass(Duration::from_millis(200));
    assert_eq!(refused(&mut edge, idle).0, ErrorCode::Timeout);
    assert_eq!(refused(&mut edge, slow).0, ErrorCode::Timeout);
    // The edge gives signs of life every 30 s, and takes the agent's.
    for _ in 0..5 {
        edge.pass(Duration::from_secs(30));
        let beats = agent.hear(&mut edge);
        assert!(matches!(beats[..], [EdgeMessage::Heartbeat(_)]), "{beats:?}");
        agent.say(&mut edge, &AgentMessage::Heartbeat(Heartbeat { revision: 0 }));
    }
    edge.pass(Duration::from_secs(91));
    let (code, text) = agent.error(&mut edge);
    assert_eq!(
        (code, text.as_str()),
        (ErrorCode::Timeout, "no sign of life for 90 s")
    );
}

#[test]
fn a_conversation_may_be_cut_anywhere() {
    let mut whole = Edge::new();
    let (conn, transcript) = begin(&mut whole, "home");
    let rest = [
        proof(&token(), &transcript),
        encode(&AgentMessage::Snapshot(Snapshot {
            epoch: 1,
            revision: 1,
            part: 0,
            last: true,
            services: one_service(),
        }))
        .unwrap(),
    ]
    .concat();
    whole.bytes(conn, &rest);
    assert_eq!(whole.served().len(), 1);
    // Byte by byte it comes to the same.
    let mut edge = Edge::new();
    let (conn, _) = begin(&mut edge, "home");
    for byte in &rest {
        edge.bytes(conn, std::slice::from_ref(byte));
    }
    assert_eq!(edge.served(), whole.served());
    // Ended after any number of bytes, either all of it happened or nothing, and the next connection is served.
    for cut in 0..rest.len() {
        let mut edge = Edge::new();
        let (conn, _) = begin(&mut edge, "home");
        edge.bytes(conn, &rest[..cut]);
        edge.disconnect(conn);
        assert!(edge.served().is_empty());
        let mut again = Agent::connect(&mut edge, "home");
        assert_eq!(again.snapshot(&mut edge, one_service()).len(), 1);
        assert_eq!(edge.served(), whole.served());
    }
}

#[test]
fn revisions_only_rise_and_deltas_follow_without_a_gap() {
    let delta = |epoch, revision| {
        AgentMessage::Delta(Delta {
            epoch,
            revision,
            changes: vec![exposer_common::proto::message::Change::Delete(id("web"))],
        })
    };
    let snapshot = |epoch, revision, part, last| {
        AgentMessage::Snapshot(Snapshot {
            epoch,
            revision,
            part,
            last,
            services: one_service(),
        })
    };
    for (wrong, words) in [
        (vec![delta(7, 1)], "before the snapshot"),
        (vec![snapshot(7, 5, 0, true), delta(7, 5)], "does not follow"),
        (vec![snapshot(7, 5, 0, true), delta(7, 7)], "does not follow"),
        (vec![snapshot(7, 5, 0, true), delta(8, 6)], "does not follow"),
        (
            vec![snapshot(7, 5, 0, true), snapshot(7, 5, 0, true)],
            "does not follow",
        ),
        (vec![snapshot(7, 5, 1, true)], "part 1"),
        (vec![snapshot(7, 5, 0, false), snapshot(7, 6, 1, true)], "part 1"),
        (vec![snapshot(7, 5, 0, false), snapshot(7, 5, 0, true)], "part 0"),
        (vec![snapshot(7, 5, 0, false), delta(7, 6)], "before the snapshot"),
    ] {
        let mut edge = Edge::new();
        let mut agent = Agent::connect(&mut edge, "home");
        for message in &wrong {
            agent.say(&mut edge, message);
        }
        let (code, text) = agent.error(&mut edge);
        assert_eq!(code, ErrorCode::OutOfOrder);
        assert!(text.contains(words), "{text}");
        assert!(
            !edge.served().is_empty() || wrong.len() == 1 || text.contains("part") || text.contains("before")
        );
    }
    // A new connection may begin anywhere, and so may a new epoch.
    let mut edge = Edge::new();
    let mut agent = Agent::connect(&mut edge, "home");
    agent.say(&mut edge, &snapshot(7, 5, 0, true));
    agent.say(&mut edge, &snapshot(3, 1, 0, true));
    assert_eq!(agent.acks(&mut edge).len(), 2);
    let mut agent = Agent::connect(&mut edge, "home");
    agent.say(&mut edge, &snapshot(3, 1, 0, true));
    assert_eq!(agent.acks(&mut edge).len(), 1);
}

#[test]
fn an_agent_may_not_have_services_without_end() {
    let mut edge = Edge::new();
    let mut agent = Agent::connect(&mut edge, "greedy");
    for part in 0..=16 {
        let services = (0..1_000)
            .map(|n| record(&format!("s{}", part * 1_000 + n), 1, vec![port(80, "tcp")]))
            .collect();
        agent.say(
            &mut edge,
            &AgentMessage::Snapshot(Snapshot {
                epoch: 1,
                revision: 1,
                part,
                last: false,
                services,
            }),
        );
    }
    let (code, text) = agent.error(&mut edge);
    assert_eq!(code, ErrorCode::Limit);
    assert!(text.contains("16384"), "{text}");
}
