//! The demo passes with the real binaries, and cleans up after itself: after Ctrl-C, after SIGTERM, and what a killed
//! one left is swept by the next; needs root.
//!
//! Needs root.
#![expect(clippy::unwrap_used, reason = "test code")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use exposer_testkit::bpffs::Bpffs;
use exposer_testkit::netns::Netns;
use exposer_testkit::process::{Process, wait_until};
use exposer_testkit::scratch::Scratch;
use exposer_testkit::turn::Turn;
use nix::sys::signal::Signal;

const MANIFEST: &str = "apiVersion: v1\nkind: Service\nmetadata:\n  name: nginx-test\n  annotations:\n    \
    expose.neverup.at/subdomain: nginx-test\n    expose.neverup.at/ports: 80/tcp\nspec:\n  ports:\n  - port: 80\n";

/// The demo itself waits for nobody, so its tests do: one tunnel too many takes the processor from the others.
fn turn() -> Turn {
    Turn::wait(Duration::from_secs(900)).unwrap()
}

/// A running demo and the folder of its manifest and log.
fn demo() -> (Process, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("service.yaml"), MANIFEST).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_exposer-demo"));
    command
        .args(["--only", "live", "--keep", "--manifests"])
        .arg(folder.path());
    // Temporary folders of the demo land where this test can see them.
    command.env("TMPDIR", folder.path());
    let mut demo = Process::start("exposer-demo", command, &folder.path().join("demo.log")).unwrap();
    wait_until(
        "the demo's home namespace with its tunnel",
        Duration::from_secs(120),
        || {
            demo.alive()?;
            anyhow::ensure!(namespaces(demo.pid()).len() == 3 && demo.log().contains("first handshake"));
            Ok(())
        },
    )
    .unwrap();
    (demo, folder)
}

fn namespaces(pid: u32) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/run/netns") else {
        return Vec::new();
    };
    let mark = format!("-{pid}-");
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("xpo-demo-") && name.contains(&mark))
        .collect()
}

fn folders(parent: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(parent).unwrap().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("xpo-demo-"))
        .collect()
}

fn mounts_below(folder: &Path) -> usize {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    mounts
        .lines()
        .filter(|line| line.contains(&*folder.to_string_lossy()))
        .count()
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    let _turn = turn();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let (mut demo, folder) = demo();
        assert_eq!(mounts_below(folder.path()), 1, "its private bpffs");
        let status = demo.end(signal, Duration::from_secs(60)).unwrap();
        assert!(!status.success(), "an interrupted demo has shown nothing");
        assert!(demo.log().contains("cleaning up"), "{}", demo.tail());
        assert_eq!(namespaces(demo.pid()), Vec::<String>::new(), "after {signal}");
        assert_eq!(folders(folder.path()), Vec::<String>::new(), "after {signal}");
        assert_eq!(mounts_below(folder.path()), 0, "after {signal}");
    }
}

#[test]
fn a_killed_demo_is_swept_by_the_next_run_and_a_living_one_is_left_alone() {
    let _turn = turn();
    let (mut demo, folder) = demo();
    let pid = demo.pid();
    sweep();
    assert_eq!(
        namespaces(pid).len(),
        3,
        "the namespaces of a living run were swept"
    );
    let helpers = children(pid);
    assert!(!helpers.is_empty(), "the demo has started WireGuard or the edge");

    demo.end(Signal::SIGKILL, Duration::from_secs(5)).unwrap();
    sweep();
    // Another test's run may be sweeping the same, and not be done with it.
    wait_until(
        "the killed run's namespaces, folders, mounts and processes to be gone",
        Duration::from_secs(30),
        || {
            let alive: Vec<_> = helpers.iter().filter(|pid| lives(**pid)).collect();
            anyhow::ensure!(alive.is_empty(), "{alive:?}");
            let left = [namespaces(pid), folders(folder.path())].concat();
            anyhow::ensure!(left.is_empty(), "{left:?}");
            anyhow::ensure!(mounts_below(folder.path()) == 0, "a mount");
            Ok(())
        },
    )
    .unwrap();
}

/// Does what every run does first.
fn sweep() {
    drop(Netns::new("sweep", "next").unwrap());
    drop(Bpffs::new("sweep").unwrap());
    drop(Scratch::new("sweep").unwrap());
}

fn children(parent: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{parent}/task"))
        .unwrap()
        .flatten();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|line| {
            line.split_ascii_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}

fn lives(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn every_row_passes_with_the_real_binaries() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_exposer-demo"));
    command.args(["--megabytes", "10"]).env("TMPDIR", folder.path());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("11 of 11 rows passed"), "{text}");
    assert_eq!(folders(folder.path()), Vec::<String>::new());
    assert_eq!(mounts_below(folder.path()), 0);
}

#[test]
fn an_unknown_row_is_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_exposer-demo"))
        .args(["--only", "no-such-row"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("no-such-row") && text.contains("--list"), "{text}");
}
