//! PROXY protocol headers (HAProxy's `proxy-protocol.txt`, versions 1 and 2): the client's address for the backend.

use std::io;
use std::net::SocketAddr;

use exposer_common::model::ClientIp;
use tokio::net::TcpStream;

/// Version 2 signature.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const VERSION_COMMAND: u8 = 0x21;

/// Sends the header that `client_ip` asks for, before any byte of the client.
///
/// # Errors
///
/// When the backend is gone.
pub async fn introduce(
    backend: &TcpStream,
    client: &TcpStream,
    peer: SocketAddr,
    client_ip: ClientIp,
) -> io::Result<()> {
    let header = match client_ip {
        ClientIp::ProxyV1 => v1(peer, client.local_addr()?).into_bytes(),
        ClientIp::ProxyV2 => v2(peer, client.local_addr()?),
        ClientIp::Auto | ClientIp::Snat | ClientIp::Transparent => return Ok(()),
    };
    let mut rest = header.as_slice();
    while !rest.is_empty() {
        backend.writable().await?;
        match backend.try_write(rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// IPv4-mapped addresses are written as IPv4, as receivers expect.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Header of version 1: one line, at most 107 bytes.
#[must_use]
pub fn v1(client: SocketAddr, public: SocketAddr) -> String {
    let (client, public) = (canonical(client), canonical(public));
    let family = match (client, public) {
        (SocketAddr::V4(_), SocketAddr::V4(_)) => "TCP4",
        (SocketAddr::V6(_), SocketAddr::V6(_)) => "TCP6",
        _ => return "PROXY UNKNOWN\r\n".into(),
    };
    format!(
        "PROXY {family} {} {} {} {}\r\n",
        client.ip(),
        public.ip(),
        client.port(),
        public.port()
    )
}

/// Header of version 2 for a TCP connection.
#[must_use]
pub fn v2(client: SocketAddr, public: SocketAddr) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.push(VERSION_COMMAND);
    match (canonical(client), canonical(public)) {
        (SocketAddr::V4(client), SocketAddr::V4(public)) => {
            header.extend_from_slice(&[0x11, 0, 12]);
            header.extend_from_slice(&client.ip().octets());
            header.extend_from_slice(&public.ip().octets());
        }
        (SocketAddr::V6(client), SocketAddr::V6(public)) => {
            header.extend_from_slice(&[0x21, 0, 36]);
            header.extend_from_slice(&client.ip().octets());
            header.extend_from_slice(&public.ip().octets());
        }
        _ => {
            header.extend_from_slice(&[0, 0, 0]);
            return header;
        }
    }
    header.extend_from_slice(&client.port().to_be_bytes());
    header.extend_from_slice(&public.port().to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn version_1_lines() {
        assert_eq!(
            v1(at("192.0.2.7:56324"), at("198.51.100.1:443")),
            "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n"
        );
        assert_eq!(
            v1(at("[2001:db8::7]:1"), at("[2001:db8::1]:65535")),
            "PROXY TCP6 2001:db8::7 2001:db8::1 1 65535\r\n"
        );
        assert_eq!(v1(at("192.0.2.7:1"), at("[2001:db8::1]:2")), "PROXY UNKNOWN\r\n");
        let longest = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
        assert!(v1(at(longest), at(longest)).len() <= 107);
    }

    #[test]
    fn version_2_bytes() {
        let header = v2(at("192.0.2.7:56324"), at("198.51.100.1:443"));
        assert_eq!(
            header,
            [
                0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x21, 0x11, 0x00,
                0x0c, 192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb
            ]
        );
        let header = v2(at("[2001:db8::7]:1"), at("[2001:db8::1]:2"));
        assert_eq!(header.len(), 16 + 36);
        assert_eq!(header[12..16], [0x21, 0x21, 0, 36]);
        assert_eq!(header[48..], [0, 1, 0, 2]);
        // A mapped client is an IPv4 client.
        assert_eq!(
            v2(at("[::ffff:192.0.2.7]:56324"), at("198.51.100.1:443"))[13],
            0x11
        );
    }
}
