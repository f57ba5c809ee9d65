//! Story: each side may close its sending half first and still gets everything that the other one says.

use crate::support::{Edge, pair, pattern, settings, tcp_backend, until, within};
use exposer_common::model::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn client_closes_first_and_gets_the_whole_answer() {
    let (backend, address) = tcp_backend().await;
    let edge = Edge::new(settings(), Protocol::Tcp, address);
    let (mut client, mut server) = pair(&edge, &backend).await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut question = Vec::new();
    within(server.read_to_end(&mut question)).await.unwrap();
    assert_eq!(question, b"question");
    let answer = pattern(3_000_000, 1);
    let expected = answer.clone();
    let answering = tokio::spawn(async move {
        server.write_all(&answer).await.unwrap();
        drop(server);
    });
    let mut got = Vec::new();
    within(client.read_to_end(&mut got)).await.unwrap();
    assert!(got == expected, "{} of {} bytes", got.len(), expected.len());
    answering.await.unwrap();
    until("the connection is over", || edge.stats().active == 0).await;
    let stats = edge.stats();
    assert_eq!((stats.flows, stats.bytes_in, stats.bytes_out), (1, 8, 3_000_000));
    assert_eq!(stats.failed, 0);
}

#[tokio::test]
async fn backend_closes_first_and_gets_the_whole_upload() {
    let (backend, address) = tcp_backend().await;
    let edge = Edge::new(settings(), Protocol::Tcp, address);
    let (mut client, mut server) = pair(&edge, &backend).await;
    server.write_all(b"banner").await.unwrap();
    server.shutdown().await.unwrap();
    let mut banner = Vec::new();
    within(client.read_to_end(&mut banner)).await.unwrap();
    assert_eq!(banner, b"banner");
    let upload = pattern(3_000_000, 2);
    let expected = upload.clone();
    let uploading = tokio::spawn(async move {
        client.write_all(&upload).await.unwrap();
        drop(client);
    });
    let mut got = Vec::new();
    within(server.read_to_end(&mut got)).await.unwrap();
    assert!(got == expected, "{} of {} bytes", got.len(), expected.len());
    uploading.await.unwrap();
    until("the connection is over", || edge.stats().active == 0).await;
}

#[tokio::test]
async fn a_peer_that_writes_and_closes_at_once_loses_nothing() {
    let (backend, address) = tcp_backend().await;
    let edge = Edge::new(settings(), Protocol::Tcp, address);
    for length in [1, 1_000, 32 * 1024, 500_000] {
        let mut client = edge.connect().await;
        let sent = pattern(length, 3);
        let copy = sent.clone();
        let sending = tokio::spawn(async move {
            client.write_all(&copy).await.unwrap();
            drop(client);
        });
        let (mut server, _) = within(backend.accept()).await.unwrap();
        let mut got = Vec::new();
        within(server.read_to_end(&mut got)).await.unwrap();
        assert!(got == sent, "{} of {length} bytes", got.len());
        sending.await.unwrap();
    }
}

#[tokio::test]
async fn both_close_at_the_same_time() {
    let (backend, address) = tcp_backend().await;
    let edge = Edge::new(settings(), Protocol::Tcp, address);
    for _ in 0..50 {
        let (mut client, mut server) = pair(&edge, &backend).await;
        let (a, b) = tokio::join!(
            async {
                client.write_all(b"ping").await.unwrap();
                client.shutdown().await.unwrap();
                let mut got = Vec::new();
                client.read_to_end(&mut got).await.unwrap();
                got
            },
            async {
                server.write_all(b"pong").await.unwrap();
                server.shutdown().await.unwrap();
                let mut got = Vec::new();
                server.read_to_end(&mut got).await.unwrap();
                got
            }
        );
        assert_eq!((a.as_slice(), b.as_slice()), (&b"pong"[..], &b"ping"[..]));
    }
    until("all are over", || edge.stats().active == 0).await;
    assert_eq!(edge.stats().flows, 50);
    assert_eq!(edge.stats().bytes_in + edge.stats().bytes_out, 400);
}
