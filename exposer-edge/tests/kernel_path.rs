//! The kernel path alone, over real WireGuard: programs loaded and attached by the datapath itself, traffic both
//! ways, and what stays when the datapath is dropped. The topology is drawn in `exposer_testkit::topology`.
//! Needs root.
#![expect(clippy::arithmetic_side_effects, reason = "test code")]

mod kernel_stage;

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use exposer_common::flow::Bucket;
use exposer_common::model::Protocol;
use exposer_common::names::MAP_UNREPLIED;
use exposer_common::verdict::Reason;
use exposer_edge::datapath::kernel::{limits, load};
use exposer_edge::datapath::{BindingKey, Datapath as _};
use exposer_testkit::topology::{CLIENT_FAR, CLIENT_ON_LINK, EDGE_TUNNEL, Options};
use exposer_testkit::traffic::continuous::SlowTransfer;
use exposer_testkit::traffic::server::Server;
use kernel_stage::{DRAIN, SERVICE, Stage, binding, open};

#[test]
fn tcp_both_ways_from_near_and_far() -> Result<()> {
    for offloads in [true, false] {
        let mut stage = Stage::new("ktcp", Options { offloads })?;
        let server = Server::tcp(
            &stage.topology.home.handle(),
            SocketAddr::from((SERVICE, 9000)),
            "backend",
        )?;
        stage.datapath.upsert(&binding(25_565, Protocol::Tcp, 1), DRAIN)?;
        let public = stage.topology.public(25_565);
        for address in [CLIENT_ON_LINK, CLIENT_FAR] {
            let client = stage.client(address);
            client.download(public, 3_000_000)?.check()?;
            client.upload(public, 3_000_000)?.check()?;
        }
        ensure!(
            server.served() == 4,
            "four connections, {} served",
            server.served()
        );
        let flows = stage.flows()?;
        ensure!(flows.len() == 4, "four flows: {flows:#?}");
        for flow in &flows {
            ensure!(
                *flow.snat.ip() == EDGE_TUNNEL && flow.snat.port() < 30_000,
                "{flow:?}"
            );
            ensure!(
                flow.packets_in > 3 && flow.packets_out > 3 && flow.bytes_in + flow.bytes_out > 3_000_000,
                "{flow:?}"
            );
        }
        for (netns, name) in [(&stage.topology.client, "client"), (&stage.topology.home, "home")] {
            let wrong = netns.counter("Tcp", "InCsumErrors")?;
            ensure!(
                wrong == 0,
                "{wrong} segments with a wrong checksum at {name}, offloads {offloads}"
            );
        }
        ensure!(stage.reason(Reason::ForwardNew)? == 4);
        let stats = stage
            .datapath
            .stats(BindingKey {
                port: 25_565,
                protocol: Protocol::Tcp,
            })
            .context("no counters")?;
        ensure!(
            stats.flows == 4 && stats.bytes_in > 6_000_000 && stats.bytes_out > 6_000_000,
            "{stats:?}"
        );
    }
    Ok(())
}

#[test]
fn udp_of_every_size_unchanged() -> Result<()> {
    let mut stage = Stage::new("kudp", Options::default())?;
    let _server = Server::udp(
        &stage.topology.home.handle(),
        SocketAddr::from((SERVICE, 9000)),
        "backend",
    )?;
    stage.datapath.upsert(&binding(25_565, Protocol::Udp, 1), DRAIN)?;
    for address in [CLIENT_ON_LINK, CLIENT_FAR] {
        stage
            .client(address)
            .udp_echo(stage.topology.public(25_565), 1000, 1, 1372)?
            .check()?;
    }
    let flows = stage.flows()?;
    ensure!(
        flows.iter().map(|flow| flow.packets_in).sum::<u64>() == 2000,
        "{flows:#?}"
    );
    Ok(())
}

