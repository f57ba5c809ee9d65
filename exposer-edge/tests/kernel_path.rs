//! The kernel path alone, over real WireGuard: programs loaded and attached by the datapath itself, traffic both
//! ways, and what stays when the datapath is dropped. The topology is drawn in `exposer_testkit::topology`.
//!
//! Needs root.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "test code"
)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use exposer_common::model::{ClientIp, Protocol, ServiceId};
use exposer_common::verdict::Reason;
use exposer_edge::config::PortRange;
use exposer_edge::datapath::kernel::maps::FlowMaps;
use exposer_edge::datapath::kernel::table::{self, Flow};
use exposer_edge::datapath::kernel::{KernelDatapath, KernelSettings, clock, object};
use exposer_edge::datapath::{Binding, BindingKey, Datapath, Removal, ServiceRef};
use exposer_edge::net::environment::{Environment, LinkState, Prefix};
use exposer_testkit::topology::{
    CLIENT_FAR, CLIENT_ON_LINK, EDGE_PUBLIC, EDGE_TUNNEL, Options, TUNNEL, TUNNEL_MTU, Topology, WAN,
};
use exposer_testkit::traffic::Client;
use exposer_testkit::traffic::server::Server;

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const DRAIN: Removal = Removal {
    drain: Duration::from_secs(1),
};

/// A datapath in the edge's namespace, served by whoever calls [`Stage::edge`].
struct Stage {
    topology: Topology,
    datapath: KernelDatapath,
}

fn prefix(text: &str) -> Prefix {
    let (address, length) = text.split_once('/').unwrap();
    Prefix {
        address: address.parse().unwrap(),
        length: length.parse().unwrap(),
    }
}

fn environment(topology: &Topology) -> Result<Environment> {
    let index = |name: &'static str| {
        topology
            .edge
            .run(move || Ok(nix::net::if_::if_nametoindex(name)?))
    };
    Ok(Environment {
        wan: LinkState {
            name: WAN.to_owned(),
            ifindex: Some(index(WAN)?),
            mtu: 1500,
            ethernet: true,
            addresses: vec![prefix("44.128.0.2/24")],
            gateway: Some(CLIENT_ON_LINK),
        },
        tunnel: LinkState {
            name: TUNNEL.to_owned(),
            ifindex: Some(index(TUNNEL)?),
            mtu: TUNNEL_MTU,
            ethernet: false,
            addresses: vec![prefix("10.0.0.1/24")],
            gateway: None,
        },
        public_addresses: vec![IpAddr::V4(EDGE_PUBLIC)],
        snat_address: Some(EDGE_TUNNEL),
        home_prefixes: vec![prefix("10.96.0.0/16"), prefix("10.0.0.0/24")],
        own_addresses: vec![IpAddr::V4(EDGE_PUBLIC), IpAddr::V4(EDGE_TUNNEL)],
    })
}

fn open(topology: &Topology) -> Result<KernelDatapath> {
    let settings = KernelSettings {
        bpffs: topology.bpffs.path().join("exposer"),
        wan_zone: 1,
        tunnel_zone: 2,
        snat_range: PortRange::new(1024, 29_999)?,
        heartbeat_max_age: Duration::from_secs(60),
    };
    let environment = environment(topology)?;
    topology.edge.run(move || {
        let object = object::object().context(object::MISSING)?;
        let mut datapath = KernelDatapath::open(settings, object)?;
        datapath.set_environment(&environment)?;
        Ok(datapath)
    })
}

fn binding(port: u16, protocol: Protocol, generation: u32) -> Binding {
    Binding {
        key: BindingKey { port, protocol },
        service: ServiceRef {
            agent: "home".to_owned(),
            id: ServiceId {
                namespace: "default".to_owned(),
                name: "test".to_owned(),
            },
        },
        index: if protocol == Protocol::Tcp { 3 } else { 4 },
        generation,
        backend: SocketAddr::from((SERVICE, 9000)),
        client_ip: ClientIp::Auto,
        idle_timeout: None,
    }
}

impl Stage {
    fn new(test: &str, options: Options) -> Result<Self> {
        let topology = Topology::new(test, options)?;
        topology.add_service_address(IpAddr::V4(SERVICE))?;
        let datapath = open(&topology)?;
        Ok(Self { topology, datapath })
    }

    fn client(&self, address: Ipv4Addr) -> Client {
        Client::new(self.topology.client.handle(), address)
    }

    fn flows(&self) -> Result<Vec<Flow>> {
        let maps = FlowMaps::open_pinned(&self.topology.bpffs.path().join("exposer"))?;
        Ok(table::flows(&maps, clock::now()?)?)
    }

    fn reason(&self, wanted: Reason) -> Result<u64> {
        let counts = self.datapath.reason_counts()?;
        Ok(counts
            .iter()
            .find(|(reason, _)| *reason == wanted)
            .map_or(0, |(_, count)| *count))
    }
}

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

#[test]
fn a_flow_outlives_the_datapath_and_is_adopted() -> Result<()> {
    let mut stage = Stage::new("kadopt", Options::default())?;
    let _server = Server::tcp(
        &stage.topology.home.handle(),
        SocketAddr::from((SERVICE, 9000)),
        "backend",
    )?;
    stage.datapath.upsert(&binding(25_565, Protocol::Tcp, 1), DRAIN)?;
    let transfer = exposer_testkit::traffic::continuous::SlowTransfer::start(
        &stage.client(CLIENT_FAR),
        stage.topology.public(25_565),
        2_000_000,
        20_000,
        Duration::from_millis(20),
    )?;
    while transfer.arrived() < 200_000 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let Stage { topology, datapath } = stage;
    drop(datapath);
    let before = transfer.arrived();
    while transfer.arrived() < before + 200_000 {
        std::thread::sleep(Duration::from_millis(10));
    }
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
