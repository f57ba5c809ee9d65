//! Story: the caps of a Service and of a source hold, and what ends makes room.

use std::io::ErrorKind;
use std::net::SocketAddr;

use exposer_common::model::Protocol;
use exposer_edge::datapath::userspace::UserspaceSettings;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use crate::support::{Edge, pair, settings, tcp_backend, until, within};

async fn from(source: &str, edge: &Edge) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
    socket.connect(edge.public).await.unwrap()
}

async fn is_reset(mut client: TcpStream) -> bool {
    match within(client.read(&mut [0; 1])).await {
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
        Ok(_) => false,
    }
}

#[tokio::test]
async fn tcp_connections_over_a_cap_are_reset() {
    let (backend, address) = tcp_backend().await;
    let capped = UserspaceSettings {
        per_source: 2,
        per_service: 3,
        ..settings()
    };
    let edge = Edge::new(capped, Protocol::Tcp, address);
    let first = pair(&edge, &backend).await;
    let _second = pair(&edge, &backend).await;
    assert!(is_reset(edge.connect().await).await, "third of one source");
    let _third = from("127.0.0.9", &edge).await;
    until("it is accepted", || edge.stats().active == 3).await;
    assert!(
        is_reset(from("127.0.0.10", &edge).await).await,
        "fourth of the Service"
    );
    let detail = edge.datapath.detail(edge.binding.key).unwrap();
    assert_eq!((detail.over_source_cap, detail.over_service_cap), (1, 1));
    assert_eq!((edge.stats().flows, edge.stats().failed), (3, 2));
    drop(first);
    until("there is room", || edge.stats().active == 2).await;
    let _fourth = from("127.0.0.10", &edge).await;
    until("it is accepted", || edge.stats().active == 3).await;
}

#[tokio::test]
async fn udp_sessions_over_a_cap_are_not_made() {
    let backend = UdpSocket::bind("127.0.0.3:0").await.unwrap();
    let capped = UserspaceSettings {
        per_source: 2,
        ..settings()
    };
    let edge = Edge::new(capped, Protocol::Udp, backend.local_addr().unwrap());
    let mut clients = Vec::new();
    for number in 0..3_u8 {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(&[number], edge.public).await.unwrap();
        clients.push(client);
    }
    let mut heard = Vec::new();
    let mut byte = [0; 1];
    for _ in 0..2 {
        within(backend.recv_from(&mut byte)).await.unwrap();
        heard.push(byte[0]);
    }
    assert_eq!(heard, [0, 1]);
    until("the third is counted", || edge.stats().failed == 1).await;
    let detail = edge.datapath.detail(edge.binding.key).unwrap();
    assert_eq!((detail.over_source_cap, detail.dropped_datagrams), (1, 1));
    let other: SocketAddr = "127.0.0.9:0".parse().unwrap();
    let other = UdpSocket::bind(other).await.unwrap();
    other.send_to(&[9], edge.public).await.unwrap();
    within(backend.recv_from(&mut byte)).await.unwrap();
    assert_eq!(byte, [9]);
}
