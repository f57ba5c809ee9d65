//! Story: what the userspace path costs in memory and descriptors, measured in a process of its own, one part at a time.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::print_stdout,
    reason = "test code: a failing test is what a panic is for, and the measured numbers are worth seeing"
)]

#[path = "userspace/support.rs"]
#[expect(dead_code, reason = "shared with the stories that use the rest")]
mod support;

use std::io::Read;
use std::net::{TcpStream as StdTcpStream, UdpSocket as StdUdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use exposer_common::model::Protocol;
use exposer_edge::datapath::userspace::UserspaceSettings;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use support::{BACKEND, CLIENT, Edge, abort, pair, settings, tcp_backend, until, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// One test, so that the parts follow each other: they count what belongs to the whole process.
#[tokio::test]
async fn memory_and_descriptors() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(
        hard >= 16_000,
        "RLIMIT_NOFILE is {hard}; run with `ulimit -Hn 16000` or more"
    );
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(20_000), hard).unwrap();
    // These two first, and the sessions kept: memory that an earlier part gave back would hide what they cost.
    let sessions = udp_sessions_are_cheap().await;
    idle_connections_are_cheap().await;
    drop(sessions);
    a_reader_that_stops_stops_the_writer_and_memory_stays_flat().await;
    many_short_connections_leave_nothing_behind().await;
    a_process_out_of_descriptors_goes_on_when_it_has_some().await;
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn uncapped() -> UserspaceSettings {
    UserspaceSettings {
        per_source: 100_000,
        per_service: 100_000,
        ..settings()
    }
}

async fn a_reader_that_stops_stops_the_writer_and_memory_stays_flat() {
    for zero_copy in [true, false] {
        let (backend, address) = tcp_backend().await;
        let edge = Edge::new(
            UserspaceSettings {
                zero_copy,
                ..settings()
            },
            Protocol::Tcp,
            address,
        );
        let (mut client, mut server) = pair(&edge, &backend).await;
        let block = vec![7; 1_000_000];
        let before = resident_kib();
        let mut written: usize = 0;
        while let Ok(wrote) = tokio::time::timeout(Duration::from_millis(500), client.write(&block)).await {
            written += wrote.unwrap();
            assert!(written < 200_000_000, "nothing stops the writer");
        }
        let grown = resident_kib().saturating_sub(before);
        println!("zero copy {zero_copy}: the writer stopped after {written} bytes; {grown} KiB more memory");
        assert!(grown < 2_048, "{grown} KiB");
        // And everything arrives once the reader goes on.
        client.shutdown().await.unwrap();
        let mut got = 0;
        let mut buffer = vec![0; 1_000_000];
        loop {
            match within(server.read(&mut buffer)).await.unwrap() {
                0 => break,
                read => got += read,
            }
        }
        assert_eq!(got, written);
    }
}

async fn many_short_connections_leave_nothing_behind() {
    let (backend, address) = tcp_backend().await;
    let edge = Edge::new(uncapped(), Protocol::Tcp, address);
    tokio::spawn(async move {
        while let Ok((mut server, _)) = backend.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 64];
                while let Ok(read) = server.read(&mut buffer).await {
                    if read == 0 || server.write_all(&buffer[..read]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    let exchange = async |number: u32| {
        let mut client = edge.connect().await;
        client.write_all(b"hello").await.unwrap();
        within(client.read_exact(&mut [0; 5])).await.unwrap();
        if number.is_multiple_of(2) {
            abort(client);
        } else {
            drop(client);
        }
    };
    for number in 0..500 {
        exchange(number).await;
    }
    until("all are over", || edge.stats().active == 0).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (files, memory) = (descriptors(), resident_kib());
    for number in 0..10_000 {
        exchange(number).await;
    }
    until("all are over", || edge.stats().active == 0).await;
    until("their descriptors are closed", || descriptors() <= files).await;
    let grown = resident_kib().saturating_sub(memory);
    println!("10,000 short connections: {grown} KiB more memory, no descriptor more");
    assert!(grown < 1_024, "{grown} KiB");
    assert_eq!((edge.stats().flows, edge.stats().failed), (10_500, 0));
}

async fn idle_connections_are_cheap() {
    const COUNT: usize = 2_000;
    // The two ends are plain sockets, so that nearly all of the growth is the edge's.
    let backend = std::net::TcpListener::bind((BACKEND, 0)).unwrap();
    let edge = Edge::new(uncapped(), Protocol::Tcp, backend.local_addr().unwrap());
    let public = edge.public;
    let open = move |count: usize| {
        let backend = backend.try_clone().unwrap();
        let open = move || -> Vec<(StdTcpStream, StdTcpStream)> {
            (0..count)
                .map(|_| {
                    (
                        StdTcpStream::connect(public).unwrap(),
                        backend.accept().unwrap().0,
                    )
                })
                .collect()
        };
        tokio::task::spawn_blocking(open)
    };
    let warm = open(100).await.unwrap();
    let before = resident_kib();
    let held = open(COUNT).await.unwrap();
    until("all are connected", || {
        edge.stats().active == (COUNT + 100) as u64
    })
    .await;
    let bytes = resident_kib().saturating_sub(before) * 1024 / COUNT;
    println!("{COUNT} idle TCP connections: {bytes} bytes each");
    assert!(bytes <= 8 * 1024, "{bytes} bytes for each");
    drop((warm, held));
    until("all are over", || edge.stats().active == 0).await;
}

async fn udp_sessions_are_cheap() -> (Edge, Vec<StdUdpSocket>) {
    const COUNT: usize = 2_000;
    let backend = StdUdpSocket::bind((BACKEND, 0)).unwrap();
    let edge = Edge::new(uncapped(), Protocol::Udp, backend.local_addr().unwrap());
    let public = edge.public;
    let open = |count: usize| {
        let backend = backend.try_clone().unwrap();
        let open = move || -> Vec<StdUdpSocket> {
            let session = |_| {
                let client = StdUdpSocket::bind((CLIENT, 0)).unwrap();
                client.send_to(b"?", public).unwrap();
                let (_, from) = backend.recv_from(&mut [0; 1]).unwrap();
                backend.send_to(b"!", from).unwrap();
                client.recv_from(&mut [0; 1]).unwrap();
                client
            };
            (0..count).map(session).collect()
        };
        tokio::task::spawn_blocking(open)
    };
    let warm = open(100).await.unwrap();
    let before = resident_kib();
    let held = open(COUNT).await.unwrap();
    assert_eq!(edge.stats().active, (COUNT + 100) as u64);
    let bytes = resident_kib().saturating_sub(before) * 1024 / COUNT;
    println!("{COUNT} UDP sessions: {bytes} bytes each");
    // Unoptimised futures are larger than those of a release.
    assert!(bytes <= 4 * 1024, "{bytes} bytes for each");
    drop(warm);
    (edge, held)
}

async fn a_process_out_of_descriptors_goes_on_when_it_has_some() {
    let (backend, address) = tcp_backend().await;
    let edge = Edge::new(uncapped(), Protocol::Tcp, address);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // What earlier parts held is closed by then.
    tokio::time::sleep(Duration::from_millis(100)).await;
    // Clients first; then room for nothing more.
    let clients: Vec<StdTcpStream> = (0..3)
        .map(|_| StdTcpStream::connect(edge.public).unwrap())
        .collect();
    // The limit is one of numbers: below the lowest free one there is nothing left.
    let lowest = std::fs::File::open("/dev/null").unwrap().as_raw_fd();
    setrlimit(Resource::RLIMIT_NOFILE, u64::try_from(lowest).unwrap(), hard).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    for _ in &clients {
        let (mut server, _) = within(backend.accept()).await.unwrap();
        server.write_all(b"hi").await.unwrap();
    }
    let heard = tokio::task::spawn_blocking(move || {
        clients.into_iter().all(|mut client| {
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            client.read_exact(&mut [0; 2]).is_ok()
        })
    });
    assert!(heard.await.unwrap());
    assert_eq!(edge.stats().failed, 0);
}
