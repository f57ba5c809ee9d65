//! What a router owes (DESIGN §2), with real peers: datagrams larger than any link, clients with large MTUs, ICMP errors
//! both ways, traceroute. The userspace path is not there, so nothing but the kernel path can answer. Needs root.

mod kernel_stage;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use exposer_common::model::Protocol;
use exposer_common::verdict::Reason;
use exposer_edge::datapath::Datapath as _;
use exposer_testkit::topology::{CLIENT_FAR, CLIENT_ON_LINK, Options, TUNNEL};
use exposer_testkit::traffic::server::Server;
use kernel_stage::{DRAIN, SERVICE, Stage, binding};
use nix::sys::socket::{setsockopt, sockopt};

/// Sets an IPv4 socket option that nix has no name for.
fn set_ip_option(socket: &impl std::os::fd::AsFd, option: libc::c_int, value: libc::c_int) -> Result<()> {
    let size = libc::socklen_t::try_from(size_of::<libc::c_int>())?;
    // SAFETY: the descriptor is open, and the option takes an int.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_IP,
            option,
            (&raw const value).cast(),
            size,
        )
    };
    ensure!(result == 0, "setsockopt: {}", std::io::Error::last_os_error());
    Ok(())
}

#[test]
fn datagrams_larger_than_any_link_arrive_whole() -> Result<()> {
    let mut stage = Stage::new("kfrag", Options::default())?;
    let _server = Server::udp(
        &stage.topology.home.handle(),
        SocketAddr::from((SERVICE, 9000)),
        "backend",
    )?;
    stage.datapath.upsert(&binding(25_565, Protocol::Udp, 1), DRAIN)?;
    let client = stage.client(CLIENT_FAR);
    let socket = client.udp_socket(stage.topology.public(25_565))?;
    // A datagram may be fragmented on its way; path MTU discovery would refuse it here already.
    set_ip_option(&socket, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)?;
    setsockopt(&socket, sockopt::RcvBuf, &4_000_000)?;
    socket.set_read_timeout(Some(Duration::from_secs(15)))?;
    let mut arrived = 0;
    for size in [1_400, 1_500, 3_000, 9_000, 30_000, 65_000] {
        let sent: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let mut got = vec![0_u8; 66_000];
        for _ in 0..5 {
            socket.send(&sent)?;
            match socket.recv(&mut got) {
                Ok(length) => {
                    ensure!(
                        got[..length] == sent,
                        "{size} bytes came back as {length}, changed"
                    );
                    arrived += 1;
                }
                Err(error) => ensure!(
                    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
                    "{error}"
                ),
            }
        }
    }
    ensure!(
        arrived == 30,
        "{arrived} of 30 came back; {:#?}",
        stage.datapath.reason_counts()?
    );
    ensure!(stage.reason(Reason::FragmentForwarded)? > 100);
    ensure!(stage.flows()?.len() == 1, "one flow: {:#?}", stage.flows()?);
    Ok(())
}

#[test]
fn a_udp_client_that_discovers_the_path_mtu_recovers() -> Result<()> {
    let mut stage = Stage::new("kpmtu", Options::default())?;
    let _server = Server::udp(
        &stage.topology.home.handle(),
        SocketAddr::from((SERVICE, 9000)),
        "backend",
    )?;
    stage.datapath.upsert(&binding(25_565, Protocol::Udp, 1), DRAIN)?;
    let client = stage.client(CLIENT_FAR);
    let socket = client.udp_socket(stage.topology.public(25_565))?;
    set_ip_option(&socket, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO)?;
    socket.set_read_timeout(Some(Duration::from_secs(15)))?;
    let mut got = [0_u8; 2_000];
    let echo = |bytes: usize, got: &mut [u8]| -> std::io::Result<usize> {
        socket.send(&vec![5_u8; bytes])?;
        socket.recv(got)
    };
    ensure!(echo(1_392, &mut got)? == 1_392, "what fits the tunnel passes");
    // The first that is too large leaves; the answer to it arrives as an error of the socket.
    let refused = echo(1_393, &mut got).or_else(|_| echo(1_393, &mut got));
    let error = refused.err().context("1,393 bytes passed a tunnel of 1,420")?;
    ensure!(error.raw_os_error() == Some(libc::EMSGSIZE), "{error}");
    ensure!(echo(1_392, &mut got)? == 1_392, "and the client goes on");
    ensure!(stage.reason(Reason::TooBigAnswered)? >= 1);
    Ok(())
}

