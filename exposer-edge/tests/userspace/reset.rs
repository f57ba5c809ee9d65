//! Story: a reset is carried over as a reset, and takes nothing with it that was sent before.

use exposer_common::model::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Edge, abort, pair, pattern, settings, tcp_backend, until, within};

/// Everything up to the end, and how the end looked.
async fn to_the_end(stream: &mut TcpStream) -> (Vec<u8>, Option<std::io::ErrorKind>) {
    let mut got = Vec::new();
    let mut buffer = vec![0; 65_536];
    loop {
        match within(stream.read(&mut buffer)).await {
            Ok(0) => return (got, None),
            Ok(read) => got.extend_from_slice(&buffer[..read]),
            Err(error) => return (got, Some(error.kind())),
        }
    }
}

const RESET: Option<std::io::ErrorKind> = Some(std::io::ErrorKind::ConnectionReset);

#[tokio::test]
async fn the_clients_reset_reaches_the_backend_after_its_data() {
    let (backend, address) = tcp_backend().await;
    let edge = Edge::new(settings(), Protocol::Tcp, address);
    for length in [0, 10, 200_000] {
        let (mut client, mut server) = pair(&edge, &backend).await;
        let sent = pattern(length, 4);
        client.write_all(&sent).await.unwrap();
        // What has not left the client yet dies with its reset on any path, so let it leave.
        until("the edge took it all", || edge.stats().bytes_in >= length as u64).await;
        abort(client);
        let (got, end) = to_the_end(&mut server).await;
        assert!(got == sent, "{} of {length} bytes", got.len());
        assert_eq!(end, RESET, "after {length} bytes");
        until("it is over", || edge.stats().active == 0).await;
    }
}

#[tokio::test]
async fn the_backends_reset_reaches_the_client_after_its_data() {
    let (backend, address) = tcp_backend().await;
    let edge = Edge::new(settings(), Protocol::Tcp, address);
    for length in [0, 10] {
        let (mut client, mut server) = pair(&edge, &backend).await;
        server.write_all(&pattern(length, 5)).await.unwrap();
        until("the edge took it all", || edge.stats().bytes_out >= length as u64).await;
        abort(server);
        let (got, end) = to_the_end(&mut client).await;
        assert!(got == pattern(length, 5), "{} of {length} bytes", got.len());
        assert_eq!(end, RESET, "after {length} bytes");
    }
}

#[tokio::test]
async fn an_answer_survives_a_server_that_closes_with_unread_input() {
    // A web server that says "413" and closes while the upload goes on: its kernel sends RST after the answer.
    let (backend, address) = tcp_backend().await;
    let edge = Edge::new(settings(), Protocol::Tcp, address);
    let (mut client, mut server) = pair(&edge, &backend).await;
    let (mut reading, mut writing) = client.split();
    let upload = async {
        let chunk = pattern(64 * 1024, 6);
        while writing.write_all(&chunk).await.is_ok() {}
    };
    let serve = async {
        server.read_exact(&mut [0; 1000]).await.unwrap();
        server.write_all(b"413 too large").await.unwrap();
        drop(server);
    };
    let answer = async {
        let mut got = vec![0; 13];
        within(reading.read_exact(&mut got)).await.unwrap();
        got
    };
    let ((), (), got) = within(async { tokio::join!(upload, serve, answer) }).await;
    assert_eq!(got, b"413 too large");
    until("it is over", || edge.stats().active == 0).await;
}

#[tokio::test]
async fn a_reset_after_the_backends_half_close_is_still_a_reset() {
    let (backend, address) = tcp_backend().await;
    let edge = Edge::new(settings(), Protocol::Tcp, address);
    let (mut client, mut server) = pair(&edge, &backend).await;
    server.shutdown().await.unwrap();
    assert_eq!(within(client.read(&mut [0; 1])).await.unwrap(), 0);
    abort(client);
    assert_eq!(to_the_end(&mut server).await.1, RESET);
    until("it is over", || edge.stats().active == 0).await;
}
