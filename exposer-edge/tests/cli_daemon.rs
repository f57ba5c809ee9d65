//! The commands beside a real daemon with the kernel path, in one namespace: status, flows, health and metrics while it
//! runs; what they say after SIGKILL; and cleanup. Needs root and the eBPF object.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "test code: a failed expectation is a failed test"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use exposer_edge::status::Status;
use exposer_testkit::bpffs::Bpffs;
use exposer_testkit::netns::Netns;
use exposer_testkit::process::{Process, wait_until};
use exposer_testkit::scratch::Scratch;
use nix::sys::signal::Signal;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(45);
const EDGE: &str = env!("CARGO_BIN_EXE_exposer-edge");

/// `far0 ─── wan0 [edge] wg0`, a veth and a TUN device: what crosses them is not the subject here.
struct Stage {
    edge: Netns,
    _far: Netns,
    scratch: Scratch,
    bpffs: Bpffs,
}

impl Stage {
    fn new(test: &str) -> Result<Self> {
        let (edge, far) = (Netns::new(test, "edge")?, Netns::new(test, "far")?);
        edge.connect("wan0", &far, "far0")?;
        edge.ip("tuntap add wg0 mode tun")?;
        edge.ip("link set wg0 up")?;
        edge.ip("addr add 203.0.113.7/24 dev wan0")?;
        edge.ip("route add default via 203.0.113.1")?;
        edge.ip("addr add 10.0.0.1/24 dev wg0")?;
        let scratch = Scratch::new(test)?;
        std::fs::write(
            scratch.path().join("token"),
            "0123456789abcdef0123456789abcdef-cli",
        )?;
        let bpffs = Bpffs::new(test)?;
        Ok(Self {
            edge,
            _far: far,
            scratch,
            bpffs,
        })
    }

    fn pins(&self) -> String {
        self.bpffs.path().join("exposer").display().to_string()
    }

    fn daemon(&self) -> Result<Process> {
        let mut command = self.edge.command(EDGE)?;
        command.args([
            "run",
            "--datapath",
            "kernel",
            "--bpffs",
            &self.pins(),
            "--token-file",
        ]);
        command.arg(self.scratch.path().join("token"));
        command.arg("--state-dir").arg(self.scratch.path().join("state"));
        Process::start("exposer-edge", command, &self.scratch.path().join("log"))
    }

    /// Runs a command of the edge in the namespace, and gives its exit status and what it printed.
    fn run(&self, verb: &[&str]) -> Result<(i32, String)> {
        let mut command = self.edge.command(EDGE)?;
        command
            .args(verb)
            .args(["--bpffs", &self.pins()])
            .stdin(Stdio::null());
        let Output {
            status,
            stdout,
            stderr,
        } = command.output()?;
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&stdout),
            String::from_utf8_lossy(&stderr)
        );
        Ok((status.code().context("killed")?, text))
    }

    /// Status line and body of a GET to the admin API.
    fn get(&self, path: &str) -> Result<(String, String)> {
        let answer = self.edge.run(|| {
            let mut stream = TcpStream::connect("127.0.0.1:9091")?;
            stream.set_read_timeout(Some(PATIENCE))?;
            write!(
                stream,
                "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            )?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        Ok((
            head.lines().next().unwrap_or_default().to_owned(),
            body.to_owned(),
        ))
    }
}

#[test]
fn a_daemon_is_shown_while_it_runs_and_after_it_was_killed() -> Result<()> {
    let stage = Stage::new("cli_daemon")?;
    nobody_there(&stage)?;
    let mut daemon = stage.daemon()?;
    wait_until("the daemon's status", PATIENCE, || {
        daemon.alive()?;
        let (code, text) = stage.run(&["status"])?;
        ensure!(code == 0, "status gives {code}: {text}\n{}", daemon.tail());
        Ok(())
    })?;
    running(&stage, &daemon)?;
    daemon.end(Signal::SIGKILL, PATIENCE)?;
    killed(&stage)?;
    cleaned(&stage)
}

fn nobody_there(stage: &Stage) -> Result<()> {
    let (code, text) = stage.run(&["status"])?;
    assert_eq!(code, 3, "{text}");
    assert!(
        text.contains("no daemon answers on 127.0.0.1:9091") && text.contains("Nothing of it is left"),
        "{text}"
    );
    let (code, text) = stage.run(&["flows"])?;
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("there is no flow table") && text.contains("exposer-edge check"),
        "{text}"
    );
    Ok(())
}

