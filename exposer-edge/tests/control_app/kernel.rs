//! The kernel path over real WireGuard, in the standard network of the testkit: the daemon ends and comes back, the
//! tunnel goes and comes back, and a transfer under way notices nothing.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use exposer_common::proto::message::Path as Via;
use exposer_edge::net::environment::Environment;
use exposer_testkit::topology::{CLIENT_FAR, Options, Topology};
use exposer_testkit::traffic::continuous::SlowTransfer;
use exposer_testkit::traffic::{Client, Server};

use super::support::{Agent, Daemon, PATIENCE, TOKEN, only, patiently, public, status, web};

#[test]
fn a_transfer_outlives_the_daemon_and_the_kernel_path_comes_back() {
    let mut topology = Topology::new("ctlkern", Options::default()).unwrap();
    let service = IpAddr::from([10, 96, 0, 10]);
    topology.add_service_address(service).unwrap();
    let _server = Server::tcp(&topology.home, SocketAddr::from((service, 80)), "web-at-home").unwrap();
    let client = Client::new(topology.client.handle(), CLIENT_FAR);
    let flags = [
        "--datapath=kernel".to_owned(),
        format!("--bpffs={}", topology.bpffs.path().display()),
    ];
    let config = Daemon::config(topology.folder(), &flags);
    let daemon = Daemon::start(&topology.edge, config.clone());
    let mut agent = Agent::connect(&topology.home, TOKEN).unwrap().welcomed();
    assert_eq!(
        only(&agent.snapshot(vec![web(8080)])),
        (Some(8080), Some(Via::Kernel), None)
    );
    client.download(public(8080), 10 << 20).unwrap().check().unwrap();
    patiently(|| {
        let status = status(&topology.edge)?;
        let packets = status["services"][0]["ports"][0]["stats"]["packets_out"].as_u64();
        anyhow::ensure!(
            packets > Some(1_000),
            "the kernel path counted too little: {status}"
        );
        anyhow::ensure!(status["datapath"]["path"] == "kernel", "{status}");
        Ok(())
    })
    .unwrap();

    // The daemon ends and comes back in the middle of a transfer.
    let transfer = SlowTransfer::start(
        &client,
        public(8080),
        4 << 20,
        64 << 10,
        Duration::from_millis(100),
    )
    .unwrap();
    patiently(|| {
        anyhow::ensure!(transfer.arrived() > 0, "nothing arrives");
        Ok(())
    })
    .unwrap();
    drop(agent);
    daemon.end().unwrap();
    assert!(
        !transfer.is_finished(),
        "the transfer was over before the daemon was"
    );
    let daemon = Daemon::start(&topology.edge, config);
    transfer.finish().unwrap().transfer.check().unwrap();
    let mut agent = Agent::connect(&topology.home, TOKEN).unwrap().welcomed();
    assert_eq!(
        only(&agent.snapshot(vec![web(8080)])),
        (Some(8080), Some(Via::Kernel), None)
    );

    // The tunnel goes and comes back with another index: attached anew, and said so.
    topology.restart_edge_tunnel().unwrap();
    topology.home_wg.wait_for_handshake(PATIENCE).unwrap();
    patiently(|| {
        let status = status(&topology.edge)?;
        let environment: Environment = serde_json::from_value(status["environment"].clone())?;
        anyhow::ensure!(environment.tunnel.ifindex.is_some(), "{status}");
        anyhow::ensure!(status["services"][0]["ports"][0]["path"] == "kernel", "{status}");
        anyhow::ensure!(status["not_ready"] == serde_json::json!([]), "{status}");
        client.download(public(8080), 1 << 20)?.check()
    })
    .unwrap();
    daemon.end().unwrap();
}
