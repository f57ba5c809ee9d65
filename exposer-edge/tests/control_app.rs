//! The whole daemon in a namespace, on the userspace path: a scripted agent over TCP, a client, a server at home.
//!
//! ```text
//!  client                    edge                      home
//!  cl0 44.128.0.1/24 ─────── wan0 44.128.0.2/24
//!                            wg0  10.0.0.1/24 ──────── up0 10.0.0.2/24, lo 10.96.0.10/32
//! ```
//!
//! The tunnel is a plain veth: what WireGuard does is not the subject here. Needs root.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser as _;
use exposer_common::model::{ClientIp, PortRecord, ServiceId, ServicePort, ServiceRecord, TargetKind};
use exposer_common::proto::auth::{Token, Transcript, fresh_nonce};
use exposer_common::proto::codec::{FrameBytes, FrameDecoder, encode};
use exposer_common::proto::message::{
    AgentMessage, EdgeMessage, ErrorCode, Hello, Path as Via, Proof, ServiceOutcome, Snapshot,
};
use exposer_edge::app;
use exposer_edge::args::{Cli, Command};
use exposer_edge::config::Config;
use exposer_testkit::netns::{Handle, Netns};
use exposer_testkit::traffic::{Client, Server};
use tokio_util::sync::CancellationToken;

const TOKEN: &str = "0123456789abcdef0123456789abcdef-app";
const CONTROL: &str = "10.0.0.1:9090";
const PATIENCE: Duration = Duration::from_secs(10);

struct Network {
    client: Netns,
    edge: Netns,
    home: Netns,
}

impl Network {
    fn new(test: &str) -> Self {
        let client = Netns::new(test, "client").unwrap();
        let edge = Netns::new(test, "edge").unwrap();
        let home = Netns::new(test, "home").unwrap();
        client.connect("cl0", &edge, "wan0").unwrap();
        edge.connect("wg0", &home, "up0").unwrap();
        client.ip("addr add 44.128.0.1/24 dev cl0").unwrap();
        edge.ip("addr add 44.128.0.2/24 dev wan0").unwrap();
        edge.ip("route add default via 44.128.0.1").unwrap();
        edge.ip("addr add 10.0.0.1/24 dev wg0").unwrap();
        edge.ip("route add 10.96.0.0/16 via 10.0.0.2 dev wg0").unwrap();
        home.ip("addr add 10.0.0.2/24 dev up0").unwrap();
        home.ip("addr add 10.96.0.10/32 dev lo").unwrap();
        Self { client, edge, home }
    }
}

fn public(port: u16) -> SocketAddr {
    SocketAddr::from(([44, 128, 0, 2], port))
}

