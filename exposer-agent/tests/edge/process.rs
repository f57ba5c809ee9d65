//! The real binary, from a cluster to an edge: the embedded API server on one side, the scripted edge on the other.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use exposer_common::model::{PortRecord, ServicePort};
use exposer_common::proto::message::{AgentMessage, ErrorCode};
use exposer_testkit::kube_api::KubeApi;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::conversation::{Conversation, get, is_delta, is_snapshot, listener, soon};
use crate::script::{TOKEN, id};

const GAME: &str = "
apiVersion: v1
kind: Service
metadata:
  name: game
  namespace: default
  annotations:
    expose.neverup.at/subdomain: game
    expose.neverup.at/ports: PORTS
spec:
  clusterIP: 10.96.0.20
  selector: {app: game}
  ports:
    - {name: tcp, port: 25565, protocol: TCP, targetPort: 30001}
    - {name: udp, port: 25565, protocol: UDP}
";

fn game(ports: &str) -> String {
    GAME.replace("PORTS", &format!("\"{ports}\""))
}

/// The agent's process, its files, and what it logs.
struct Agent {
    child: Child,
    directory: tempfile::TempDir,
}

impl Agent {
    fn command(directory: &Path, api: &KubeApi, edge: &str) -> Command {
        let file = |name: &str, text: &str| -> PathBuf {
            let path = directory.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let mut command = Command::new(env!("CARGO_BIN_EXE_exposer-agent"));
        // Settings by variable, as the manifests give them; the kubeconfig has only a flag.
        command
            .env_clear()
            .env("SERVER_ADDR", edge)
            .env("TOKEN_FILE", file("token", TOKEN))
            .env("METRICS_ADDR", "127.0.0.1:0")
            .env("LOG_FORMAT", "json")
            .env("LOG_LEVEL", "DEBUG")
            .arg("run")
            .arg("--kubeconfig")
            .arg(file("kubeconfig", &api.kubeconfig_yaml()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(directory.join("log")).unwrap())
            .kill_on_drop(true);
        command
    }

    fn start(api: &KubeApi, edge: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let child = Self::command(directory.path(), api, edge).spawn().unwrap();
        Self { child, directory }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// The first log line with this `action`; each line is one JSON object.
    async fn line(&self, action: &str) -> Value {
        soon(action, async {
            loop {
                let log = self.log();
                let mut lines = log
                    .lines()
                    .filter_map(|line| serde_json::from_str::<Value>(line).ok());
                if let Some(line) = lines.find(|line| line["action"] == action) {
                    return line;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }

    async fn terminate(&mut self) -> ExitStatus {
        let pid = i32::try_from(self.child.id().expect("it runs")).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
        soon("the end of the agent", self.child.wait()).await.unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the agent's log:\n{}", self.log());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn from_an_annotation_to_an_event() {
    let api = KubeApi::start_on_loopback().unwrap();
    api.apply_yaml(&game("25565/tcp+udp")).unwrap();
    let listener = listener().await;
    let mut agent = Agent::start(&api, &listener.local_addr().unwrap().to_string());
    let probes = agent.line("listen").await["address"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();

    // The snapshot holds the Service as the cluster has it.
    let mut edge = Conversation::open(&listener).await;
    edge.read_until("the snapshot", is_snapshot).await;
    let record = edge.edge.services[&id("game")].clone();
    record.validate().unwrap();
    assert_eq!(
        (record.subdomain.as_str(), record.cluster_ip),
        ("game", Some([10, 96, 0, 20].into()))
    );
    let side = |target_port| {
        Some(ServicePort {
            service_port: 25_565,
            target_port,
            node_port: None,
        })
    };
    let udp = record.ports[0].udp.expect("udp");
    assert_eq!(udp.service_port, 25_565);
    assert_eq!(
        record.ports,
        [PortRecord {
            public_port: 25_565,
            tcp: side(Some(30_001)),
            udp: Some(udp)
        }]
    );
    let ready = get(probes, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");

    // What the edge made of it becomes an Event of the Service.
    edge.ack().await;
    let event = api
        .wait_event(Duration::from_secs(60), |event| {
            event["regarding"]["name"] == "game"
        })
        .await
        .unwrap();
    assert!(event["note"].as_str().unwrap().contains("25565"), "{event}");

    // Changed, broken, mended, deleted: the edge hears of what is valid, its owner of what is not.
    api.apply_yaml(&game("4000:25565/tcp")).unwrap();
    edge.read_until("the change", is_delta).await;
    assert_eq!(edge.edge.services[&id("game")].ports[0].public_port, 4_000);
    edge.ack().await;
    edge.edge.drain();
    api.apply_yaml(&game("4000:25565/tpc")).unwrap();
    let event = api
        .wait_event(Duration::from_secs(60), |event| {
            event["note"].as_str().is_some_and(|note| note.contains("tpc"))
        })
        .await
        .unwrap();
    assert_eq!(event["type"], "Warning", "{event}");
    assert!(
        event["note"].as_str().unwrap().contains("did you mean \"tcp\"?"),
        "{event}"
    );
    edge.read_until("the withdrawal", is_delta).await;
    assert!(
        edge.edge.services.is_empty(),
        "a Service that is not valid is not exposed"
    );
    edge.ack().await;
    edge.edge.drain();
    api.apply_yaml(&game("4001:25565/udp")).unwrap();
    edge.read_until("the Service again", is_delta).await;
    edge.ack().await;
    edge.edge.drain();
    api.delete("default", "game").unwrap();
    edge.read_until("the deletion", is_delta).await;
    assert!(edge.edge.services.is_empty());

    let exit = agent.terminate().await;
    assert_eq!(exit.code(), Some(0));
    edge.read_until(
        "goodbye",
        |message| matches!(message, AgentMessage::Error(error) if error.code == ErrorCode::ShuttingDown),
    )
    .await;
    let log = agent.log();
    assert!(!log.contains(TOKEN), "the token is in the log");
    for line in log.lines() {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(
            value["component"].is_string() && value["action"].is_string(),
            "{line}"
        );
    }
}

/// The edge goes away and comes back: the agent says why it waits, and is back without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_comes_late() {
    let api = KubeApi::start_on_loopback().unwrap();
    api.apply_yaml(&game("25565/tcp")).unwrap();
    let listener = listener().await;
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut agent = Agent::start(&api, &address.to_string());
    let line = agent.line("retry").await;
    assert!(
        line["message"]
            .as_str()
            .unwrap()
            .contains("check that the tunnel is up"),
        "{line}"
    );
    assert_eq!(line["edge"], address.to_string());
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let mut edge = Conversation::open(&listener).await;
    edge.read_until("the snapshot", is_snapshot).await;
    assert_eq!(agent.terminate().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_can_not_start_with() {
    let api = KubeApi::start_on_loopback().unwrap();
    let table = [
        (
            "SYNC_INTERVAL",
            "soon",
            2,
            "--sync-interval (SYNC_INTERVAL) is \"soon\"",
        ),
        ("LOG_LEVEL", "loud", 2, "--log-level (LOG_LEVEL) is \"loud\""),
        (
            "METRICS_ADDR",
            "192.0.2.1:1",
            1,
            "--metrics-addr (METRICS_ADDR) 192.0.2.1:1 can't be used",
        ),
    ];
    for (variable, value, code, text) in table {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Agent::command(directory.path(), &api, "127.0.0.1:1");
        let output = soon(
            "the end",
            command.env(variable, value).stderr(Stdio::piped()).output(),
        )
        .await
        .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(text), "{said}");
    }
    // No cluster at all.
    let mut command = Command::new(env!("CARGO_BIN_EXE_exposer-agent"));
    command
        .env_clear()
        .env("METRICS_ADDR", "off")
        .args(["run", "--kubeconfig", "/nonexistent/kubeconfig"]);
    let output = soon("the end", command.output()).await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("kubeconfig /nonexistent/kubeconfig can't be used"),
        "{said}"
    );
}
