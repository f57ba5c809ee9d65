//! The standard topology: WireGuard carries packets, traffic is judged byte by byte, and wg0 can go and come
//! back; needs root.
//!
//! Needs root.
#![expect(clippy::unwrap_used, reason = "test code")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use exposer_testkit::tools;
use exposer_testkit::topology::{CLIENT_FAR, CLIENT_ON_LINK, EDGE_TUNNEL, Options, Topology};
use exposer_testkit::traffic::{Client, Server, SlowTransfer, UdpCounter};

const SERVICE: &str = "10.96.0.10";

fn service(port: u16) -> SocketAddr {
    SocketAddr::new(SERVICE.parse().unwrap(), port)
}

fn edge_client(topology: &Topology) -> Client {
    Client::new(topology.edge.handle(), EDGE_TUNNEL)
}

#[test]
fn the_tunnel_carries_tcp_and_udp_and_everything_is_gone_afterwards() {
    let topology = Topology::new("tunnel", Options::default()).unwrap();
    topology.add_service_address(service(0).ip()).unwrap();
    let tcp = Server::tcp(&topology.home, service(8080), "web").unwrap();
    let udp = Server::udp(&topology.home, service(8080), "echo").unwrap();
    let client = edge_client(&topology);

    assert_eq!(
        client.ask_name(tcp.address(), Duration::from_secs(20)).unwrap(),
        "web"
    );
    client
        .download(tcp.address(), 3_000_000)
        .unwrap()
        .check()
        .unwrap();
    client.upload(tcp.address(), 3_000_000).unwrap().check().unwrap();
    let half = client.half_close(tcp.address(), 100_000, 1_000_000).unwrap();
    half.sent.check().unwrap();
    half.answer.check().unwrap();
    let echo = client.udp_echo(udp.address(), 200, 1, 1_372).unwrap();
    echo.check().unwrap();
    assert_eq!(echo.sent, 200);
    assert_eq!(udp.served(), 200);

    let names = [topology.client.name(), topology.edge.name(), topology.home.name()].map(str::to_owned);
    let (folder, bpffs) = (topology.folder().to_owned(), topology.bpffs.path().to_owned());
    drop((tcp, udp, topology));
    for name in names {
        assert!(
            !Path::new("/run/netns").join(&name).exists(),
            "{name} is still there"
        );
    }
    assert!(!folder.exists() && !bpffs.exists());
}

#[test]
fn clients_on_the_link_and_behind_the_gateway_reach_the_edge() {
    let topology = Topology::new("clients", Options::default()).unwrap();
    let server = Server::tcp(&topology.edge, topology.public(8443), "edge").unwrap();
    for source in [CLIENT_ON_LINK, CLIENT_FAR] {
        let client = Client::new(topology.client.handle(), source);
        assert_eq!(
            client
                .ask_name(server.address(), Duration::from_secs(20))
                .unwrap(),
            "edge"
        );
    }
    let refused = topology.edge.counter("Tcp", "OutRsts").unwrap();
    let client = Client::new(topology.client.handle(), CLIENT_FAR);
    let error = client.connect(topology.public(8444)).unwrap_err();
    assert!(format!("{error:#}").contains("refused"), "{error:#}");
    assert_eq!(topology.edge.counter("Tcp", "OutRsts").unwrap(), refused + 1);
}

#[test]
fn the_edge_asks_its_own_wireguard() {
    let topology = Topology::new("wgshow", Options::default()).unwrap();
    let mut command = topology.edge.command("wg").unwrap();
    let shown = tools::stdout(command.args(["show", "wg0", "peers"])).unwrap();
    assert_eq!(shown.lines().count(), 1, "{shown}");
    let script = topology
        .edge_script(&[("GREETING".to_owned(), "from the edge".to_owned())])
        .unwrap();
    let mut command = std::process::Command::new(script);
    let shown = tools::stdout(command.args(["sh", "-c", "echo $GREETING; wg show wg0 peers"])).unwrap();
    assert!(
        shown.starts_with("from the edge\n") && shown.lines().count() == 2,
        "{shown}"
    );
}

#[test]
fn continuous_traffic_notices_a_gap() {
    let mut topology = Topology::new("gap", Options::default()).unwrap();
    topology.add_service_address(service(0).ip()).unwrap();
    let echo = Server::udp(&topology.home, service(7), "echo").unwrap();
    let drip = Server::tcp(&topology.home, service(7), "drip").unwrap();
    let client = edge_client(&topology);
    let slow = SlowTransfer::start(
        &client,
        drip.address(),
        20_000_000,
        2_000,
        Duration::from_millis(10),
    )
    .unwrap();
    let steady = UdpCounter::start(&client, echo.address(), Duration::from_millis(10)).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let report = steady.stop().unwrap();
    assert_eq!(
        (report.lost, report.duplicates, report.refused),
        (0, 0, 0),
        "{report:?}"
    );
    assert!(report.sent >= 10, "{report:?}");
    assert!(slow.arrived() > 0 && !slow.is_finished());
    slow.hurry().unwrap();
    let report = slow.finish().unwrap();
    report.transfer.check().unwrap();
    assert!(
        report.transfer.took < Duration::from_secs(60),
        "the server did not hurry: {report:?}"
    );

    let broken = UdpCounter::start(&client, echo.address(), Duration::from_millis(10)).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    topology.restart_edge_tunnel().unwrap();
    topology
        .home_wg
        .wait_for_handshake(Duration::from_secs(30))
        .unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let report = broken.stop().unwrap();
    assert!(report.lost > 0, "wg0 was gone and nothing was lost: {report:?}");
    client.udp_ping(echo.address(), Duration::from_secs(30)).unwrap();
}
