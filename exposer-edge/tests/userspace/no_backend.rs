//! Story: a backend that refuses, is late, or is behind a tunnel that is down.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use exposer_common::model::Protocol;
use exposer_edge::datapath::userspace::UserspaceSettings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{Edge, settings, tcp_backend, until, within};

/// Refusals are asked again for `refused_retry`: longer than a busy machine takes for anything else here.
fn retrying(refused_retry: Duration) -> UserspaceSettings {
    UserspaceSettings {
        refused_retry,
        ..settings()
    }
}

#[tokio::test]
async fn a_client_that_has_spoken_is_reset_at_once() {
    let (backend, address) = tcp_backend().await;
    drop(backend);
    let edge = Edge::new(retrying(Duration::from_secs(15)), Protocol::Tcp, address);
    let mut client = edge.connect().await;
    client.write_all(b"hello").await.unwrap();
    let began = Instant::now();
    let error = within(client.read(&mut [0; 1])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    until("it is counted", || edge.stats().active == 0).await;
    assert_eq!(edge.datapath.detail(edge.binding.key).unwrap().refused, 1);
    assert_eq!(edge.stats().failed, 1);
}

#[tokio::test]
async fn a_silent_client_outlasts_a_short_restart_of_the_backend() {
    let (backend, address) = tcp_backend().await;
    drop(backend);
    let edge = Edge::new(retrying(Duration::from_secs(15)), Protocol::Tcp, address);
    let mut client = edge.connect().await;
    tokio::time::sleep(Duration::from_millis(90)).await;
    let backend = TcpListener::bind(address).await.unwrap();
    let (mut server, _) = within(backend.accept()).await.unwrap();
    server.write_all(b"here").await.unwrap();
    let mut got = [0; 4];
    within(client.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"here");
    assert_eq!(edge.stats().failed, 0);
}

#[tokio::test]
async fn a_silent_client_is_reset_when_the_backend_stays_away() {
    let (backend, address) = tcp_backend().await;
    drop(backend);
    let edge = Edge::new(settings(), Protocol::Tcp, address);
    let began = Instant::now();
    let mut client = edge.connect().await;
    let error = within(client.read(&mut [0; 1])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_missing_tunnel_is_waited_for_and_never_gone_around() {
    let (backend, address) = tcp_backend().await;
    let edge = Edge::new(
        UserspaceSettings {
            tunnel: Some("wg-not-there".into()),
            connect_timeout: Duration::from_millis(400),
            ..settings()
        },
        Protocol::Tcp,
        address,
    );
    let began = Instant::now();
    let mut client = edge.connect().await;
    client.write_all(b"secret").await.unwrap();
    let accepting = tokio::time::timeout(Duration::from_millis(800), backend.accept());
    let mut byte = [0; 1];
    let (accepted, read) = tokio::join!(accepting, within(client.read(&mut byte)));
    assert!(accepted.is_err(), "the dial went around the tunnel");
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(
        began.elapsed() >= Duration::from_millis(300),
        "given up too early"
    );
    assert_eq!(edge.datapath.detail(edge.binding.key).unwrap().timeouts, 1);
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_dial_with_it() {
    let edge = Edge::new(
        UserspaceSettings {
            tunnel: Some("wg-not-there".into()),
            connect_timeout: Duration::from_secs(3600),
            ..settings()
        },
        Protocol::Tcp,
        "127.0.0.3:9".parse().unwrap(),
    );
    let client = edge.connect().await;
    until("it is accepted", || edge.stats().active == 1).await;
    crate::support::abort(client);
    until("it is over", || edge.stats().active == 0).await;
}
