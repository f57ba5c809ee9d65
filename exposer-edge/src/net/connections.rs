//! Connections that this host's own stack holds with a client, from procfs: what the programs would find as live
//! sockets (`bpf_skc_lookup_tcp`, `bpf_sk_lookup_udp`) and leave to the stack.

use std::io;
use std::net::IpAddr;

use exposer_common::model::Protocol;
use procfs::net::{TcpNetEntries, TcpState, UdpNetEntries, UdpState};
use procfs::{FromReadSI as _, current_system_info};

use super::listeners::{optional, path};
use crate::datapath::BindingKey;

/// Local port and protocol of every connection with `client`; a port as often as it has connections.
///
/// TIME_WAIT counts as none, as it does for the programs: the stack would take a SYN as a fresh start.
///
/// # Errors
///
/// When the socket tables can't be read.
pub fn with(client: IpAddr) -> io::Result<Vec<BindingKey>> {
    let client = client.to_canonical();
    let mut found = Vec::new();
    let key = |port, protocol| BindingKey { port, protocol };
    for table in ["tcp", "tcp6"] {
        let entries = optional(TcpNetEntries::from_file(path(table), current_system_info()))?;
        found.extend(
            entries
                .into_iter()
                .flat_map(|entries| entries.0)
                .filter(|entry| entry.remote_address.ip().to_canonical() == client)
                .filter(|entry| !matches!(entry.state, TcpState::Listen | TcpState::TimeWait))
                .map(|entry| key(entry.local_address.port(), Protocol::Tcp)),
        );
    }
    for table in ["udp", "udp6"] {
        let entries = optional(UdpNetEntries::from_file(path(table), current_system_info()))?;
        found.extend(
            entries
                .into_iter()
                .flat_map(|entries| entries.0)
                .filter(|entry| entry.remote_address.ip().to_canonical() == client)
                .filter(|entry| entry.state == UdpState::Established)
                .map(|entry| key(entry.local_address.port(), Protocol::Udp)),
        );
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn connections_are_found_by_their_client() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let of_port = |client: &str| {
            let all = with(client.parse().unwrap()).unwrap();
            all.iter().filter(|key| key.port == port).count()
        };
        assert_eq!(of_port("127.0.0.1"), 0, "a listener is no connection");
        let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let _server = listener.accept().unwrap();
        assert_eq!(of_port("127.0.0.1"), 1);
        assert_eq!(of_port("127.0.0.2"), 0);

        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let peer = UdpSocket::bind("127.0.0.3:0").unwrap();
        socket.connect(peer.local_addr().unwrap()).unwrap();
        let key = BindingKey {
            port: socket.local_addr().unwrap().port(),
            protocol: Protocol::Udp,
        };
        assert_eq!(with("127.0.0.3".parse().unwrap()).unwrap(), [key]);
    }
}
