//! Listeners of this host are found with their owners; our own sockets are not taken for another's.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "test code: a failed expectation is a failed test"
)]

use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};

use exposer_common::model::Protocol;
use exposer_edge::net::listeners::{self, owner_of};

/// Another process that listens on 127.0.0.2, TCP and UDP, and says its ports; ends with the test.
struct Other {
    child: Child,
    tcp: u16,
    udp: u16,
}

impl Other {
    fn start() -> Self {
        let script = "import socket,sys,time\n\
            t=socket.socket(); t.bind(('127.0.0.2',0)); t.listen()\n\
            u=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); u.bind(('127.0.0.2',0))\n\
            print(t.getsockname()[1],u.getsockname()[1],flush=True)\n\
            sys.stdin.read()";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this test needs python3");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let mut ports = line.split_whitespace().map(|port| port.parse().unwrap());
        Self {
            tcp: ports.next().unwrap(),
            udp: ports.next().unwrap(),
            child,
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
            owner.contains("python") && owner.contains(&other.child.id().to_string()),
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