fn running(stage: &Stage, daemon: &Process) -> Result<()> {
    let (code, text) = stage.run(&["status", "--output", "json"])?;
    let status: Status = serde_json::from_str(&text).context(text)?;
    assert_eq!((code, status.pid), (0, daemon.pid()));
    assert_eq!(status.environment.wan.name, "wan0");
    let (_, text) = stage.run(&["status"])?;
    for part in [
        "Ready.",
        "203.0.113.7/24",
        "Path: kernel",
        "wan_ingress on wan0: tcx",
        "No agent has connected.",
    ] {
        assert!(text.contains(part), "\"{part}\" is not in\n{text}");
    }
    let (code, text) = stage.run(&["flows"])?;
    assert_eq!((code, text.trim()), (0, "0 of 0 matching flows, 0 in all"));
    for (path, line, part) in [
        ("/healthz", "HTTP/1.1 200 OK", "ok"),
        ("/readyz", "HTTP/1.1 200 OK", "ready"),
        ("/metrics", "HTTP/1.1 200 OK", "exposer_edge_ready 1"),
        ("/v1/status", "HTTP/1.1 200 OK", "\"not_ready\":[]"),
        ("/v2/status", "HTTP/1.1 404 Not Found", ""),
    ] {
        let (head, body) = stage.get(path)?;
        assert_eq!(head, line, "{path}");
        assert!(body.contains(part), "{path}: {body}");
    }
    let (_, text) = stage.run(&["check", "--output", "json"])?;
    let report: Value = serde_json::from_str(&text).context(text)?;
    let row = |name: &str| {
        report["rows"]
            .as_array()
            .and_then(|rows| rows.iter().find(|row| row["check"] == name).cloned())
    };
    let row = |name: &str| row(name).expect("a row of that name");
    assert_eq!(
        row("listen-address")["state"],
        "ok",
        "the daemon's own listener is no stranger: {report:#}"
    );
    assert!(
        row("admin-address")["found"]
            .as_str()
            .is_some_and(|text| text.contains("the daemon answers")),
        "{report:#}"
    );
    assert_eq!(
        (&row("bpffs")["state"], &row("ebpf-object")["state"]),
        (&"ok".into(), &"ok".into())
    );
    Ok(())
}

fn killed(stage: &Stage) -> Result<()> {
    let (code, text) = stage.run(&["status"])?;
    assert_eq!(code, 3, "{text}");
    for part in [
        "The kernel still holds",
        "/FLOWS",
        "links/",
        "systemctl start exposer-edge",
    ] {
        assert!(text.contains(part), "\"{part}\" is not in\n{text}");
    }
    let (_, text) = stage.run(&["status", "-o", "json"])?;
    let answer: Value = serde_json::from_str(&text).context(text)?;
    assert!(
        answer["pinned"].as_array().is_some_and(|pins| pins.len() >= 10),
        "{answer:#}"
    );
    let (code, text) = stage.run(&["flows", "--output", "json"])?;
    let flows: Value = serde_json::from_str(&text).context(text)?;
    assert_eq!((code, &flows["total"]), (0, &Value::from(0)));
    Ok(())
}

fn cleaned(stage: &Stage) -> Result<()> {
    let (code, text) = stage.run(&["cleanup"])?;
    assert_eq!(code, 1, "without a terminal it asks for --yes: {text}");
    assert!(text.contains("--yes"), "{text}");
    let (code, text) = stage.run(&["cleanup", "--dry-run"])?;
    assert!(
        code == 0 && text.contains("Would remove") && text.contains("/FLOWS"),
        "{text}"
    );
    let (code, text) = stage.run(&["cleanup", "--yes"])?;
    assert!(
        code == 0 && text.contains("Removed:") && text.contains("link "),
        "{text}"
    );
    let (code, text) = stage.run(&["cleanup", "--yes"])?;
    assert_eq!(
        (code, text.trim()),
        (0, "Nothing of Exposer is pinned or attached by a filter.")
    );
    assert_eq!(stage.run(&["flows"])?.0, 1);
    Ok(())
}
