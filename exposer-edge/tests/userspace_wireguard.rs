//! Story: the userspace path over real WireGuard, in namespaces: bulk data, and a tunnel that goes away and comes back.
//!
//! ```text
//! client (internet, router) ── wan0 edge wg0 ══ WireGuard ══ wg-home home (10.96.0.10 on lo)
//!    └── also holds 10.96.0.10: whatever leaves the edge in clear arrives at this trap
//! ```
//!
//! Needs root.
#![expect(
    clippy::unwrap_used,
    reason = "test code: a failing test is what a panic is for"
)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use exposer_common::model::{ClientIp, Protocol, ServiceId};
use exposer_edge::datapath::userspace::{UserspaceDatapath, UserspaceSettings};
use exposer_edge::datapath::{Binding, BindingKey, BindingStats, Datapath, Removal, ServiceRef};
use exposer_edge::net::environment::{Environment, LinkState};
use exposer_testkit::topology::{CLIENT_FAR, EDGE_PUBLIC, Options, TUNNEL, Topology};
use exposer_testkit::traffic::{Client, Server, SlowTransfer};
use tokio::runtime::{Builder, Runtime};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const PORT: u16 = 7000;

/// The network, a server at home and a trap on the way that a leak would take.
struct Story {
    datapath: UserspaceDatapath,
    client: Client,
    home: [Server; 2],
    trap: [Server; 2],
    topology: Topology,
    // Last: its tasks hold sockets of the namespaces until it is dropped.
    _runtime: Runtime,
    _alone: MutexGuard<'static, ()>,
}

const KEYS: [BindingKey; 2] = [
    BindingKey {
        port: PORT,
        protocol: Protocol::Tcp,
    },
    BindingKey {
        port: PORT,
        protocol: Protocol::Udp,
    },
];

/// One story at a time: three tunnels in userspace at once leave none of them the time that the clients allow.
static ONE: Mutex<()> = Mutex::new(());

impl Story {
    fn new(name: &str) -> Self {
        let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let topology = Topology::new(name, Options::default()).unwrap();
        topology.add_service_address(SERVICE.into()).unwrap();
        topology
            .client
            .ip(&format!("addr add {SERVICE}/32 dev lo"))
            .unwrap();
        let at = SocketAddr::from((SERVICE, 80));
        let servers = |netns| {
            [
                Server::tcp(netns, at, "tcp").unwrap(),
                Server::udp(netns, at, "udp").unwrap(),
            ]
        };
        let runtime = topology
            .edge
            .run(|| {
                Ok(Builder::new_multi_thread()
                    .worker_threads(2)
                    .enable_all()
                    .build()?)
            })
            .unwrap();
        let datapath = {
            let _entered = runtime.enter();
            UserspaceDatapath::new(UserspaceSettings::new(TUNNEL))
        };
        let mut story = Self {
            datapath,
            client: Client::new(topology.client.handle(), CLIENT_FAR),
            home: servers(&topology.home),
            trap: servers(&topology.client),
            topology,
            _runtime: runtime,
            _alone: alone,
        };
        story.look_around();
        for key in KEYS {
            let binding = binding(key, at);
            let serve = || {
                Ok(story.datapath.upsert(
                    &binding,
                    Removal {
                        drain: Duration::ZERO,
                    },
                )?)
            };
            story.topology.edge.run(serve).unwrap();
        }
        story
    }

    /// What the netlink monitor does: tells the datapath what the host looks like.
    fn look_around(&mut self) {
        let datapath = &mut self.datapath;
        let look = || {
            let environment = Environment {
                public_addresses: vec![IpAddr::V4(EDGE_PUBLIC)],
                tunnel: LinkState {
                    name: TUNNEL.into(),
                    ifindex: nix::net::if_::if_nametoindex(TUNNEL).ok(),
                    ..LinkState::default()
                },
                ..Environment::default()
            };
            Ok(datapath.set_environment(&environment)?)
        };
        self.topology.edge.run(look).unwrap();
    }

    fn public(&self) -> SocketAddr {
        self.topology.public(PORT)
    }

    fn stats(&self, protocol: Protocol) -> BindingStats {
        self.datapath.stats(BindingKey { port: PORT, protocol }).unwrap()
    }

    fn trapped(&self) -> u64 {
        self.trap.iter().map(Server::served).sum()
    }
}