/// Waits until so many bytes have arrived. A flow that was cut never gets there.
fn until_arrived(transfer: &SlowTransfer, wanted: u64) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while transfer.arrived() < wanted {
        ensure!(
            Instant::now() < deadline,
            "the transfer stands still at {} of {wanted} bytes",
            transfer.arrived()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

#[test]
fn a_flow_outlives_the_datapath_and_is_adopted() -> Result<()> {
    let mut stage = Stage::new("kadopt", Options::default())?;
    let _server = Server::tcp(
        &stage.topology.home.handle(),
        SocketAddr::from((SERVICE, 9000)),
        "backend",
    )?;
    stage.datapath.upsert(&binding(25_565, Protocol::Tcp, 1), DRAIN)?;
    let transfer = SlowTransfer::start(
        &stage.client(CLIENT_FAR),
        stage.topology.public(25_565),
        2_000_000,
        20_000,
        Duration::from_millis(20),
    )?;
    until_arrived(&transfer, 200_000)?;
    let Stage { topology, datapath } = stage;
    drop(datapath);
    let before = transfer.arrived();
    until_arrived(&transfer, before + 200_000)?;
    let mut datapath = open(&topology)?;
    datapath.upsert(&binding(25_565, Protocol::Tcp, 1), DRAIN)?;
    let stage = Stage { topology, datapath };
    transfer.finish()?.transfer.check()?;
    let flows = stage.flows()?;
    ensure!(
        flows.len() == 1 && flows[0].bytes_out > 2_000_000,
        "one flow from end to end: {flows:#?}"
    );
    Ok(())
}

#[test]
fn a_removed_tcp_service_drains_and_a_removed_udp_service_ends() -> Result<()> {
    let mut stage = Stage::new("kremove", Options::default())?;
    let home = stage.topology.home.handle();
    let _tcp = Server::tcp(&home, SocketAddr::from((SERVICE, 9000)), "backend")?;
    let _udp = Server::udp(&home, SocketAddr::from((SERVICE, 9000)), "backend")?;
    let keys = [Protocol::Tcp, Protocol::Udp].map(|protocol| binding(25_565, protocol, 1));
    for binding in &keys {
        stage.datapath.upsert(binding, DRAIN)?;
    }
    let client = stage.client(CLIENT_FAR);
    let public = stage.topology.public(25_565);
    client.udp_ping(public, Duration::from_secs(2))?;
    client.ask_name(public, Duration::from_secs(2))?;
    ensure!(stage.flows()?.len() == 2);
    for binding in &keys {
        stage.datapath.remove(binding.key, DRAIN)?;
    }
    ensure!(
        client.ask_name(public, Duration::from_secs(1)).is_err(),
        "a removed service takes no new connection"
    );
    ensure!(
        client.udp_ping(public, Duration::from_millis(300)).is_err(),
        "a removed service answers no datagram"
    );
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        stage.datapath.tick()?;
        let left = stage.flows()?;
        if left.is_empty() {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "flows of a removed service are left after the drain: {left:#?}"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn without_a_heartbeat_no_new_flow_is_made_and_old_ones_go_on() -> Result<()> {
    let mut stage = Stage::new("kstale", Options::default())?;
    let _server = Server::udp(
        &stage.topology.home.handle(),
        SocketAddr::from((SERVICE, 9000)),
        "backend",
    )?;
    stage.datapath.upsert(&binding(25_565, Protocol::Udp, 1), DRAIN)?;
    let public = stage.topology.public(25_565);
    let client = stage.client(CLIENT_FAR);
    let socket = client.udp_socket(public)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let ping = |text: &[u8]| -> Result<usize> {
        socket.send(text)?;
        Ok(socket.recv(&mut [0_u8; 64])?)
    };
    ensure!(ping(b"before")? == 6);
    let mut maps = exposer_edge::datapath::kernel::maps::ConfigMaps::open_pinned(
        &stage.topology.bpffs.path().join("exposer"),
    )?;
    maps.control.set(0, exposer_common::flow::Control::default(), 0)?;
    ensure!(ping(b"frozen")? == 6, "an existing flow goes on");
    ensure!(
        client.udp_ping(public, Duration::from_millis(300)).is_err(),
        "no new flow without a daemon"
    );
    ensure!(stage.reason(Reason::ControlStale)? > 0);
    stage.datapath.tick()?;
    // The client that was left to userspace stays there; another one is served again.
    stage
        .client(CLIENT_ON_LINK)
        .udp_ping(public, Duration::from_secs(2))?;
    Ok(())
}

#[test]
fn answered_flows_cost_no_budget() -> Result<()> {
    let mut stage = Stage::new("kbudget", Options::default())?;
    let _server = Server::udp(
        &stage.topology.home.handle(),
        SocketAddr::from((SERVICE, 9000)),
        "backend",
    )?;
    stage.datapath.upsert(&binding(25_565, Protocol::Udp, 1), DRAIN)?;
    let client = stage.client(CLIENT_FAR);
    for _ in 0..50 {
        client.udp_ping(stage.topology.public(25_565), Duration::from_secs(2))?;
    }
    let pin = load::pin_dir(&stage.topology.bpffs.path().join("exposer")).join(MAP_UNREPLIED);
    let unreplied: Array<_, Bucket> = Array::try_from(Map::from_map_data(MapData::from_pin(pin)?)?)?;
    let bucket = unreplied.get(&4, 0)?;
    ensure!(
        bucket.tokens >= limits::PER_SERVICE.burst,
        "fifty answered flows took tokens for good: {bucket:?} of {:?}",
        limits::PER_SERVICE
    );
    Ok(())
}

#[test]
fn nothing_leaves_in_clear_while_the_tunnel_is_gone_and_the_flow_goes_on_after() -> Result<()> {
    let mut stage = Stage::new("kclear", Options::default())?;
    let backend = SocketAddr::from((SERVICE, 9000));
    let _server = Server::udp(&stage.topology.home.handle(), backend, "backend")?;
    stage.datapath.upsert(&binding(25_565, Protocol::Udp, 1), DRAIN)?;
    // The client's namespace is the edge's default gateway: whatever leaks toward home would arrive here.
    stage
        .topology
        .client
        .ip(&format!("addr add {SERVICE}/32 dev lo"))?;
    let trap = stage.topology.client.run(move || Ok(UdpSocket::bind(backend)?))?;
    trap.set_read_timeout(Some(Duration::from_millis(200)))?;
    let socket = stage
        .client(CLIENT_FAR)
        .udp_socket(stage.topology.public(25_565))?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut buffer = [0_u8; 16];
    let ping = |buffer: &mut [u8]| socket.send(b"ping").and_then(|_| socket.recv(buffer));
    ensure!(ping(&mut buffer)? == 4);

    stage.topology.edge_wg.down()?;
    // Between the deletion and the daemon's word the programs redirect to an interface that is gone.
    for daemon_knows in [false, true] {
        if daemon_knows {
            stage.renew(|_| ())?;
        }
        for _ in 0..5 {
            ensure!(ping(&mut buffer).is_err(), "an answer without a tunnel");
        }
        let leaked = trap.recv(&mut buffer);
        ensure!(
            leaked.is_err(),
            "a packet of the tunnel left in clear, daemon knows: {daemon_knows}"
        );
    }
    ensure!(stage.reason(Reason::TunnelDown)? >= 5, "the drops are counted");

    stage.topology.edge_wg.up_again()?;
    stage.topology.edge.ip("route add 10.96.0.0/16 dev wg0")?;
    stage.renew(|_| ())?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    ensure!(ping(&mut buffer)? == 4, "the flow goes on");
    ensure!(stage.flows()?.len() == 1, "the same flow: {:#?}", stage.flows()?);
    Ok(())
}
