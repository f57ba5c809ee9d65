//! Story: a binding that is removed or moved closes to new connections at once and lets the present ones drain.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use exposer_common::model::Protocol;
use exposer_edge::datapath::{Binding, Datapath, Removal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{AT_ONCE, Edge, environment, pair, settings, tcp_backend, until, within};

async fn ping(from: &mut TcpStream, to: &mut TcpStream) {
    within(from.write_all(b"ping")).await.unwrap();
    let mut got = [0; 4];
    within(to.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"ping");
}

#[tokio::test]
async fn the_port_closes_at_once_and_the_connection_drains() {
    let (backend, address) = tcp_backend().await;
    let mut edge = Edge::new(settings(), Protocol::Tcp, address);
    let (mut client, mut server) = pair(&edge, &backend).await;
    ping(&mut client, &mut server).await;
    let drain = Duration::from_secs(2);
    let began = Instant::now();
    edge.datapath.remove(edge.binding.key, Removal { drain }).unwrap();
    let refused = TcpStream::connect(edge.public).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert!(edge.datapath.stats(edge.binding.key).is_none());
    ping(&mut client, &mut server).await;
    ping(&mut server, &mut client).await;
    let error = within(client.read(&mut [0; 1])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(began.elapsed() >= drain);
    assert_eq!(
        within(server.read(&mut [0; 1])).await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    // Again is no error.
    edge.datapath.remove(edge.binding.key, AT_ONCE).unwrap();
}

#[tokio::test]
async fn a_port_can_be_closed_and_opened_in_the_same_moment() {
    let (backend, address) = tcp_backend().await;
    let mut edge = Edge::new(settings(), Protocol::Tcp, address);
    for _ in 0..100 {
        edge.datapath.remove(edge.binding.key, AT_ONCE).unwrap();
        edge.datapath.upsert(&edge.binding, AT_ONCE).unwrap();
    }
    let (mut client, mut server) = pair(&edge, &backend).await;
    ping(&mut client, &mut server).await;
}

#[tokio::test]
async fn new_connections_follow_the_target_and_old_ones_drain() {
    let (old, old_address) = tcp_backend().await;
    let (new, new_address) = tcp_backend().await;
    let mut edge = Edge::new(settings(), Protocol::Tcp, old_address);
    let (mut client, mut server) = pair(&edge, &old).await;
    let moved = Binding {
        backend: new_address,
        generation: 2,
        ..edge.binding.clone()
    };
    let drain = Duration::from_secs(2);
    edge.datapath.upsert(&moved, Removal { drain }).unwrap();
    let (mut client_2, mut server_2) = pair(&edge, &new).await;
    ping(&mut client_2, &mut server_2).await;
    ping(&mut client, &mut server).await;
    assert_eq!(edge.stats().active, 2);
    assert_eq!(
        within(client.read(&mut [0; 1])).await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    ping(&mut client_2, &mut server_2).await;
    until("the old one is over", || edge.stats().active == 1).await;
    assert_eq!(edge.stats().flows, 2, "the counters go on");
}

#[tokio::test]
async fn saying_the_same_again_disturbs_nobody() {
    let (backend, address) = tcp_backend().await;
    let mut edge = Edge::new(settings(), Protocol::Tcp, address);
    let (mut client, mut server) = pair(&edge, &backend).await;
    edge.datapath.upsert(&edge.binding, AT_ONCE).unwrap();
    edge.datapath
        .set_environment(&environment(&[crate::support::PUBLIC]))
        .unwrap();
    edge.datapath.tick().unwrap();
    let other_idle = Binding {
        idle_timeout: Some(Duration::from_secs(60)),
        ..edge.binding.clone()
    };
    edge.datapath.upsert(&other_idle, AT_ONCE).unwrap();
    ping(&mut client, &mut server).await;
    ping(&mut server, &mut client).await;
}

#[tokio::test]
async fn a_shutdown_waits_for_what_ends_and_resets_the_rest() {
    let (backend, address) = tcp_backend().await;
    let edge = Edge::new(settings(), Protocol::Tcp, address);
    let (mut quick, mut quick_server) = pair(&edge, &backend).await;
    let (mut stuck, _stuck_server) = pair(&edge, &backend).await;
    let public = edge.public;
    let down = tokio::spawn(edge.datapath.shutdown(Duration::from_secs(2)));
    within(async {
        while TcpStream::connect(public).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    ping(&mut quick, &mut quick_server).await;
    drop(quick_server);
    assert_eq!(within(quick.read(&mut [0; 1])).await.unwrap(), 0);
    drop(quick);
    assert_eq!(
        within(stuck.read(&mut [0; 1])).await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    within(down).await.unwrap();
}
