//! Story: datagrams of every size go both ways unchanged, and replies leave from the address that the client used.

use std::net::SocketAddr;

use exposer_common::model::Protocol;
use exposer_edge::datapath::Datapath;
use exposer_edge::datapath::userspace::UserspaceDatapath;
use tokio::net::UdpSocket;

use crate::support::{
    AT_ONCE, BACKEND, CLIENT, Edge, PUBLIC, binding, environment, free_port, pattern, settings, within,
};

/// A backend that answers each datagram with the same bytes.
async fn echo() -> SocketAddr {
    let socket = UdpSocket::bind((BACKEND, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = vec![0; 65_536];
        while let Ok((read, from)) = socket.recv_from(&mut buffer).await {
            socket.send_to(&buffer[..read], from).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn a_thousand_datagrams_of_each_length() {
    let edge = Edge::new(settings(), Protocol::Udp, echo().await);
    let client = UdpSocket::bind((CLIENT, 0)).await.unwrap();
    client.connect(edge.public).await.unwrap();
    let bytes = pattern(4_000, 10);
    let mut buffer = vec![0; 65_536];
    let mut total = 0;
    for number in 0..1_000 {
        let length = 1 + number * 1_371 / 999;
        let sent = &bytes[number..number + length];
        client.send(sent).await.unwrap();
        let read = within(client.recv(&mut buffer)).await.unwrap();
        assert!(&buffer[..read] == sent, "datagram {number} of {length} bytes");
        total += length as u64;
    }
    let stats = edge.stats();
    assert_eq!((stats.flows, stats.active, stats.failed), (1, 1, 0));
    assert_eq!((stats.packets_in, stats.packets_out), (1_000, 1_000));
    assert_eq!((stats.bytes_in, stats.bytes_out), (total, total));
}

#[tokio::test]
async fn the_largest_and_the_empty_datagram() {
    let edge = Edge::new(settings(), Protocol::Udp, echo().await);
    let client = UdpSocket::bind((CLIENT, 0)).await.unwrap();
    client.connect(edge.public).await.unwrap();
    let largest = pattern(65_507, 11);
    let mut buffer = vec![0; 65_536];
    for sent in [&largest[..], &[], &largest[..1], &[], &largest[..]] {
        client.send(sent).await.unwrap();
        let read = within(client.recv(&mut buffer)).await.unwrap();
        assert!(&buffer[..read] == sent, "{read} of {} bytes", sent.len());
    }
    assert_eq!(edge.stats().packets_in, 5);
}

#[tokio::test]
async fn bursts_keep_their_boundaries() {
    let edge = Edge::new(settings(), Protocol::Udp, echo().await);
    let client = UdpSocket::bind((CLIENT, 0)).await.unwrap();
    client.connect(edge.public).await.unwrap();
    let bytes = pattern(100_000, 12);
    let mut buffer = vec![0; 65_536];
    for length in [1, 100, 1_372, 1_472] {
        let state = quinn_udp::UdpSocketState::new((&client).into()).unwrap();
        // One GSO send: 30 datagrams of `length` and a shorter one, which the kernel may hand over as one batch.
        let train = &bytes[..30 * length + length / 2];
        let transmit = quinn_udp::Transmit {
            destination: edge.public,
            ecn: None,
            contents: train,
            segment_size: Some(length),
            src_ip: None,
        };
        client.writable().await.unwrap();
        state.try_send((&client).into(), &transmit).unwrap();
        for sent in train.chunks(length) {
            let read = within(client.recv(&mut buffer)).await.unwrap();
            assert!(&buffer[..read] == sent, "{read} of {} bytes", sent.len());
        }
    }
}

#[tokio::test]
async fn replies_leave_from_the_address_that_the_client_used() {
    let backend = echo().await;
    let mut datapath = UserspaceDatapath::new(settings());
    datapath
        .set_environment(&environment(&[PUBLIC, "127.0.0.4"]))
        .unwrap();
    let served = binding(free_port(), Protocol::Udp, backend);
    datapath.upsert(&served, AT_ONCE).unwrap();
    let client = UdpSocket::bind((CLIENT, 0)).await.unwrap();
    let mut expected = Vec::new();
    for host in [PUBLIC, "127.0.0.4", PUBLIC] {
        let public = SocketAddr::new(host.parse().unwrap(), served.key.port);
        client.send_to(host.as_bytes(), public).await.unwrap();
        let mut buffer = [0; 100];
        let (read, from) = within(client.recv_from(&mut buffer)).await.unwrap();
        assert_eq!((&buffer[..read], from), (host.as_bytes(), public));
        expected.push((client.local_addr().unwrap(), public));
    }
    expected.sort_unstable();
    expected.dedup();
    assert_eq!(datapath.live_udp_clients(served.key), expected);
    assert_eq!(datapath.stats(served.key).unwrap().active, 2);
}

#[tokio::test]
async fn a_wildcard_address_answers_from_the_address_that_was_used() {
    let backend = echo().await;
    let mut datapath = UserspaceDatapath::new(settings());
    datapath.set_environment(&environment(&["0.0.0.0"])).unwrap();
    let served = binding(free_port(), Protocol::Udp, backend);
    datapath.upsert(&served, AT_ONCE).unwrap();
    let client = UdpSocket::bind((CLIENT, 0)).await.unwrap();
    for host in ["127.0.0.77", "127.0.0.78"] {
        let public = SocketAddr::new(host.parse().unwrap(), served.key.port);
        client.send_to(b"?", public).await.unwrap();
        let (_, from) = within(client.recv_from(&mut [0; 1])).await.unwrap();
        assert_eq!(from, public);
    }
}