/// The daemon on a thread of the edge's namespace.
struct Daemon {
    stop: CancellationToken,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Daemon {
    fn config(folder: &Path) -> Config {
        let token = folder.join("token");
        std::fs::write(&token, TOKEN).unwrap();
        let state = folder.join("state");
        let flags = [
            "exposer-edge".to_owned(),
            "run".to_owned(),
            "--datapath=userspace".to_owned(),
            format!("--token-file={}", token.display()),
            format!("--state-dir={}", state.display()),
        ];
        match Cli::try_parse_from(flags).unwrap().command {
            Command::Run(settings) => Config::from_settings(&settings).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn start(edge: &Handle, config: Config) -> Self {
        let stop = CancellationToken::new();
        let (ended, hurry) = (stop.clone(), CancellationToken::new());
        let work = move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?;
            runtime.block_on(app::run_until(config, ended, hurry))?;
            Ok(())
        };
        let thread = edge.spawn("edge", work).unwrap();
        Self {
            stop,
            thread: Some(thread),
        }
    }

    fn end(mut self) -> Result<()> {
        self.stop.cancel();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

/// An agent that speaks over a real socket.
struct Agent {
    stream: TcpStream,
    decoder: FrameDecoder,
    revision: u64,
}

impl Agent {
    fn connect(home: &Handle, token: &str) -> Result<Self> {
        let stream = patiently(|| home.run(|| Ok(TcpStream::connect(CONTROL)?)))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut agent = Self {
            stream,
            decoder: FrameDecoder::new(),
            revision: 0,
        };
        let hello = encode(&AgentMessage::Hello(Hello {
            min_version: 1,
            max_version: 1,
            agent: "home".into(),
            nonce: fresh_nonce()?,
            software: "scripted 1".into(),
            capabilities: Vec::new(),
        }))?;
        agent.stream.write_all(&hello)?;
        let (_, challenge) = agent.hear()?;
        let transcript = Transcript::new(&hello, challenge.as_slice());
        let mac = Token::from_bytes(token.as_bytes())?.prove_agent(&transcript);
        agent
            .stream
            .write_all(&encode(&AgentMessage::Proof(Proof { mac }))?)?;
        Ok(agent)
    }

    fn hear(&mut self) -> Result<(EdgeMessage, FrameBytes)> {
        loop {
            if let Some(found) = self.decoder.next::<EdgeMessage>()? {
                return Ok(found);
            }
            let mut buffer = [0; 4096];
            let count = self.stream.read(&mut buffer).context("the edge is silent")?;
            anyhow::ensure!(count > 0, "the edge closed the connection");
            self.decoder.push(buffer.get(..count).unwrap_or_default());
        }
    }

    fn welcomed(mut self) -> Self {
        let (message, _) = self.hear().unwrap();
        assert!(matches!(message, EdgeMessage::Welcome(_)), "{message:?}");
        self
    }

    fn snapshot(&mut self, services: Vec<ServiceRecord>) -> Vec<ServiceOutcome> {
        self.revision = self.revision.saturating_add(1);
        let message = AgentMessage::Snapshot(Snapshot {
            epoch: 1,
            revision: self.revision,
            part: 0,
            last: true,
            services,
        });
        self.stream.write_all(&encode(&message).unwrap()).unwrap();
        match self.hear().unwrap().0 {
            EdgeMessage::Ack(ack) => ack.outcomes,
            other => panic!("{other:?}"),
        }
    }
}

fn patiently<T>(mut work: impl FnMut() -> Result<T>) -> Result<T> {
    let begin = Instant::now();
    loop {
        match work() {
            Ok(done) => return Ok(done),
            Err(error) if begin.elapsed() > PATIENCE => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn web(port: u16) -> ServiceRecord {
    ServiceRecord {
        id: ServiceId {
            namespace: "shop".into(),
            name: "web".into(),
        },
        uid: "1".into(),
        created: 1,
        subdomain: "web".into(),
        ports: vec![PortRecord {
            public_port: port,
            tcp: Some(ServicePort {
                service_port: 80,
                target_port: None,
                node_port: None,
            }),
            udp: None,
        }],
        cluster_ip: Some(IpAddr::from([10, 96, 0, 10])),
        node_addresses: Vec::new(),
        target: TargetKind::Auto,
        client_ip: ClientIp::Auto,
        idle_timeout: None,
    }
}

/// The only port of the only outcome: where it answers, by which path, and the text of its refusal.
fn only(outcomes: &[ServiceOutcome]) -> (Option<u16>, Option<Via>, Option<String>) {
    let [outcome] = outcomes else {
        panic!("{outcomes:?}")
    };
    assert_eq!(outcome.refused, None);
    let [port] = outcome.ports.as_slice() else {
        panic!("{outcome:?}")
    };
    let text = port.refused.as_ref().map(|refusal| refusal.text.clone());
    (port.public_port, port.path, text)
}

fn status(edge: &Handle) -> Result<serde_json::Value> {
    edge.run(|| {
        let mut stream = TcpStream::connect("127.0.0.1:9091")?;
        stream.write_all(b"GET /v1/status HTTP/1.0\r\nHost: edge\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (_, body) = text.split_once("\r\n\r\n").context("no body")?;
        Ok(serde_json::from_str(body)?)
    })
}

#[test]
fn a_service_is_published_survives_restarts_and_goes() {
    let network = Network::new("ctlapp");
    let folder = tempfile::tempdir().unwrap();
    let config = Daemon::config(folder.path());
    let client = Client::new(network.client.handle(), IpAddr::from([44, 128, 0, 1]));
    let target = SocketAddr::from(([10, 96, 0, 10], 80));
    let _server = Server::tcp(&network.home, target, "web-at-home").unwrap();

    let daemon = Daemon::start(&network.edge, config.clone());
    let mut agent = Agent::connect(&network.home, TOKEN).unwrap().welcomed();
    let begin = Instant::now();
    assert_eq!(
        only(&agent.snapshot(vec![web(8080)])),
        (Some(8080), Some(Via::Userspace), None)
    );
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!(
        client.ask_name(public(8080), PATIENCE).unwrap().trim(),
        "web-at-home"
    );
    let shown = patiently(|| {
        let status = status(&network.edge)?;
        anyhow::ensure!(
            status["services"][0]["ports"][0]["stats"]["flows"] == 1,
            "{status}"
        );
        Ok(status)
    })
    .unwrap();
    assert_eq!(shown["not_ready"], serde_json::json!([]), "{shown}");
    assert_eq!(shown["agents"][0]["name"], "home");
    assert_eq!(shown["datapath"]["path"], "userspace");

    // A second daemon on the same state is refused before it touches anything.
    let second = Daemon::start(&network.edge, config.clone());
    let error = second.thread_result();
    assert!(error.contains("another exposer-edge"), "{error}");

    // A restart serves the Service before its agent is back.
    drop(agent);
    daemon.end().unwrap();
    let daemon = Daemon::start(&network.edge, config.clone());
    let name = patiently(|| client.ask_name(public(8080), PATIENCE)).unwrap();
    assert_eq!(name.trim(), "web-at-home");
    // Back with nothing: it was deleted meanwhile.
    let mut agent = Agent::connect(&network.home, TOKEN).unwrap().welcomed();
    assert!(agent.snapshot(Vec::new()).is_empty());
    let refused = client.connect_within(public(8080), Duration::from_millis(500));
    assert!(refused.is_err(), "the port still answers");
    daemon.end().unwrap();
}

#[test]
fn bad_input_is_answered_in_words_and_disturbs_nothing() {
    let network = Network::new("ctlbad");
    let folder = tempfile::tempdir().unwrap();
    let config = Daemon::config(folder.path());
    // A state that is no state, and a program that has the port which the Service wants.
    std::fs::create_dir_all(&config.state_dir).unwrap();
    std::fs::write(config.state_dir.join("state.json"), "{ half a").unwrap();
    let _nginx = Server::tcp(&network.edge, public(8080), "nginx").unwrap();
    let target = SocketAddr::from(([10, 96, 0, 10], 80));
    let _server = Server::tcp(&network.home, target, "web-at-home").unwrap();
    let client = Client::new(network.client.handle(), IpAddr::from([44, 128, 0, 1]));

    let daemon = Daemon::start(&network.edge, config.clone());
    let mut stranger = Agent::connect(&network.home, "another-token-another-token-0123456789").unwrap();
    let (message, _) = stranger.hear().unwrap();
    assert!(
        matches!(&message, EdgeMessage::Error(error) if error.code == ErrorCode::Unauthenticated),
        "{message:?}"
    );
    assert!(stranger.hear().is_err(), "the connection is still open");

    let mut browser = network.home.run(|| Ok(TcpStream::connect(CONTROL)?)).unwrap();
    browser.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    browser.read_to_end(&mut answer).unwrap();
    assert!(
        String::from_utf8_lossy(&answer).contains("look like HTTP"),
        "{answer:?}"
    );

    let mut agent = Agent::connect(&network.home, TOKEN).unwrap().welcomed();
    let (port, path, text) = only(&agent.snapshot(vec![web(8080)]));
    let port = port.unwrap();
    assert!((30_000..=32_767).contains(&port), "{port}");
    assert_eq!(path, Some(Via::Userspace));
    let text = text.unwrap();
    assert!(
        text.contains("8080/tcp") && text.contains(&port.to_string()),
        "{text}"
    );
    assert_eq!(
        client.ask_name(public(port), PATIENCE).unwrap().trim(),
        "web-at-home"
    );
    assert_eq!(client.ask_name(public(8080), PATIENCE).unwrap().trim(), "nginx");
    let kept: Vec<String> = std::fs::read_dir(&config.state_dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains("damaged"))
        .collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    daemon.end().unwrap();
}

#[test]
fn the_control_channel_waits_for_the_tunnel() {
    let network = Network::new("ctlwait");
    let folder = tempfile::tempdir().unwrap();
    let config = Daemon::config(folder.path());
    network.edge.ip("link set wg0 down").unwrap();
    network.edge.ip("addr del 10.0.0.1/24 dev wg0").unwrap();
    let daemon = Daemon::start(&network.edge, config);
    let waiting = patiently(|| {
        let status = status(&network.edge)?;
        let reasons = status["not_ready"].as_array().cloned().unwrap_or_default();
        anyhow::ensure!(reasons.len() == 2, "{status}");
        Ok(status["not_ready"].to_string())
    })
    .unwrap();
    assert!(
        waiting.contains("10.0.0.1:9090") && waiting.contains("wg-quick up wg0"),
        "{waiting}"
    );
    network.edge.ip("addr add 10.0.0.1/24 dev wg0").unwrap();
    network.edge.ip("link set wg0 up").unwrap();
    Agent::connect(&network.home, TOKEN).unwrap().welcomed();
    patiently(|| {
        let status = status(&network.edge)?;
        anyhow::ensure!(status["not_ready"] == serde_json::json!([]), "{status}");
        Ok(())
    })
    .unwrap();
    daemon.end().unwrap();
}

impl Daemon {
    /// The error of a daemon that does not start.
    fn thread_result(mut self) -> String {
        match self.thread.take().unwrap().join().unwrap() {
            Ok(()) => String::new(),
            Err(error) => format!("{error:#}"),
        }
    }
}
