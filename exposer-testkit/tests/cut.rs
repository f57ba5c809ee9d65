//! A TCP connection of a process is cut and its others are left alone; needs root.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use exposer_testkit::cut;
use exposer_testkit::netns::Netns;

#[test]
fn a_connection_is_cut_and_others_are_left_alone() {
    let netns = Netns::new("cut", "one").unwrap();
    let listen = || Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
    let (one, other) = (netns.run(listen).unwrap(), netns.run(listen).unwrap());
    let connect = |listener: &TcpListener| {
        let address = listener.local_addr().unwrap();
        let client = netns.run(|| Ok(TcpStream::connect(address)?)).unwrap();
        (client, listener.accept().unwrap().0)
    };
    let ((mut client, _server), (mut spared, mut spared_server)) = (connect(&one), connect(&other));
    let SocketAddr::V4(peer) = one.local_addr().unwrap() else {
        panic!("v4 was bound")
    };
    assert_eq!(cut::connections(&netns, std::process::id(), peer).unwrap(), 1);
    assert_eq!(
        client.read(&mut [0; 8]).unwrap(),
        0,
        "the cut connection has ended"
    );
    spared_server.write_all(b"alive").unwrap();
    assert_eq!(spared.read(&mut [0; 8]).unwrap(), 5);
    drop(client);
    assert!(
        cut::connections(&netns, std::process::id(), peer).is_err(),
        "there is none left"
    );
}
