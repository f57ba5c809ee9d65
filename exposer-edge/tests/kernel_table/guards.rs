//! Who may make a flow, and what an existing one is owed when things go down.

use crate::bench::*;
use crate::packet::{ACK, Frame, SYN};
use anyhow::{Result, ensure};
use exposer_common::flow::{Control, FlowKey};
use exposer_common::link::LinkEntry;
use exposer_common::verdict::Reason;
use exposer_edge::datapath::kernel::clock;

#[test]
fn a_flow_is_never_passed_when_the_tunnel_is_gone() -> Result<()> {
    in_namespace(|| {
        let mut bench = Bench::new()?;
        bench.expect("SYN", &Frame::tcp(SYN).build(), REDIRECT, Reason::ForwardNew)?;
        bench.maps.links.set(
            2,
            LinkEntry {
                mtu: 1420,
                mss: 1380,
                ..LinkEntry::default()
            },
            0,
        )?;
        bench.expect("data", &Frame::tcp(ACK).build(), DROP, Reason::TunnelDown)?;
        Ok(())
    })
}

#[test]
fn without_a_living_daemon_only_existing_flows_go_on() -> Result<()> {
    in_namespace(|| {
        let mut bench = Bench::new()?;
        bench.expect("SYN", &Frame::tcp(SYN).build(), REDIRECT, Reason::ForwardNew)?;
        let long_ago = clock::now()?.saturating_sub(2_000_000_000).max(1);
        bench.maps.control.set(
            0,
            Control {
                heartbeat: long_ago,
                max_age: 1_000_000_000,
                ..Control::default()
            },
            0,
        )?;
        bench.expect("data", &Frame::tcp(ACK).build(), REDIRECT, Reason::ForwardHit)?;
        let other = Frame {
            sport: 40_001,
            ..Frame::tcp(SYN)
        };
        bench.expect("another SYN", &other.build(), PASS, Reason::ControlStale)?;
        let udp = Frame::udp(b"hello").build();
        bench.expect("a datagram", &udp, PASS, Reason::ControlStale)?;
        bench.maps.control.set(
            0,
            Control {
                heartbeat: clock::now()?,
                max_age: 60_000_000_000,
                ..Control::default()
            },
            0,
        )?;
        bench.expect("its next one stays where it went", &udp, PASS, Reason::HandedOver)?;
        bench.expect("the SYN again", &other.build(), REDIRECT, Reason::ForwardNew)?;
        Ok(())
    })
}

#[test]
fn tuples_of_live_sockets_are_left_to_the_stack() -> Result<()> {
    in_namespace(|| {
        let mut bench = Bench::new()?;
        let namespace = std::process::id();
        let _ = namespace;
        nix::sched::setns(
            std::fs::File::open("/proc/thread-self/ns/net")?,
            nix::sched::CloneFlags::CLONE_NEWNET,
        )?;
        // The public address and the client's, both on loopback: sockets between them own real tuples.
        for command in [
            "link set lo up",
            "addr add 44.128.0.2/32 dev lo",
            "addr add 44.128.7.7/32 dev lo",
        ] {
            let status = std::process::Command::new("ip")
                .args(command.split(' '))
                .status()?;
            ensure!(status.success(), "ip {command}");
        }
        let listener = std::net::TcpListener::bind(("44.128.0.2", PORT))?;
        bench.expect(
            "listener only",
            &Frame::tcp(SYN).build(),
            REDIRECT,
            Reason::ForwardNew,
        )?;

        let connect = |port: u16| -> Result<std::net::TcpStream> {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            socket.bind(&std::net::SocketAddr::from(([44, 128, 7, 7], port)).into())?;
            socket.connect(&std::net::SocketAddr::from((PUBLIC, PORT)).into())?;
            Ok(socket.into())
        };
        let client = connect(44_000)?;
        let (server, _) = listener.accept()?;
        let syn = Frame {
            sport: 44_000,
            ..Frame::tcp(SYN)
        }
        .build();
        bench.expect("ESTABLISHED", &syn, PASS, Reason::OwnedBySocket)?;
        // The server closes first, so TIME_WAIT is on its side: the tuple of the packet.
        drop(server);
        std::thread::sleep(std::time::Duration::from_millis(50));
        drop(client);
        std::thread::sleep(std::time::Duration::from_millis(50));
        bench.expect("TIME_WAIT", &syn, REDIRECT, Reason::ForwardNew)?;

        let unconnected = std::net::UdpSocket::bind(("44.128.0.2", PORT))?;
        bench.expect(
            "unconnected UDP socket",
            &Frame::udp(b"x").build(),
            REDIRECT,
            Reason::ForwardNew,
        )?;
        unconnected.connect(("44.128.7.7", 45_000))?;
        let frame = Frame {
            sport: 45_000,
            ..Frame::udp(b"x")
        }
        .build();
        bench.expect("connected UDP socket", &frame, PASS, Reason::OwnedBySocket)?;
        Ok(())
    })
}

#[test]
fn a_handed_over_client_stays_in_userspace() -> Result<()> {
    in_namespace(|| {
        let mut bench = Bench::new()?;
        let key = FlowKey {
            saddr: [44, 128, 7, 7],
            daddr: PUBLIC,
            sport: 40_000_u16.to_be_bytes(),
            dport: PORT.to_be_bytes(),
            proto: 17,
            zone: 1,
            pad: [0; 2],
        };
        let frame = Frame::udp(b"x").build();
        bench.maps.handed.insert(key, clock::now()?, 0)?;
        bench.expect("handed over", &frame, PASS, Reason::HandedOver)?;
        bench
            .maps
            .handed
            .insert(key, clock::now()?.saturating_sub(31_000_000_000), 0)?;
        bench.expect("half a minute later", &frame, REDIRECT, Reason::ForwardNew)?;
        Ok(())
    })
}
