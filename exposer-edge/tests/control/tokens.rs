//! Tokens of single agents: what they allow, and what happens to a live agent when they change.

use std::collections::BTreeMap;

use exposer_common::model::{Protocol, ServiceRecord};
use exposer_common::proto::auth::{Token, Transcript};
use exposer_common::proto::codec::{FrameDecoder, encode};
use exposer_common::proto::message::{
    AgentMessage, Change, EdgeMessage, ErrorCode, Proof, Refusal, RefusalCode, ServiceOutcome,
};
use exposer_edge::control::core::Core;
use exposer_edge::control::limits::Limits;
use exposer_edge::control::ports::ReservedPorts;
use exposer_edge::control::tokens::Tokens;

use super::support::{Agent, Edge, hello, id, of, port, record, settings, tcp, token};

fn cabin() -> Token {
    Token::from_bytes(b"cabin-cabin-0123456789-0123456789-abcdef").unwrap()
}

fn other() -> Token {
    Token::from_bytes(b"other-other-0123456789-0123456789-abcdef").unwrap()
}

fn limits(json: &str) -> Limits {
    serde_json::from_str(json).unwrap()
}

/// The shared token, and one of agent `cabin`.
fn tokens(own: Token, limits: Limits) -> Tokens {
    let mut tokens = Tokens::shared(token());
    tokens.insert("cabin".into(), own, limits);
    tokens
}

fn edge_with(limits: Limits) -> Edge {
    let mut settings = settings();
    settings.tokens = tokens(cabin(), limits);
    Edge::over(Core::new(settings, ReservedPorts::new()))
}

fn limited(json: &str) -> (Edge, Agent) {
    let mut edge = edge_with(limits(json));
    let agent = Agent::connect_with(&mut edge, "cabin", &cabin());
    (edge, agent)
}

fn renamed(mut service: ServiceRecord, namespace: &str, subdomain: &str) -> ServiceRecord {
    service.id.namespace = namespace.into();
    service.subdomain = subdomain.into();
    service
}

/// Asserts that the token is what stands against it.
fn assert_not_allowed(refusal: Option<&Refusal>, words: &[&str]) {
    let refusal = refusal.expect("a refusal");
    assert_eq!(refusal.code, RefusalCode::NotAllowed, "{refusal:?}");
    for word in words.iter().chain(&["cabin"]) {
        assert!(
            refusal.text.contains(word),
            "\"{word}\" is not in: {}",
            refusal.text
        );
    }
}

fn port_of(outcomes: &BTreeMap<String, ServiceOutcome>, name: &str, requested: u16) -> Option<u16> {
    of(&outcomes[name], requested, Protocol::Tcp).public_port
}