fn binding(key: BindingKey, backend: SocketAddr) -> Binding {
    Binding {
        key,
        service: ServiceRef {
            agent: "home".into(),
            id: ServiceId {
                namespace: "default".into(),
                name: "story".into(),
            },
        },
        index: 1,
        generation: 1,
        backend,
        client_ip: ClientIp::Auto,
        idle_timeout: None,
    }
}

#[test]
fn bulk_data_and_datagrams_arrive_unchanged() {
    let story = Story::new("usbulk");
    let bytes = 100_000_000;
    story
        .client
        .download(story.public(), bytes)
        .unwrap()
        .check()
        .unwrap();
    story
        .client
        .upload(story.public(), bytes)
        .unwrap()
        .check()
        .unwrap();
    let half = story
        .client
        .half_close(story.public(), 1_000_000, 5_000_000)
        .unwrap();
    half.sent.check().unwrap();
    half.answer.check().unwrap();
    story
        .client
        .udp_echo(story.public(), 1_000, 1, 1_372)
        .unwrap()
        .check()
        .unwrap();
    // Larger than the tunnel's MTU: fragments, and whole again at the other end.
    story
        .client
        .udp_echo(story.public(), 20, 1_373, 20_000)
        .unwrap()
        .check()
        .unwrap();
    let (tcp, udp) = (story.stats(Protocol::Tcp), story.stats(Protocol::Udp));
    assert!(tcp.bytes_out >= bytes && tcp.bytes_in >= bytes, "{tcp:?}");
    assert_eq!(
        (tcp.flows, tcp.failed, udp.flows, udp.failed),
        (3, 0, 2, 0),
        "{tcp:?} {udp:?}"
    );
    assert_eq!((udp.packets_in, udp.packets_out), (1_020, 1_020));
    assert_eq!(story.trapped(), 0);
    assert!(story.home.iter().all(|server| server.served() > 0));
}

#[test]
fn without_the_tunnel_nothing_leaves_and_clients_wait_for_it() {
    let mut story = Story::new("uswait");
    story.topology.edge_wg.down().unwrap();
    story.look_around();
    assert!(
        story
            .client
            .udp_ping(story.public(), Duration::from_millis(500))
            .is_err()
    );
    let (client, public) = (story.client.clone(), story.public());
    let asking = std::thread::spawn(move || client.ask_name(public, Duration::from_secs(60)));
    std::thread::sleep(Duration::from_secs(1));
    assert!(!asking.is_finished(), "the client was turned away at once");
    assert_eq!(story.trapped(), 0, "something left the edge in clear");
    story.topology.edge_wg.up_again().unwrap();
    story
        .topology
        .edge
        .ip(&format!("route add 10.96.0.0/16 dev {TUNNEL}"))
        .unwrap();
    story.look_around();
    assert_eq!(asking.join().unwrap().unwrap(), "tcp");
    story
        .client
        .udp_ping(story.public(), Duration::from_secs(30))
        .unwrap();
    assert_eq!(story.trapped(), 0);
}

#[test]
fn connections_and_sessions_outlive_a_tunnel_that_is_made_anew() {
    let mut story = Story::new("usanew");
    let socket = story.client.udp_socket(story.public()).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let ping = |patience: Duration| {
        let began = Instant::now();
        let mut buffer = [0; 16];
        loop {
            socket.send(b"ping").unwrap();
            if socket.recv(&mut buffer).is_ok() {
                return;
            }
            assert!(began.elapsed() < patience, "no echo within {patience:?}");
        }
    };
    ping(Duration::from_secs(20));
    let slow = SlowTransfer::start(
        &story.client,
        story.public(),
        4_000_000,
        20_000,
        Duration::from_millis(10),
    )
    .unwrap();
    std::thread::sleep(Duration::from_millis(400));
    story.topology.restart_edge_tunnel().unwrap();
    story.look_around();
    story
        .topology
        .home_wg
        .wait_for_handshake(Duration::from_secs(30))
        .unwrap();
    ping(Duration::from_secs(30));
    let report = slow.finish().unwrap();
    report.transfer.check().unwrap();
    assert_eq!(story.stats(Protocol::Udp).flows, 1, "the same session goes on");
    assert_eq!(story.stats(Protocol::Tcp).flows, 1);
    assert_eq!(story.trapped(), 0);
}
