//! Tokens of single agents beside a running daemon: added and revoked by the command line, taken up without a restart.
//!
//! ```text
//!  edge                      home
//!  wg0 10.0.0.1/24 ──────── up0 10.0.0.2/24
//! ```

use std::path::Path;
use std::process::Command;

use anyhow::ensure;
use exposer_common::proto::message::{EdgeMessage, ErrorCode};
use exposer_testkit::netns::Netns;

use super::support::{Agent, Daemon, TOKEN, only, patiently, status, web};

fn token(state: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_exposer-edge"))
        .arg("token")
        .args(arguments)
        .arg("--state-dir")
        .arg(state)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The code with which the edge ends the connection.
fn ended(agent: &mut Agent) -> ErrorCode {
    loop {
        if let EdgeMessage::Error(error) = agent.hear().unwrap().0 {
            return error.code;
        }
    }
}

#[test]
fn a_token_is_taken_up_and_given_up_without_a_restart() {
    let edge = Netns::new("ctltok", "edge").unwrap();
    let home = Netns::new("ctltok", "home").unwrap();
    edge.connect("wg0", &home, "up0").unwrap();
    edge.ip("addr add 10.0.0.1/24 dev wg0").unwrap();
    home.ip("addr add 10.0.0.2/24 dev up0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = Daemon::config(
        folder.path(),
        &[
            "--datapath=userspace".to_owned(),
            "--public-interface=lo".to_owned(),
        ],
    );
    let state = config.state_dir.clone();
    let daemon = Daemon::start(&edge.handle(), config);

    let mut shared = Agent::connect(&home.handle(), TOKEN).unwrap().welcomed();
    shared.snapshot(vec![web(8080)]);
    let own = token(&state, &["add", "home", "--ports", "8080-8089"]);
    assert_eq!(
        ended(&mut shared),
        ErrorCode::AccessChanged,
        "the shared token does not open the name any more"
    );

    let mut agent = Agent::connect(&home.handle(), &own).unwrap().welcomed();
    let (given, _, refused) = only(&agent.snapshot(vec![web(80)]));
    assert_eq!(given, None);
    assert!(
        refused.as_deref().is_some_and(|text| text.contains("8080-8089")),
        "{refused:?}"
    );
    assert_eq!(only(&agent.snapshot(vec![web(8081)])).0, Some(8081));

    token(&state, &["revoke", "home"]);
    assert_eq!(ended(&mut agent), ErrorCode::AccessChanged);
    patiently(|| {
        let status = status(&edge.handle())?;
        ensure!(
            status["services"].as_array().is_some_and(Vec::is_empty),
            "{status}"
        );
        Ok(())
    })
    .unwrap();
    let mut wrong = Agent::connect(&home.handle(), &own).unwrap();
    assert_eq!(ended(&mut wrong), ErrorCode::Unauthenticated);
    daemon.end().unwrap();
}