#[test]
fn namespaces_and_subdomains_beyond_the_token_are_refused_alone() {
    let (mut edge, mut agent) = limited(r#"{"namespaces":["games"],"subdomains":["cabin-*","mc"]}"#);
    let outcomes = agent.snapshot(
        &mut edge,
        vec![
            renamed(record("one", 1, vec![port(81, "tcp")]), "games", "cabin-one"),
            renamed(record("two", 2, vec![port(82, "tcp")]), "games", "mc"),
            renamed(record("three", 3, vec![port(83, "tcp")]), "bank", "cabin-three"),
            renamed(record("four", 4, vec![port(84, "tcp")]), "games", "shop"),
        ],
    );
    assert_eq!(edge.served().into_keys().collect::<Vec<_>>(), [tcp(81), tcp(82)]);
    assert_not_allowed(outcomes["three"].refused.as_ref(), &["\"bank\"", "games"]);
    assert_not_allowed(outcomes["four"].refused.as_ref(), &["\"shop\"", "cabin-*,mc"]);
}

#[test]
fn ports_beyond_the_token_are_refused_also_as_substitutes() {
    let (mut edge, mut agent) = limited(r#"{"ports":["80","8000-8010","30005"]}"#);
    let mut home = Agent::connect(&mut edge, "home");
    home.snapshot(
        &mut edge,
        vec![record("taken", 1, vec![port(80, "tcp"), port(8000, "tcp")])],
    );
    let outcomes = agent.snapshot(
        &mut edge,
        vec![
            record("inside", 2, vec![port(8001, "tcp"), port(443, "tcp")]),
            record("moved", 3, vec![port(80, "tcp")]),
            record("nowhere", 4, vec![port(8000, "tcp")]),
        ],
    );
    assert_eq!(port_of(&outcomes, "inside", 8001), Some(8001));
    let beyond = of(&outcomes["inside"], 443, Protocol::Tcp);
    assert_eq!(beyond.public_port, None);
    assert_not_allowed(beyond.refused.as_ref(), &["443", "80,8000-8010,30005"]);
    assert_eq!(
        port_of(&outcomes, "moved", 80),
        Some(30_005),
        "the only substitute that is allowed"
    );
    let nowhere = of(&outcomes["nowhere"], 8000, Protocol::Tcp);
    assert_eq!(nowhere.public_port, None);
    assert_not_allowed(nowhere.refused.as_ref(), &["8000", "games/taken"]);
}

#[test]
fn as_many_ports_as_the_token_says_oldest_first_and_what_is_freed_goes_on() {
    let (mut edge, mut agent) = limited(r#"{"max_ports":3}"#);
    let outcomes = agent.snapshot(
        &mut edge,
        vec![
            record("young", 9, vec![port(90, "tcp")]),
            record("old", 1, vec![port(81, "tcp+udp")]),
            record("middle", 5, vec![port(85, "tcp")]),
        ],
    );
    assert_eq!(port_of(&outcomes, "old", 81), Some(81));
    assert_eq!(port_of(&outcomes, "middle", 85), Some(85));
    let refused = of(&outcomes["young"], 90, Protocol::Tcp);
    assert_not_allowed(refused.refused.as_ref(), &["3 public ports", "90"]);
    assert_eq!(edge.core.registry().ports_of("cabin"), 3);
    let outcomes = agent.delta(&mut edge, vec![Change::Delete(id("old"))]);
    assert_eq!(
        port_of(&outcomes, "young", 90),
        Some(90),
        "what was freed goes to who waits"
    );
    assert_eq!(edge.core.registry().ports_of("cabin"), 2);
    let mut home = Agent::connect(&mut edge, "home");
    let many = (1000..1010).map(|number| port(number, "tcp")).collect();
    home.snapshot(&mut edge, vec![record("many", 1, many)]);
    assert_eq!(
        edge.core.registry().ports_of("home"),
        10,
        "another agent's limit is not this one's"
    );
}

#[test]
fn a_revoked_token_ends_the_connection_and_closes_the_services() {
    let (mut edge, mut agent) = limited("{}");
    let mut home = Agent::connect(&mut edge, "home");
    home.snapshot(&mut edge, vec![record("stays", 1, vec![port(80, "tcp")])]);
    agent.snapshot(&mut edge, vec![record("web", 1, vec![port(8080, "tcp")])]);
    edge.core.handle_tokens(Tokens::shared(token()), edge.now);
    edge.pump();
    let (code, text) = agent.error(&mut edge);
    assert_eq!(code, ErrorCode::AccessChanged);
    assert!(text.contains("revoked"), "{text}");
    assert!(edge.closed.contains(&agent.conn) && !edge.closed.contains(&home.conn));
    assert_eq!(edge.served().into_keys().collect::<Vec<_>>(), [tcp(80)]);
}

#[test]
fn another_token_ends_the_connection_and_the_services_wait() {
    let (mut edge, mut agent) = limited("{}");
    agent.snapshot(&mut edge, vec![record("web", 1, vec![port(8080, "tcp")])]);
    edge.core
        .handle_tokens(tokens(other(), Limits::default()), edge.now);
    edge.pump();
    assert_eq!(agent.error(&mut edge).0, ErrorCode::AccessChanged);
    assert_eq!(
        edge.served().into_keys().collect::<Vec<_>>(),
        [tcp(8080)],
        "stale, but served"
    );
    let mut agent = Agent::connect_with(&mut edge, "cabin", &other());
    let outcomes = agent.snapshot(&mut edge, vec![record("web", 1, vec![port(8080, "tcp")])]);
    assert_eq!(port_of(&outcomes, "web", 8080), Some(8080));
}

#[test]
fn tokens_that_concern_others_change_nothing() {
    let (mut edge, mut agent) = limited("{}");
    let mut more = tokens(cabin(), Limits::default());
    more.insert("boat".into(), other(), Limits::default());
    edge.core.handle_tokens(more, edge.now);
    edge.pump();
    assert!(!edge.closed.contains(&agent.conn));
    agent.snapshot(&mut edge, vec![record("web", 1, vec![port(8080, "tcp")])]);
}

#[test]
fn a_handshake_under_way_is_judged_by_the_token_of_its_end() {
    let mut edge = edge_with(Limits::default());
    let conn = edge.accept();
    let frame = hello("cabin");
    edge.bytes(conn, &frame);
    let transcript = Transcript::new(&frame, &edge.written.remove(&conn).unwrap());
    edge.core
        .handle_tokens(tokens(other(), Limits::default()), edge.now);
    let mac = cabin().prove_agent(&transcript);
    edge.bytes(conn, &encode(&AgentMessage::Proof(Proof { mac })).unwrap());
    let mut decoder = FrameDecoder::new();
    decoder.push(&edge.written.remove(&conn).unwrap());
    match decoder.next::<EdgeMessage>().unwrap() {
        Some((EdgeMessage::Error(error), _)) => assert_eq!(error.code, ErrorCode::Unauthenticated),
        other => panic!("{other:?}"),
    }
    assert!(edge.closed.contains(&conn));
}

#[test]
fn narrower_limits_close_what_is_beyond_them_at_once_and_after_a_restart() {
    let (mut edge, mut agent) = limited("{}");
    let services = vec![
        record("old", 1, vec![port(81, "tcp")]),
        record("young", 9, vec![port(82, "tcp")]),
        record("high", 2, vec![port(9000, "tcp")]),
        renamed(record("bank", 3, vec![port(83, "tcp")]), "bank", "bank"),
    ];
    agent.snapshot(&mut edge, services.clone());
    assert_eq!(edge.served().len(), 4);
    let saved = edge.core.saved_state(edge.now);
    let narrow = limits(r#"{"namespaces":["games"],"ports":["80-99"],"max_ports":1}"#);
    edge.core.handle_tokens(tokens(cabin(), narrow.clone()), edge.now);
    edge.pump();
    assert_eq!(agent.error(&mut edge).0, ErrorCode::AccessChanged);
    let left: Vec<_> = edge.served().into_keys().collect();
    assert_eq!(left, [tcp(81)], "the oldest of what is allowed");

    let mut restarted = edge_with(narrow);
    restarted.core.restore(saved, restarted.now);
    restarted.pump();
    assert_eq!(restarted.served().len(), 1, "{:?}", restarted.served());
    let mut agent = Agent::connect_with(&mut restarted, "cabin", &cabin());
    let outcomes = agent.snapshot(&mut restarted, services);
    assert_not_allowed(outcomes["bank"].refused.as_ref(), &["bank"]);
    assert_eq!(restarted.core.registry().ports_of("cabin"), 1);
}

#[test]
fn an_agent_whose_token_cannot_be_read_is_not_opened_by_the_shared_one() {
    let mut tokens = Tokens::shared(token());
    tokens.keep("cabin".into(), &Tokens::default());
    assert!(tokens.of("cabin").is_none());
    assert!(tokens.of("home").is_some());
    assert!(tokens.knows("cabin"), "its Services go on");
}

#[test]
fn limits_that_are_none_are_refused_and_not_ignored() {
    for json in [
        r#"{"ports":["0"]}"#,
        r#"{"ports":["9-8"]}"#,
        r#"{"ports":["http"]}"#,
        r#"{"namespaces":["Bank"]}"#,
        r#"{"subdomains":["a*b*"]}"#,
        r#"{"subdomains":[""]}"#,
        r#"{"from_the_future":1}"#,
    ] {
        assert!(serde_json::from_str::<Limits>(json).is_err(), "{json}");
    }
    let text = serde_json::to_string(&limits(r#"{"ports":["80","90-99"],"max_ports":2}"#)).unwrap();
    assert!(text.contains(r#""ports":["80","90-99"]"#), "{text}");
}
