//! Story: an IPv4 client reaches an IPv6 backend, and the other way round, by TCP and by UDP.

use std::net::SocketAddr;

use exposer_common::model::Protocol;
use exposer_edge::datapath::Datapath;
use exposer_edge::datapath::userspace::UserspaceDatapath;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::support::{AT_ONCE, binding, environment, free_port, settings, within};

/// Public address, backend address.
const CASES: [(&str, &str); 3] = [("127.0.0.2", "::1"), ("::1", "127.0.0.3"), ("::1", "::1")];

fn serve(public: &str, protocol: Protocol, backend: SocketAddr) -> (UserspaceDatapath, SocketAddr) {
    let mut datapath = UserspaceDatapath::new(settings());
    datapath.set_environment(&environment(&[public])).unwrap();
    let binding = binding(free_port(), protocol, backend);
    datapath.upsert(&binding, AT_ONCE).unwrap();
    (
        datapath,
        SocketAddr::new(public.parse().unwrap(), binding.key.port),
    )
}

#[tokio::test]
async fn tcp_between_the_families() {
    for (public, home) in CASES {
        let backend = TcpListener::bind((home, 0)).await.unwrap();
        let (_datapath, address) = serve(public, Protocol::Tcp, backend.local_addr().unwrap());
        let mut client = TcpStream::connect(address).await.unwrap();
        let (mut server, _) = within(backend.accept()).await.unwrap();
        client.write_all(b"six").await.unwrap();
        let mut got = [0; 3];
        within(server.read_exact(&mut got)).await.unwrap();
        assert_eq!(&got, b"six", "{public} to {home}");
    }
}

#[tokio::test]
async fn udp_between_the_families() {
    for (public, home) in CASES {
        let backend = UdpSocket::bind((home, 0)).await.unwrap();
        let (_datapath, address) = serve(public, Protocol::Udp, backend.local_addr().unwrap());
        let local = if address.is_ipv4() {
            "127.0.0.1:0"
        } else {
            "[::1]:0"
        };
        let client = UdpSocket::bind(local).await.unwrap();
        // Larger than the loopback's MTU, so that it goes in fragments.
        for length in [3, 60_000, 65_000] {
            client.send_to(&vec![6; length], address).await.unwrap();
            let mut got = vec![0; 65_536];
            let (read, from) = within(backend.recv_from(&mut got)).await.unwrap();
            assert_eq!(read, length, "{public} to {home}");
            backend.send_to(&got[..read], from).await.unwrap();
            let (read, from) = within(client.recv_from(&mut got)).await.unwrap();
            assert_eq!((read, from), (length, address), "{public} to {home}");
        }
    }
}
