//! Story: a connection without traffic ends after its idle timeout, and traffic in either direction keeps it.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use exposer_common::model::Protocol;
use exposer_edge::datapath::userspace::UserspaceSettings;
use exposer_edge::datapath::{Binding, Datapath};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{AT_ONCE, Edge, pair, settings, tcp_backend, within};

#[tokio::test]
async fn an_idle_connection_is_reset_on_both_sides() {
    let (backend, address) = tcp_backend().await;
    // Long enough that a busy machine does not make a pause of a quarter of it look like silence.
    let idle = Duration::from_secs(2);
    let edge = Edge::new(
        UserspaceSettings {
            tcp_idle: idle,
            ..settings()
        },
        Protocol::Tcp,
        address,
    );
    let (mut client, mut server) = pair(&edge, &backend).await;
    // One direction alone keeps it alive.
    for _ in 0..6 {
        tokio::time::sleep(idle / 4).await;
        server.write_all(b"x").await.unwrap();
        within(client.read_exact(&mut [0; 1])).await.unwrap();
    }
    let last = Instant::now();
    assert_eq!(
        within(client.read(&mut [0; 1])).await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    assert!(last.elapsed() >= idle * 9 / 10, "{:?}", last.elapsed());
    assert_eq!(
        within(server.read(&mut [0; 1])).await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
}

#[tokio::test]
async fn the_bindings_own_timeout_goes_first() {
    let (backend, address) = tcp_backend().await;
    let mut edge = Edge::new(settings(), Protocol::Tcp, address);
    let own = Binding {
        idle_timeout: Some(Duration::from_millis(100)),
        ..edge.binding.clone()
    };
    edge.datapath.upsert(&own, AT_ONCE).unwrap();
    let (mut client, _server) = pair(&edge, &backend).await;
    assert_eq!(
        within(client.read(&mut [0; 1])).await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
}
