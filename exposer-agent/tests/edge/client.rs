//! The edge client over real sockets on loopback: the token's file, the connection, reconnecting, several edges, probes,
//! shutdown. The edge is scripted from exposer-common.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::conversation::{Conversation, get, is_delta, is_snapshot, listener, soon};
use crate::script::{self, TOKEN, desired, id};
use exposer_agent::config::ServerAddr;
use exposer_agent::desired::{Desired, DesiredSender, Outcomes};
use exposer_agent::edge_client::session::Identity;
use exposer_agent::edge_client::sync::WINDOW;
use exposer_agent::edge_client::{self, EdgeSettings};
use exposer_agent::http;
use exposer_agent::readiness::Readiness;
use exposer_common::proto::auth::Token;
use exposer_common::proto::codec::encode;
use exposer_common::proto::message::{AgentMessage, EdgeMessage, ErrorCode, ErrorMessage};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// An agent with its file of the token, and what the Kubernetes side would hold.
struct Agent {
    desired: DesiredSender,
    outcomes: mpsc::Receiver<Outcomes>,
    readiness: Readiness,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    directory: tempfile::TempDir,
}

impl Agent {
    fn token_file(&self) -> PathBuf {
        self.directory.path().join("token")
    }

    /// The agent of `listeners`' addresses; without a token in its file.
    fn start(listeners: &[&TcpListener]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (desired, receiver) = watch::channel(None);
        let (sender, outcomes) = mpsc::channel(4);
        let addresses: Vec<_> = listeners
            .iter()
            .map(|listener| listener.local_addr().unwrap())
            .collect();
        let readiness = Readiness::new(receiver.clone(), addresses.iter().map(ToString::to_string));
        let shutdown = CancellationToken::new();
        let tasks = addresses
            .iter()
            .map(|address| {
                let settings = EdgeSettings {
                    server: ServerAddr::new(address.ip().to_string(), address.port()),
                    identity: Identity {
                        agent: "home".into(),
                        sync_interval: Duration::from_secs(1),
                    },
                    token_file: directory.path().join("token"),
                };
                tokio::spawn(edge_client::run(
                    settings,
                    receiver.clone(),
                    sender.clone(),
                    readiness.clone(),
                    shutdown.clone(),
                ))
            })
            .collect();
        Self {
            desired,
            outcomes,
            readiness,
            shutdown,
            tasks,
            directory,
        }
    }

    fn want(&self, services: Arc<Desired>) {
        self.desired.send_replace(Some(services));
    }

    fn give_token(&self, text: &str) {
        std::fs::write(self.token_file(), text).unwrap();
    }

    async fn stop(self) {
        self.shutdown.cancel();
        for task in self.tasks {
            soon("the end of the task", task).await.unwrap();
        }
    }
}

