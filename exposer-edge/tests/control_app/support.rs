//! The daemon on a thread of its namespace, and an agent that speaks the real protocol to it.

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
    AgentMessage, EdgeMessage, Hello, Path as Via, Proof, ServiceOutcome, Snapshot,
};
use exposer_edge::app;
use exposer_edge::args::{Cli, Command};
use exposer_edge::config::Config;
use exposer_testkit::netns::Handle;
use tokio_util::sync::CancellationToken;

pub const TOKEN: &str = "0123456789abcdef0123456789abcdef-app";
pub const CONTROL: &str = "10.0.0.1:9090";
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn public(port: u16) -> SocketAddr {
    SocketAddr::from(([44, 128, 0, 2], port))
}

/// The daemon on a thread of the edge's namespace.
pub struct Daemon {
    stop: CancellationToken,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Daemon {
    pub fn config(folder: &Path, more: &[String]) -> Config {
        let token = folder.join("token");
        std::fs::write(&token, TOKEN).unwrap();
        let state = folder.join("state");
        let flags = [
            "exposer-edge".to_owned(),
            "run".to_owned(),
            format!("--token-file={}", token.display()),
            format!("--state-dir={}", state.display()),
        ];
        match Cli::try_parse_from(flags.iter().chain(more)).unwrap().command {
            Command::Run(settings) => Config::from_settings(&settings).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    pub fn start(edge: &Handle, config: Config) -> Self {
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

    pub fn end(mut self) -> Result<()> {
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
pub struct Agent {
    pub stream: TcpStream,
    decoder: FrameDecoder,
    revision: u64,
}

impl Agent {
    pub fn connect(home: &Handle, token: &str) -> Result<Self> {
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

    pub fn hear(&mut self) -> Result<(EdgeMessage, FrameBytes)> {
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

    pub fn welcomed(mut self) -> Self {
        let (message, _) = self.hear().unwrap();
        assert!(matches!(message, EdgeMessage::Welcome(_)), "{message:?}");
        self
    }

    pub fn snapshot(&mut self, services: Vec<ServiceRecord>) -> Vec<ServiceOutcome> {
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

pub fn patiently<T>(mut work: impl FnMut() -> Result<T>) -> Result<T> {
    let begin = Instant::now();
    loop {
        match work() {
            Ok(done) => return Ok(done),
            Err(error) if begin.elapsed() > PATIENCE => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

pub fn web(port: u16) -> ServiceRecord {
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
pub fn only(outcomes: &[ServiceOutcome]) -> (Option<u16>, Option<Via>, Option<String>) {
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

pub fn status(edge: &Handle) -> Result<serde_json::Value> {
    edge.run(|| {
        let mut stream = TcpStream::connect("127.0.0.1:9091")?;
        stream.write_all(b"GET /v1/status HTTP/1.0\r\nHost: edge\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (_, body) = text.split_once("\r\n\r\n").context("no body")?;
        Ok(serde_json::from_str(body)?)
    })
}

impl Daemon {
    /// The error of a daemon that does not start.
    pub fn thread_result(mut self) -> String {
        match self.thread.take().unwrap().join().unwrap() {
            Ok(()) => String::new(),
            Err(error) => format!("{error:#}"),
        }
    }
}
