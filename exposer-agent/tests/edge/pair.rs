//! The agent's session and the edge's, both real, bytes between them: what one side says, the other understands.

use std::time::{Duration, Instant};

use exposer_agent::edge_client::backoff::Pace;
use exposer_agent::edge_client::ending::Ending;
use exposer_agent::edge_client::session::{Event, Identity, Session};
use exposer_agent::edge_client::sync::Position;
use exposer_common::proto::auth::Token;
use exposer_common::proto::message::{Ack, Change, EdgeMessage, ErrorCode};
use exposer_common::proto::{DEAD_AFTER, HEARTBEAT};
use exposer_edge::control::session::{Event as EdgeEvent, Session as EdgeSession, Shared};
use exposer_edge::control::tokens::Tokens;

use crate::script::{desired, id, outcome, record, token};

/// Both sessions and what they told their owners.
struct Pair {
    agent: Session,
    edge: EdgeSession,
    shared: Shared,
    now: Instant,
    agent_events: Vec<Event>,
    edge_events: Vec<EdgeEvent>,
}

impl Pair {
    fn new(name: &str, edges_token: Token) -> Self {
        let now = Instant::now();
        let identity = Identity {
            agent: name.into(),
            sync_interval: Duration::from_secs(30),
        };
        let mut pair = Self {
            agent: Session::new(
                &identity,
                token(),
                [1; 32],
                Position {
                    epoch: 5,
                    revision: 0,
                },
                now,
            ),
            edge: EdgeSession::new([2; 32], now),
            shared: Shared {
                tokens: Tokens::shared(edges_token),
                public_addresses: vec![],
            },
            now,
            agent_events: vec![],
            edge_events: vec![],
        };
        pair.talk();
        pair
    }

    /// Carries bytes to and fro until nobody has anything to say.
    fn talk(&mut self) {
        loop {
            let mut quiet = true;
            while let Some(event) = self.agent.next_event() {
                quiet = false;
                match event {
                    Event::Send(bytes) => self.edge.handle_bytes(&bytes, &self.shared, self.now),
                    other => self.agent_events.push(other),
                }
            }
            while let Some(event) = self.edge.next_event() {
                quiet = false;
                match event {
                    EdgeEvent::Send(bytes) => self.agent.handle_bytes(&bytes, self.now),
                    other => self.edge_events.push(other),
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn want(&mut self, services: &[(&str, u16)]) {
        self.agent.set_desired(desired(services), self.now);
        self.talk();
    }

    fn ack(&mut self, revision: u64, name: &str) {
        let outcomes = vec![outcome(&id(name), 80)];
        self.edge.send(&EdgeMessage::Ack(Ack {
            epoch: 5,
            revision,
            outcomes,
        }));
        self.talk();
    }

    fn ending(&mut self) -> Ending {
        match self.agent_events.pop() {
            Some(Event::Close(ending)) => ending,
            other => panic!("the agent's session goes on: {other:?}"),
        }
    }

    fn code(&mut self) -> ErrorCode {
        match self.edge_events.pop() {
            Some(EdgeEvent::Close { code, .. }) => code,
            other => panic!("the edge's session goes on: {other:?}"),
        }
    }
}

#[test]
fn they_understand_each_other() {
    let mut pair = Pair::new("home", token());
    assert!(
        matches!(&pair.agent_events[..], [Event::Welcomed { software, .. }] if software.starts_with("exposer-edge"))
    );
    assert!(matches!(&pair.edge_events[..], [EdgeEvent::Opened { agent, .. }] if agent == "home"));
    pair.want(&[("web", 80)]);
    let Some(EdgeEvent::Snapshot(whole)) = pair.edge_events.pop() else {
        panic!("{:?}", pair.edge_events)
    };
    assert_eq!(
        (whole.epoch, whole.revision, whole.services),
        (5, 1, vec![record("web", 80)])
    );
    pair.ack(1, "web");
    assert!(pair.agent_events.iter().any(|event| matches!(
        event,
        Event::Settled {
            revision: 1,
            services: 1
        }
    )));
    pair.want(&[("mail", 25)]);
    let Some(EdgeEvent::Delta {
        epoch,
        revision,
        changes,
    }) = pair.edge_events.pop()
    else {
        panic!()
    };
    assert_eq!((epoch, revision), (5, 2));
    assert_eq!(
        changes,
        [Change::Delete(id("web")), Change::Update(record("mail", 25))]
    );
    pair.ack(2, "mail");
    assert!(pair.agent_events.iter().any(|event| matches!(
        event,
        Event::Settled {
            revision: 2,
            services: 1
        }
    )));
    pair.agent.shut_down();
    pair.talk();
    assert_eq!(pair.code(), ErrorCode::ShuttingDown);
}

#[test]
fn a_large_cluster_arrives_whole() {
    let mut pair = Pair::new("home", token());
    let names: Vec<_> = (0..9_000).map(|number| format!("service-{number}")).collect();
    let services: Vec<_> = names.iter().map(|name| (name.as_str(), 80)).collect();
    pair.want(&services);
    let Some(EdgeEvent::Snapshot(whole)) = pair.edge_events.pop() else {
        panic!()
    };
    assert_eq!(whole.services.len(), 9_000);
    pair.want(&[("web", 80)]);
    let deltas = pair
        .edge_events
        .iter()
        .filter(|event| matches!(event, EdgeEvent::Delta { .. }))
        .count();
    assert_eq!(deltas, 3, "9,001 changes in deltas of at most 4,096");
}

#[test]
fn heartbeats_keep_both_alive() {
    let mut pair = Pair::new("home", token());
    pair.want(&[("web", 80)]);
    for _ in 0..10 {
        pair.now += HEARTBEAT;
        pair.agent.handle_timeout(pair.now);
        pair.edge.handle_timeout(pair.now);
        pair.talk();
    }
    assert!(pair.agent.poll_timeout().is_some() && pair.edge.poll_timeout().is_some());
    // Without the other's, each gives up.
    pair.now += DEAD_AFTER;
    pair.agent.handle_timeout(pair.now);
    pair.talk();
    assert!(matches!(pair.ending(), Ending::Silent));
    assert_eq!(pair.code(), ErrorCode::Timeout);
}

#[test]
fn the_edge_refuses_and_the_agent_knows_why() {
    let other = Token::from_bytes(b"another-token-0123456789abcdefghijk").unwrap();
    let mut pair = Pair::new("home", other);
    assert_eq!(pair.code(), ErrorCode::Unauthenticated);
    let ending = pair.ending();
    assert_eq!(ending.pace(), Pace::Slow);
    assert!(
        ending.to_string().contains("must hold the same token"),
        "{ending}"
    );

    let mut pair = Pair::new("My Home", token());
    assert_eq!(pair.code(), ErrorCode::AgentName);
    assert!(pair.ending().to_string().contains("set AGENT_NAME"));
}
