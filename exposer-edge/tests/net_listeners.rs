//! Listeners of this host are found with their owners; our own sockets are not taken for another's.
#![expect(
    clippy::unwrap_used,
    reason = "test code: a failed expectation is a failed test"
)]

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};

use exposer_common::model::Protocol;
use exposer_edge::net::listeners::{self, owner_of};

/// Another process that listens on 127.0.0.2, TCP and UDP; ends with the test.
struct Other {
    child: Child,
    tcp: u16,
    udp: u16,
}

impl Other {
    fn start() -> Self {
        let tcp = TcpListener::bind("127.0.0.2:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.2:0").unwrap();
        let ports = (tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
        // It has the sockets as its standard input and error; ours are closed with the command.
        let child = Command::new("sleep")
            .arg("60")
            .stdin(OwnedFd::from(tcp))
            .stderr(OwnedFd::from(udp))
            .spawn()
            .unwrap();
        Self {
            child,
            tcp: ports.0,
            udp: ports.1,
        }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn another_process_is_named() {
    let other = Other::start();
    for (port, protocol) in [(other.tcp, Protocol::Tcp), (other.udp, Protocol::Udp)] {
        let owner = owner_of(([127, 0, 0, 2], port).into(), protocol).expect("the listener is not found");
        assert!(
            owner.contains("sleep") && owner.contains(&other.child.id().to_string()),
            "{owner}"
        );
        assert_eq!(
            owner_of(([127, 0, 0, 3], port).into(), protocol),
            None,
            "another address is free"
        );
    }
    assert_eq!(
        owner_of(([127, 0, 0, 2], other.tcp).into(), Protocol::Udp),
        None,
        "TCP and UDP are apart"
    );
}

#[test]
fn our_own_sockets_and_connected_ones_are_left_out() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let _client = TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
    let ours = [tcp.local_addr().unwrap(), udp.local_addr().unwrap()];
    let found = listeners::scan().unwrap();
    assert!(
        !found.iter().any(|listener| ours.contains(&listener.address)),
        "{found:?}"
    );
}