async fn until_ready(readiness: &Readiness, expected: bool) {
    soon("readiness", async {
        while readiness.report().is_ready() != expected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_service_goes_out_and_its_outcome_comes_back() {
    let listener = listener().await;
    let mut agent = Agent::start(&[&listener]);
    agent.give_token(TOKEN);
    let mut edge = Conversation::open(&listener).await;
    assert!(!agent.readiness.report().is_ready(), "the cluster is not read");
    agent.want(desired(&[("web", 80)]));
    edge.read_until("the snapshot", is_snapshot).await;
    until_ready(&agent.readiness, true).await;
    edge.ack().await;
    let outcomes = soon("outcomes", agent.outcomes.recv()).await.unwrap();
    assert_eq!(outcomes.edge, listener.local_addr().unwrap().to_string());
    assert_eq!(outcomes.outcomes, [script::outcome(&id("web"), 80)]);

    agent.want(desired(&[("web", 8_080), ("mail", 25)]));
    edge.read_until("a delta", is_delta).await;
    assert_eq!(edge.edge.services.len(), 2);
    edge.ack().await;
    assert_eq!(
        soon("outcomes", agent.outcomes.recv())
            .await
            .unwrap()
            .outcomes
            .len(),
        2
    );

    agent.shutdown.cancel();
    edge.read_until(
        "goodbye",
        |message| matches!(message, AgentMessage::Error(error) if error.code == ErrorCode::ShuttingDown),
    )
    .await;
    let readiness = agent.readiness.clone();
    agent.stop().await;
    assert!(!readiness.report().is_ready());
}

#[tokio::test]
async fn a_cut_connection_comes_back_with_everything() {
    let listener = listener().await;
    let agent = Agent::start(&[&listener]);
    agent.give_token(TOKEN);
    agent.want(desired(&[("web", 80), ("mail", 25)]));
    let mut first = Conversation::open(&listener).await;
    first.read_until("the snapshot", is_snapshot).await;
    let (epoch, revision) = first.edge.position;
    until_ready(&agent.readiness, true).await;
    drop(first);
    until_ready(&agent.readiness, false).await;
    // Deleted while the connection is cut.
    agent.want(desired(&[("mail", 25)]));
    let mut second = Conversation::open(&listener).await;
    second.read_until("the snapshot", is_snapshot).await;
    assert_eq!(
        second.edge.services.keys().cloned().collect::<Vec<_>>(),
        [id("mail")]
    );
    assert_eq!(second.edge.position, (epoch, revision + 1));
    agent.stop().await;
}

#[tokio::test]
async fn every_edge_is_told() {
    let (one, two) = (listener().await, listener().await);
    let mut agent = Agent::start(&[&one, &two]);
    agent.give_token(TOKEN);
    agent.want(desired(&[("web", 80)]));
    let mut first = Conversation::open(&one).await;
    first.read_until("the snapshot", is_snapshot).await;
    until_ready(&agent.readiness, true).await;
    let mut second = Conversation::open(&two).await;
    second.read_until("the snapshot", is_snapshot).await;
    first.ack().await;
    second.ack().await;
    let mut edges = vec![
        soon("outcomes", agent.outcomes.recv()).await.unwrap().edge,
        soon("outcomes", agent.outcomes.recv()).await.unwrap().edge,
    ];
    edges.sort();
    let mut expected = vec![
        one.local_addr().unwrap().to_string(),
        two.local_addr().unwrap().to_string(),
    ];
    expected.sort();
    assert_eq!(edges, expected);
    // One edge gone: the other goes on, and the agent stays ready.
    drop(first);
    agent.want(desired(&[("web", 81)]));
    second.read_until("a delta", is_delta).await;
    assert!(agent.readiness.report().is_ready());
    agent.stop().await;
}

#[tokio::test]
async fn the_token_is_read_anew_for_each_connection() {
    let listener = listener().await;
    let agent = Agent::start(&[&listener]);
    agent.want(desired(&[("web", 80)]));
    // No file, then one without a usable token: no connection, but the agent goes on trying.
    assert!(
        tokio::time::timeout(Duration::from_millis(300), listener.accept())
            .await
            .is_err()
    );
    agent.give_token("short");
    assert!(
        tokio::time::timeout(Duration::from_millis(300), listener.accept())
            .await
            .is_err()
    );
    agent.give_token(&format!("  {TOKEN}\n"));
    let mut edge = Conversation::open(&listener).await;
    edge.read_until("the snapshot", is_snapshot).await;
    agent.stop().await;
}

/// Neither a refused token nor an edge that can't prove itself is tried again at once, and no Service is told.
#[tokio::test]
async fn a_wrong_token_does_not_hammer() {
    for refused_by_edge in [true, false] {
        let listener = listener().await;
        let agent = Agent::start(&[&listener]);
        agent.give_token(TOKEN);
        agent.want(desired(&[("web", 80)]));
        let mut conversation = Conversation::accept(&listener).await;
        conversation
            .read_until("Hello", |message| matches!(message, AgentMessage::Hello(_)))
            .await;
        let challenge = conversation.edge.challenge();
        conversation.write(&challenge).await;
        conversation
            .read_until("Proof", |message| matches!(message, AgentMessage::Proof(_)))
            .await;
        let answer = if refused_by_edge {
            encode(&EdgeMessage::Error(ErrorMessage::new(
                ErrorCode::Unauthenticated,
                "wrong",
            )))
            .unwrap()
        } else {
            let other = Token::from_bytes(b"another-token-0123456789abcdefghijk").unwrap();
            encode(&EdgeMessage::Welcome(exposer_common::proto::message::Welcome {
                mac: other.prove_edge(&conversation.edge.transcript(), &[0; 32]),
                software: String::new(),
                public_addresses: vec![],
                capabilities: vec![],
            }))
            .unwrap()
        };
        conversation.write(&answer).await;
        let again = tokio::time::timeout(Duration::from_secs(2), listener.accept()).await;
        assert!(again.is_err(), "tried again within 2 s");
        assert!(!agent.readiness.report().is_ready());
        let mut rest = Vec::new();
        conversation.stream.read_to_end(&mut rest).await.unwrap();
        conversation.edge.take(&rest);
        assert!(conversation.edge.services.is_empty());
        agent.stop().await;
    }
}

/// An edge that lives but reads nothing: the agent neither blocks nor grows, and stops when told.
#[tokio::test]
async fn an_edge_that_does_not_read() {
    let listener = listener().await;
    let agent = Agent::start(&[&listener]);
    agent.give_token(TOKEN);
    let edge = Conversation::open(&listener).await;
    let services = (0..16_000)
        .map(|number| format!("service-{number}"))
        .map(|name| (id(&name), script::record(&name, 80)))
        .collect();
    agent.want(Arc::new(Desired { services }));
    for port in 1..50 {
        agent.want(desired(&[("web", port)]));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    agent.stop().await;
    drop(edge);
}

/// The Kubernetes side takes no outcomes for a while: the session goes on, and later ones replace earlier ones.
#[tokio::test]
async fn outcomes_that_nobody_takes_yet() {
    let listener = listener().await;
    let mut agent = Agent::start(&[&listener]);
    agent.give_token(TOKEN);
    let mut edge = Conversation::open(&listener).await;
    for port in 1..=40 {
        agent.want(desired(&[("web", port)]));
        edge.read_until("the port", |message| is_snapshot(message) || is_delta(message))
            .await;
        edge.edge.drain();
        edge.ack().await;
    }
    let mut batches = 0;
    soon("the last outcome", async {
        loop {
            let batch = agent.outcomes.recv().await.unwrap();
            batches += 1;
            if batch.outcomes == [script::outcome(&id("web"), 40)] {
                break;
            }
        }
    })
    .await;
    // The channel's four, what waited behind it, and one for each message that was still under way.
    assert!(batches <= 4 + 1 + WINDOW, "{batches} batches");
    agent.stop().await;
}

#[tokio::test]
async fn probes() {
    let edge = listener().await;
    let agent = Agent::start(&[&edge]);
    let probes = listener().await;
    let address = probes.local_addr().unwrap();
    let serving = tokio::spawn(http::serve(
        probes,
        agent.readiness.clone(),
        agent.shutdown.clone(),
    ));
    assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    let answer = get(address, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(
        answer.contains("cluster: not read yet") && answer.contains("not connected"),
        "{answer}"
    );
    agent.give_token(TOKEN);
    agent.want(desired(&[("web", 80)]));
    let conversation = Conversation::open(&edge).await;
    until_ready(&agent.readiness, true).await;
    let answer = get(address, "/readyz").await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("1 Services to expose"),
        "{answer}"
    );
    assert!(get(address, "/").await.starts_with("HTTP/1.1 404"));
    drop(conversation);
    agent.stop().await;
    soon("the end of the server", serving).await.unwrap().unwrap();
}
