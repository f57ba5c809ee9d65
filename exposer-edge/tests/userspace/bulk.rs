//! Story: 100 MB in both directions at once arrive byte for byte, by splice(2) and by copy; urgent data harms nothing.

use exposer_common::model::Protocol;
use exposer_edge::datapath::userspace::UserspaceSettings;
use ring::digest::{Context, Digest, SHA256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::support::{Edge, pair, pattern, settings, tcp_backend, until, within};

const BLOCK: usize = 1_000_000;
const BLOCKS: u64 = 100;

async fn send(mut sink: impl AsyncWrite + Unpin, seed: u64) -> Digest {
    let mut digest = Context::new(&SHA256);
    let mut block = pattern(BLOCK, seed);
    for number in 0..BLOCKS {
        block[..8].copy_from_slice(&number.to_be_bytes());
        digest.update(&block);
        within(sink.write_all(&block)).await.unwrap();
    }
    sink.shutdown().await.unwrap();
    digest.finish()
}

async fn receive(mut source: impl AsyncRead + Unpin) -> (u64, Digest) {
    let mut digest = Context::new(&SHA256);
    let mut buffer = vec![0; 256 * 1024];
    let mut total = 0;
    loop {
        let read = within(source.read(&mut buffer)).await.unwrap();
        if read == 0 {
            return (total, digest.finish());
        }
        digest.update(&buffer[..read]);
        total += read as u64;
    }
}

async fn both_ways(settings: UserspaceSettings) {
    let (backend, address) = tcp_backend().await;
    let edge = Edge::new(settings, Protocol::Tcp, address);
    let (client, server) = pair(&edge, &backend).await;
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let up = tokio::spawn(send(client_out, 7));
    let down = tokio::spawn(send(server_out, 8));
    let at_server = tokio::spawn(receive(server_in));
    let at_client = tokio::spawn(receive(client_in));
    let (up, down) = (up.await.unwrap(), down.await.unwrap());
    let (at_server, at_client) = (at_server.await.unwrap(), at_client.await.unwrap());
    let bytes = BLOCKS * BLOCK as u64;
    assert_eq!((at_server.0, at_client.0), (bytes, bytes));
    assert_eq!(at_server.1.as_ref(), up.as_ref());
    assert_eq!(at_client.1.as_ref(), down.as_ref());
    until("it is over", || edge.stats().active == 0).await;
    let stats = edge.stats();
    assert_eq!((stats.bytes_in, stats.bytes_out), (bytes, bytes));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_megabytes_both_ways_by_splice() {
    both_ways(settings()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_megabytes_both_ways_by_copy() {
    both_ways(UserspaceSettings {
        zero_copy: false,
        ..settings()
    })
    .await;
}

#[tokio::test]
async fn urgent_data_neither_stops_nor_damages_the_stream() {
    let (backend, address) = tcp_backend().await;
    let edge = Edge::new(settings(), Protocol::Tcp, address);
    let (mut client, server) = pair(&edge, &backend).await;
    let reading = tokio::spawn(async move {
        let mut server = server;
        let mut got = Vec::new();
        within(server.read_to_end(&mut got)).await.unwrap();
        got
    });
    let block = pattern(300_000, 9);
    for round in 1..=2 {
        client.write_all(&block).await.unwrap();
        client.writable().await.unwrap();
        // The first one in the middle, the second one right before the end: splice(2) stops at both.
        let sent = socket2::SockRef::from(&client).send_out_of_band(b"!");
        assert_eq!(sent.unwrap(), 1);
        client.write_all(&block).await.unwrap();
        until("the edge is past it", || edge.stats().bytes_in == 600_000 * round).await;
    }
    client.shutdown().await.unwrap();
    let got = reading.await.unwrap();
    // The urgent bytes themselves are out of band: a receiver that does not ask for them does not get them.
    assert!(
        got == block.repeat(4),
        "{} of {} bytes",
        got.len(),
        4 * block.len()
    );
}
