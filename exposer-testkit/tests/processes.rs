//! Processes are started, watched and ended by their id, and waiting for a dead one does not take its whole patience.
#![expect(clippy::expect_used, reason = "test code")]

use std::process::Command;
use std::time::{Duration, Instant};

use exposer_testkit::process::{Process, project_binary, wait_until};
use nix::sys::signal::Signal;

fn shell(script: &str, log: &std::path::Path) -> Process {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    Process::start("shell", command, log).expect("sh starts")
}

#[test]
fn waiting_for_a_dead_process_ends_at_once_with_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = shell("echo the reason; exit 7", &folder.path().join("log"));
    let start = Instant::now();
    let error = wait_until(
        "what never comes",
        Duration::from_secs(60),
        || -> anyhow::Result<()> {
            process.alive()?;
            anyhow::bail!("not yet")
        },
    )
    .unwrap_err();
    let text = format!("{error:#}");
    assert!(start.elapsed() < Duration::from_secs(30), "{text}");
    for part in ["what never comes", "exit status: 7", "the reason"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn waiting_in_vain_says_for_what_and_why() {
    let error = wait_until(
        "a miracle",
        Duration::from_millis(50),
        || -> anyhow::Result<()> { anyhow::bail!("none today") },
    )
    .unwrap_err();
    assert!(
        format!("{error:#}").contains("a miracle: none today"),
        "{error:#}"
    );
}

#[test]
fn a_process_that_ignores_sigterm_is_killed_when_its_guard_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut process = shell("trap '' TERM; echo ready; while :; do sleep 0.1; done", &log);
    wait_until("the trap", Duration::from_secs(30), || {
        anyhow::ensure!(process.log().contains("ready"));
        Ok(())
    })
    .unwrap();
    assert!(process.end(Signal::SIGTERM, Duration::from_millis(300)).is_err());
    let pid = process.pid();
    drop(process);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn a_missing_binary_says_how_to_build_it() {
    let error = project_binary("exposer-nothing").unwrap_err().to_string();
    assert!(error.contains("cargo build"), "{error}");
}

#[test]
fn a_child_hears_signals_that_its_parent_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let parent = std::thread::spawn(move || {
        let mut set = nix::sys::signal::SigSet::empty();
        set.add(Signal::SIGTERM);
        set.thread_block().unwrap();
        let mut process = shell("echo ready; exec sleep 60", &folder.path().join("log"));
        wait_until("the shell", Duration::from_secs(30), || {
            anyhow::ensure!(process.log().contains("ready"));
            Ok(())
        })
        .unwrap();
        process.end(Signal::SIGTERM, Duration::from_secs(30)).unwrap();
    });
    parent.join().unwrap();
}
