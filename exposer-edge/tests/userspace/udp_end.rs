//! Story: how UDP sessions end, and what does not end them.

use std::time::{Duration, Instant};

use exposer_common::model::Protocol;
use exposer_edge::datapath::userspace::UserspaceSettings;
use exposer_edge::datapath::{Binding, Datapath, Removal};
use tokio::net::UdpSocket;

use crate::support::{AT_ONCE, BACKEND, CLIENT, Edge, settings, until, within};

/// Long enough that a busy machine does not make a pause of a third of it look like silence.
const IDLE: Duration = Duration::from_secs(2);

async fn exchange(client: &UdpSocket, backend: &UdpSocket, edge: &Edge) -> std::net::SocketAddr {
    let mut byte = [0; 1];
    client.send_to(b"?", edge.public).await.unwrap();
    let (_, from) = within(backend.recv_from(&mut byte)).await.unwrap();
    backend.send_to(b"!", from).await.unwrap();
    let (_, public) = within(client.recv_from(&mut byte)).await.unwrap();
    assert_eq!((public, &byte), (edge.public, b"!"));
    from
}

async fn sockets() -> (UdpSocket, UdpSocket) {
    let backend = UdpSocket::bind((BACKEND, 0)).await.unwrap();
    let client = UdpSocket::bind((CLIENT, 0)).await.unwrap();
    (client, backend)
}

#[tokio::test]
async fn a_session_without_traffic_expires_and_the_next_datagram_makes_another() {
    let (client, backend) = sockets().await;
    let idle = UserspaceSettings {
        udp_idle: IDLE,
        udp_unreplied: Duration::from_millis(100),
        ..settings()
    };
    let edge = Edge::new(idle, Protocol::Udp, backend.local_addr().unwrap());
    let first = exchange(&client, &backend, &edge).await;
    for _ in 0..4 {
        tokio::time::sleep(IDLE / 3).await;
        assert_eq!(
            exchange(&client, &backend, &edge).await,
            first,
            "traffic keeps a session"
        );
    }
    let last = Instant::now();
    until("the session expires", || edge.stats().active == 0).await;
    assert!(last.elapsed() >= IDLE * 9 / 10, "{:?}", last.elapsed());
    assert!(edge.datapath.live_udp_clients(edge.binding.key).is_empty());
    exchange(&client, &backend, &edge).await;
    assert_eq!(edge.stats().flows, 2);
    // Nobody answers this one.
    let other = UdpSocket::bind((CLIENT, 0)).await.unwrap();
    other.send_to(b"?", edge.public).await.unwrap();
    until("it is made", || edge.stats().flows == 3).await;
    until("it expires before the one that was answered", || {
        edge.stats().active == 1
    })
    .await;
    assert_eq!(
        edge.datapath.live_udp_clients(edge.binding.key),
        [(client.local_addr().unwrap(), edge.public)]
    );
}

#[tokio::test]
async fn a_backend_that_is_away_for_a_while_ends_nothing() {
    let (client, backend) = sockets().await;
    let address = backend.local_addr().unwrap();
    let edge = Edge::new(settings(), Protocol::Udp, address);
    let from = exchange(&client, &backend, &edge).await;
    drop(backend);
    for _ in 0..20 {
        client.send_to(b"?", edge.public).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    until("the refusal is counted", || edge.stats().failed == 1).await;
    let backend = UdpSocket::bind(address).await.unwrap();
    assert_eq!(
        exchange(&client, &backend, &edge).await,
        from,
        "the same session goes on"
    );
    assert_eq!(edge.stats().flows, 1);
    // Nor does a client that is gone: its port unreachable goes to the public socket.
    let gone = UdpSocket::bind((CLIENT, 0)).await.unwrap();
    gone.send_to(b"?", edge.public).await.unwrap();
    let mut byte = [0; 1];
    let (_, gone_from) = within(backend.recv_from(&mut byte)).await.unwrap();
    drop(gone);
    for _ in 0..5 {
        backend.send_to(b"!", gone_from).await.unwrap();
    }
    exchange(&client, &backend, &edge).await;
}

#[tokio::test]
async fn removal_ends_sessions_at_once_whatever_the_drain() {
    let (client, backend) = sockets().await;
    let mut edge = Edge::new(settings(), Protocol::Udp, backend.local_addr().unwrap());
    let from = exchange(&client, &backend, &edge).await;
    let long = Removal {
        drain: Duration::from_secs(3600),
    };
    edge.datapath.remove(edge.binding.key, long).unwrap();
    // The port may be opened again in the same moment, and the old session stays dead.
    edge.datapath.upsert(&edge.binding, long).unwrap();
    assert!(edge.datapath.live_udp_clients(edge.binding.key).is_empty());
    assert_ne!(
        exchange(&client, &backend, &edge).await,
        from,
        "a session of its own"
    );
    assert_eq!(edge.stats().flows, 1, "the counters began anew");
}

#[tokio::test]
async fn a_moved_target_takes_its_clients_along() {
    let (client, old) = sockets().await;
    let (_, new) = sockets().await;
    let mut edge = Edge::new(settings(), Protocol::Udp, old.local_addr().unwrap());
    exchange(&client, &old, &edge).await;
    let moved = Binding {
        backend: new.local_addr().unwrap(),
        generation: 2,
        ..edge.binding.clone()
    };
    edge.datapath.upsert(&moved, AT_ONCE).unwrap();
    exchange(&client, &new, &edge).await;
    until("only the new one lives", || edge.stats().active == 1).await;
}

#[tokio::test]
async fn a_missing_tunnel_drops_datagrams_and_never_goes_around() {
    let (client, backend) = sockets().await;
    let missing = UserspaceSettings {
        tunnel: Some("wg-not-there".into()),
        ..settings()
    };
    let edge = Edge::new(missing, Protocol::Udp, backend.local_addr().unwrap());
    for _ in 0..10 {
        client.send_to(b"secret", edge.public).await.unwrap();
    }
    let detail = || edge.datapath.detail(edge.binding.key).unwrap();
    until("all are dropped", || detail().dropped_datagrams == 10).await;
    let heard = tokio::time::timeout(Duration::from_millis(200), backend.recv_from(&mut [0; 6])).await;
    assert!(heard.is_err(), "a datagram went around the tunnel");
    // The failure is remembered for a moment, so that a flood costs no system calls.
    assert!((1..10).contains(&detail().timeouts), "{:?}", detail());
}
