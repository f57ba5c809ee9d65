//! Story: the backend learns the client's address from a PROXY protocol header that comes before the client's bytes.

use exposer_common::model::{ClientIp, Protocol};
use exposer_edge::datapath::{Binding, Datapath, DatapathError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{AT_ONCE, Edge, pair, settings, tcp_backend, within};

async fn header(client_ip: ClientIp, length: usize) -> (Vec<u8>, u16, u16) {
    let (backend, address) = tcp_backend().await;
    let mut edge = Edge::new(settings(), Protocol::Tcp, address);
    let binding = Binding {
        client_ip,
        ..edge.binding.clone()
    };
    edge.datapath.upsert(&binding, AT_ONCE).unwrap();
    let (mut client, mut server) = pair(&edge, &backend).await;
    client.write_all(b"bytes").await.unwrap();
    let mut got = vec![0; length];
    within(server.read_exact(&mut got)).await.unwrap();
    let mut bytes = [0; 5];
    within(server.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(&bytes, b"bytes");
    (got, client.local_addr().unwrap().port(), edge.public.port())
}

#[tokio::test]
async fn version_1() {
    // Ports have five digits here: both come from the ephemeral range.
    let expected = "PROXY TCP4 127.0.0.1 127.0.0.2 00000 00000\r\n";
    let (got, client, public) = header(ClientIp::ProxyV1, expected.len()).await;
    let expected = format!("PROXY TCP4 127.0.0.1 127.0.0.2 {client} {public}\r\n");
    assert_eq!(String::from_utf8(got).unwrap(), expected);
}

#[tokio::test]
async fn version_2() {
    let (got, client, public) = header(ClientIp::ProxyV2, 28).await;
    let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x02".to_vec();
    expected.extend_from_slice(&client.to_be_bytes());
    expected.extend_from_slice(&public.to_be_bytes());
    assert_eq!(got, expected);
}

#[tokio::test]
async fn what_is_not_built_says_so() {
    let (_backend, address) = tcp_backend().await;
    for (protocol, client_ip) in [
        (Protocol::Udp, ClientIp::ProxyV1),
        (Protocol::Udp, ClientIp::ProxyV2),
        (Protocol::Tcp, ClientIp::Transparent),
    ] {
        let mut edge = Edge::new(settings(), protocol, address);
        let binding = Binding {
            client_ip,
            ..edge.binding.clone()
        };
        let error = edge.datapath.upsert(&binding, AT_ONCE).unwrap_err();
        assert!(
            matches!(&error, DatapathError::Unsupported(text) if text.contains("client-ip snat")),
            "{error}"
        );
        assert!(
            edge.datapath.stats(binding.key).is_none(),
            "nothing is left behind"
        );
    }
}