#[test]
fn jumbo_clients_and_a_narrow_tunnel() -> Result<()> {
    for offloads in [true, false] {
        let mut stage = Stage::new("kjumbo", Options { offloads })?;
        let topology = &stage.topology;
        topology.client.ip("link set cl0 mtu 9000")?;
        topology.edge.ip("link set wan0 mtu 9000")?;
        topology.edge.ip(&format!("link set {TUNNEL} mtu 1280"))?;
        topology.home.ip("link set wg-home mtu 1280")?;
        let _server = Server::tcp(
            &topology.home.handle(),
            SocketAddr::from((SERVICE, 9000)),
            "backend",
        )?;
        let public = topology.public(25_565);
        stage.renew(|environment| (environment.wan.mtu, environment.tunnel.mtu) = (9_000, 1_280))?;
        stage.datapath.upsert(&binding(25_565, Protocol::Tcp, 1), DRAIN)?;
        for address in [CLIENT_ON_LINK, CLIENT_FAR] {
            stage.client(address).download(public, 5_000_000)?.check()?;
            stage.client(address).upload(public, 5_000_000)?.check()?;
        }
        ensure!(
            stage.reason(Reason::TooBigAnswered)? == 0,
            "the clamped MSS leaves nothing to refuse"
        );
    }
    Ok(())
}

#[test]
fn a_closed_port_at_home_refuses_the_client_at_once() -> Result<()> {
    let mut stage = Stage::new("kclosed", Options::default())?;
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        stage.datapath.upsert(&binding(25_565, protocol, 1), DRAIN)?;
    }
    let client = stage.client(CLIENT_FAR);
    let public = stage.topology.public(25_565);
    let refused = client
        .connect_within(public, Duration::from_secs(15))
        .err()
        .context("connected to nothing")?;
    ensure!(
        format!("{refused:#}").contains("refused"),
        "the backend's RST reaches the client: {refused:#}"
    );
    // Nobody listens on the UDP port: the home node's "port unreachable" quotes the masqueraded datagram.
    let socket = client.udp_socket(public)?;
    socket.set_read_timeout(Some(Duration::from_secs(15)))?;
    socket.send(b"anybody?")?;
    let error = socket
        .recv(&mut [0_u8; 16])
        .err()
        .context("an answer from nobody")?;
    ensure!(error.kind() == ErrorKind::ConnectionRefused, "{error}");
    ensure!(stage.reason(Reason::IcmpToClient)? == 1);
    Ok(())
}

#[test]
fn a_client_that_went_away_is_reported_home() -> Result<()> {
    let mut stage = Stage::new("kgone", Options::default())?;
    stage.datapath.upsert(&binding(25_565, Protocol::Udp, 1), DRAIN)?;
    let home = stage.topology.home.handle();
    let server = home.run(|| Ok(std::net::UdpSocket::bind((SERVICE, 9000))?))?;
    server.set_read_timeout(Some(Duration::from_secs(15)))?;
    let client = stage
        .client(CLIENT_FAR)
        .udp_socket(stage.topology.public(25_565))?;
    client.send(b"hello")?;
    let mut buffer = [0_u8; 16];
    let (_, peer) = server.recv_from(&mut buffer)?;
    drop(client);
    server.connect(peer)?;
    server.send(b"are you there?")?;
    let error = server
        .recv(&mut buffer)
        .err()
        .context("an answer from a client that is gone")?;
    ensure!(error.kind() == ErrorKind::ConnectionRefused, "{error}");
    ensure!(stage.reason(Reason::IcmpToHome)? == 1);
    Ok(())
}

#[test]
fn a_packet_at_the_end_of_its_life_is_answered() -> Result<()> {
    let mut stage = Stage::new("kttl", Options::default())?;
    let _server = Server::udp(
        &stage.topology.home.handle(),
        SocketAddr::from((SERVICE, 9000)),
        "backend",
    )?;
    stage.datapath.upsert(&binding(25_565, Protocol::Udp, 1), DRAIN)?;
    let socket = stage
        .client(CLIENT_FAR)
        .udp_socket(stage.topology.public(25_565))?;
    socket.set_read_timeout(Some(Duration::from_secs(15)))?;
    set_ip_option(&socket, libc::IP_RECVERR, 1)?;
    socket.set_ttl(1)?;
    socket.send(b"one hop")?;
    let error = socket
        .recv(&mut [0_u8; 16])
        .err()
        .context("answered beyond its time")?;
    ensure!(
        error.raw_os_error() == Some(libc::EHOSTUNREACH),
        "time exceeded: {error}"
    );
    socket.set_ttl(2)?;
    socket.send(b"two hops")?;
    ensure!(
        socket.recv(&mut [0_u8; 16])? == 8,
        "the edge is one hop, home the next"
    );
    Ok(())
}
