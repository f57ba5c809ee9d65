//! The userspace path.
//!
//! ```text
//!  client                    edge                      home
//!  cl0 44.128.0.1/24 ─────── wan0 44.128.0.2/24
//!                            wg0  10.0.0.1/24 ──────── up0 10.0.0.2/24, lo 10.96.0.10/32
//! ```
//!
//! The tunnel is a plain veth: what WireGuard does is not the subject here.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use exposer_common::proto::message::{EdgeMessage, ErrorCode, Path as Via};
use exposer_testkit::netns::Netns;
use exposer_testkit::traffic::{Client, Server};

use super::support::{Agent, CONTROL, Daemon, PATIENCE, TOKEN, only, patiently, public, status, web};

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

#[test]
fn a_service_is_published_survives_restarts_and_goes() {
    let network = Network::new("ctlapp");
    let folder = tempfile::tempdir().unwrap();
    let config = Daemon::config(folder.path(), &["--datapath=userspace".to_owned()]);
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
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
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
    let config = Daemon::config(folder.path(), &["--datapath=userspace".to_owned()]);
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
    // Whoever is connected hears why the edge goes.
    daemon.end().unwrap();
    let (message, _) = agent.hear().unwrap();
    assert!(
        matches!(&message, EdgeMessage::Error(error) if error.code == ErrorCode::ShuttingDown),
        "{message:?}"
    );
}

#[test]
fn the_control_channel_waits_for_the_tunnel() {
    let network = Network::new("ctlwait");
    let folder = tempfile::tempdir().unwrap();
    let config = Daemon::config(folder.path(), &["--datapath=userspace".to_owned()]);
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

#[test]
fn a_state_folder_that_cannot_be_written_stops_nothing_and_is_tried_again() {
    let network = Network::new("ctldisk");
    let folder = tempfile::tempdir().unwrap();
    let mut config = Daemon::config(folder.path(), &["--datapath=userspace".to_owned()]);
    let blocked = folder.path().join("disk");
    std::fs::write(&blocked, "a file where a folder should be").unwrap();
    config.state_dir = blocked.join("state");
    let target = SocketAddr::from(([10, 96, 0, 10], 80));
    let _server = Server::tcp(&network.home, target, "web-at-home").unwrap();
    let client = Client::new(network.client.handle(), IpAddr::from([44, 128, 0, 1]));

    let daemon = Daemon::start(&network.edge, config.clone());
    let mut agent = Agent::connect(&network.home, TOKEN).unwrap().welcomed();
    assert_eq!(
        only(&agent.snapshot(vec![web(8080)])),
        (Some(8080), Some(Via::Userspace), None)
    );
    assert_eq!(
        client.ask_name(public(8080), PATIENCE).unwrap().trim(),
        "web-at-home"
    );
    // The disk is mended while the daemon runs: the state arrives without any further change.
    std::thread::sleep(Duration::from_millis(500));
    std::fs::remove_file(&blocked).unwrap();
    patiently(|| {
        let text = std::fs::read_to_string(config.state_dir.join("state.json"))?;
        anyhow::ensure!(text.contains("\"subdomain\":\"web\""), "{text}");
        Ok(())
    })
    .unwrap();
    daemon.end().unwrap();
}
