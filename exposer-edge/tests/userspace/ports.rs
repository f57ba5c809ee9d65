//! Story: public ports that others hold, and public addresses that come and go.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};

use exposer_common::model::Protocol;
use exposer_edge::datapath::userspace::UserspaceDatapath;
use exposer_edge::datapath::{Datapath, DatapathError};
use tokio::net::{TcpStream, UdpSocket};

use crate::support::{AT_ONCE, Edge, PUBLIC, binding, environment, free_port, settings, tcp_backend, within};

/// Another program that holds a socket: it is its standard input.
struct Holder(Child);

impl Holder {
    fn of(socket: impl Into<OwnedFd>) -> Self {
        let child = Command::new("sleep").arg("60").stdin(socket.into()).spawn();
        Self(child.expect("sleep(1) starts"))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn expect_in_use(error: DatapathError, port: u16, holder: &Holder) {
    let text = error.to_string();
    let DatapathError::PortInUse { key, address, owner } = error else {
        panic!("{text}")
    };
    assert_eq!((key.port, address), (port, PUBLIC.parse::<IpAddr>().unwrap()));
    assert!(
        owner == format!(" (sleep, pid {})", holder.0.id()),
        "owner {owner:?}"
    );
}

#[tokio::test]
async fn a_port_of_another_program_is_refused_by_name() {
    for wildcard in [PUBLIC, "0.0.0.0"] {
        let other = std::net::TcpListener::bind((wildcard, 0)).unwrap();
        let port = other.local_addr().unwrap().port();
        let holder = Holder::of(other);
        let mut datapath = UserspaceDatapath::new(settings());
        datapath
            .set_environment(&environment(&["127.0.0.4", PUBLIC]))
            .unwrap();
        let wanted = binding(port, Protocol::Tcp, "127.0.0.3:1".parse().unwrap());
        let error = datapath.upsert(&wanted, AT_ONCE).unwrap_err();
        if wildcard == PUBLIC {
            expect_in_use(error, port, &holder);
            // Nothing is left behind on the address that was free.
            assert!(TcpStream::connect(("127.0.0.4", port)).await.is_err());
        }
        assert!(datapath.stats(wanted.key).is_none());
    }
    let other = UdpSocket::bind((PUBLIC, 0)).await.unwrap();
    let port = other.local_addr().unwrap().port();
    let holder = Holder::of(other.into_std().unwrap());
    let mut datapath = UserspaceDatapath::new(settings());
    datapath.set_environment(&environment(&[PUBLIC])).unwrap();
    let wanted = binding(port, Protocol::Udp, "127.0.0.3:1".parse().unwrap());
    expect_in_use(datapath.upsert(&wanted, AT_ONCE).unwrap_err(), port, &holder);
    drop(holder);
    datapath.upsert(&wanted, AT_ONCE).unwrap();
}

#[tokio::test]
async fn the_listener_is_the_reservation() {
    let (_backend, address) = tcp_backend().await;
    let tcp = Edge::new(settings(), Protocol::Tcp, address);
    let taken = std::net::TcpListener::bind(tcp.public).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    let udp = Edge::new(settings(), Protocol::Udp, address);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    assert_eq!(
        socket.bind(&udp.public.into()).unwrap_err().kind(),
        ErrorKind::AddrInUse
    );
}

#[tokio::test]
async fn addresses_are_followed_and_may_be_absent() {
    let (backend, address) = tcp_backend().await;
    let mut datapath = UserspaceDatapath::new(settings());
    let served = binding(free_port(), Protocol::Tcp, address);
    let at = |host: &str| SocketAddr::new(host.parse().unwrap(), served.key.port);
    // Before any address is known the binding is only remembered.
    datapath.upsert(&served, AT_ONCE).unwrap();
    assert!(TcpStream::connect(at(PUBLIC)).await.is_err());
    // 192.0.2.1 is not an address of this host (RFC 5737), so it is one that has not come yet.
    datapath
        .set_environment(&environment(&[PUBLIC, "192.0.2.1", "::1"]))
        .unwrap();
    for host in [PUBLIC, "::1"] {
        let _client = TcpStream::connect(at(host)).await.unwrap();
        within(backend.accept()).await.unwrap();
    }
    datapath.set_environment(&environment(&["127.0.0.4"])).unwrap();
    assert!(TcpStream::connect(at(PUBLIC)).await.is_err());
    assert!(TcpStream::connect(at("::1")).await.is_err());
    let _client = TcpStream::connect(at("127.0.0.4")).await.unwrap();
    within(backend.accept()).await.unwrap();
}

#[tokio::test]
async fn an_address_whose_port_is_taken_is_served_once_it_is_free() {
    let (backend, address) = tcp_backend().await;
    let mut datapath = UserspaceDatapath::new(settings());
    let served = binding(free_port(), Protocol::Tcp, address);
    datapath.set_environment(&environment(&[PUBLIC])).unwrap();
    datapath.upsert(&served, AT_ONCE).unwrap();
    let other = std::net::TcpListener::bind(("127.0.0.4", served.key.port)).unwrap();
    let both = environment(&[PUBLIC, "127.0.0.4"]);
    assert!(datapath.set_environment(&both).is_err());
    let _client = TcpStream::connect((PUBLIC, served.key.port)).await.unwrap();
    within(backend.accept()).await.unwrap();
    assert!(datapath.tick().is_err(), "reported once");
    assert!(datapath.tick().is_ok(), "and not every second");
    drop(other);
    datapath.tick().unwrap();
    let _client = TcpStream::connect(("127.0.0.4", served.key.port)).await.unwrap();
    within(backend.accept()).await.unwrap();
}
