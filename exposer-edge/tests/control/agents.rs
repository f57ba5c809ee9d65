//! Agents come, go, come back changed, stay away, and share one edge.

use std::time::Duration;

use exposer_common::model::Protocol;
use exposer_common::proto::message::{AgentMessage, Change, ErrorCode, Heartbeat, RefusalCode};

use super::support::{Agent, Edge, STALE_AFTER, id, of, port, record, tcp};

#[test]
fn a_newer_connection_takes_over_from_a_half_open_one() {
    let mut edge = Edge::new();
    let mut old = Agent::connect(&mut edge, "home");
    old.snapshot(&mut edge, vec![record("web", 1, vec![port(80, "tcp")])]);
    let mut new = Agent::connect(&mut edge, "home");
    let (code, text) = old.error(&mut edge);
    assert_eq!(code, ErrorCode::Replaced);
    assert!(text.contains("AGENT_NAME"), "{text}");
    assert!(edge.closed.contains(&old.conn) && !edge.closed.contains(&new.conn));
    // What the old connection still does counts for nothing.
    old.say(&mut edge, &AgentMessage::Heartbeat(Heartbeat { revision: 0 }));
    edge.disconnect(old.conn);
    let view = edge.core.view_agents(edge.now);
    assert!(view[0].peer.is_some(), "{view:?}");
    let outcomes = new.snapshot(&mut edge, vec![record("web", 1, vec![port(80, "tcp")])]);
    assert_eq!(of(&outcomes["web"], 80, Protocol::Tcp).public_port, Some(80));
}

#[test]
fn what_was_deleted_while_the_agent_was_away_goes_when_it_is_back() {
    let mut edge = Edge::new();
    let mut agent = Agent::connect(&mut edge, "home");
    let (kept, deleted) = (
        record("kept", 1, vec![port(80, "tcp")]),
        record("deleted", 1, vec![port(81, "tcp")]),
    );
    agent.snapshot(&mut edge, vec![kept.clone(), deleted]);
    let generation = edge.core.registry().binding(tcp(80)).unwrap().generation;
    edge.disconnect(agent.conn);
    edge.pass(Duration::from_secs(600));
    assert_eq!(
        edge.served().len(),
        2,
        "Services of an agent that is away stay up"
    );
    edge.datapath.clear_calls();
    let mut agent = Agent::connect(&mut edge, "home");
    agent.snapshot(&mut edge, vec![kept]);
    assert_eq!(edge.served().into_keys().collect::<Vec<_>>(), [tcp(80)]);
    assert_eq!(
        edge.datapath.calls().len(),
        1,
        "the Service that stayed was not touched"
    );
    assert_eq!(
        edge.core.registry().binding(tcp(80)).unwrap().generation,
        generation
    );
}

#[test]
fn an_agent_that_stays_away_is_given_up_after_the_grace_period() {
    let mut edge = Edge::new();
    let mut agent = Agent::connect(&mut edge, "home");
    agent.snapshot(&mut edge, vec![record("web", 1, vec![port(80, "tcp")])]);
    edge.disconnect(agent.conn);
    edge.pass(STALE_AFTER - Duration::from_secs(1));
    let view = edge.core.view_agents(edge.now);
    assert_eq!(view[0].expires_in, Some(Duration::from_secs(1)));
    assert_eq!(edge.served().len(), 1);
    edge.pass(Duration::from_secs(2));
    assert!(edge.served().is_empty());
    assert!(edge.core.view_agents(edge.now).is_empty());
}

#[test]
fn an_agent_that_comes_and_goes_is_never_given_up() {
    let mut edge = Edge::new();
    for _ in 0..3 {
        let mut agent = Agent::connect(&mut edge, "home");
        agent.snapshot(&mut edge, vec![record("web", 1, vec![port(80, "tcp")])]);
        edge.disconnect(agent.conn);
        edge.pass(STALE_AFTER - Duration::from_secs(60));
        assert_eq!(edge.served().len(), 1);
    }
}

#[test]
fn two_clusters_share_one_edge_by_one_rule() {
    let mut edge = Edge::new();
    let mut home = Agent::connect(&mut edge, "home");
    let mut cabin = Agent::connect(&mut edge, "cabin");
    // The same namespace and name in both clusters are two Services.
    let mut mine = record("web", 20, vec![port(80, "tcp")]);
    mine.subdomain = "shared".into();
    home.snapshot(&mut edge, vec![mine.clone()]);
    let mut theirs = record("web", 10, vec![port(80, "tcp")]);
    theirs.subdomain = "shared".into();
    let outcomes = cabin.snapshot(&mut edge, vec![theirs.clone()]);
    let refusal = outcomes["web"].refused.clone().unwrap();
    assert_eq!(refusal.code, RefusalCode::SubdomainTaken);
    assert!(
        refusal.text.contains("games/web of agent home"),
        "{}",
        refusal.text
    );
    // When the holder lets go, the one that waits learns of it without asking.
    home.delta(&mut edge, vec![Change::Delete(id("web"))]);
    let acks = cabin.acks(&mut edge);
    let outcome = &acks.last().expect("an ack of its own accord").outcomes[0];
    assert_eq!(outcome.refused, None);
    assert_eq!(of(outcome, 80, Protocol::Tcp).public_port, Some(80));
    // A snapshot of one leaves the other alone.
    home.snapshot(&mut edge, Vec::new());
    assert_eq!(edge.served().len(), 1);
}

#[test]
fn an_agent_without_services_leaves_nothing_behind() {
    let mut edge = Edge::new();
    for n in 0..50 {
        let agent = Agent::connect(&mut edge, &format!("agent-{n}"));
        edge.disconnect(agent.conn);
    }
    assert!(edge.core.view_agents(edge.now).is_empty());
}

#[test]
fn going_down_is_said_and_changes_nothing() {
    let mut edge = Edge::new();
    let mut agent = Agent::connect(&mut edge, "home");
    agent.snapshot(&mut edge, vec![record("web", 1, vec![port(80, "tcp")])]);
    edge.core.shut_down(edge.now);
    edge.pump();
    assert_eq!(agent.error(&mut edge).0, ErrorCode::ShuttingDown);
    assert!(edge.closed.contains(&agent.conn));
    assert_eq!(edge.served().len(), 1);
}
