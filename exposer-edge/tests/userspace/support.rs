//! Topology of the userspace stories, all on loopback: client 127.0.0.1, public 127.0.0.2, backend 127.0.0.3.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use exposer_common::model::{ClientIp, Protocol, ServiceId};
use exposer_edge::datapath::userspace::{UserspaceDatapath, UserspaceSettings};
use exposer_edge::datapath::{Binding, BindingKey, BindingStats, Datapath, Removal, ServiceRef};
use exposer_edge::net::environment::Environment;
use tokio::net::{TcpListener, TcpStream};

/// Where clients come from.
pub const CLIENT: &str = "127.0.0.1";
/// Where public ports are.
pub const PUBLIC: &str = "127.0.0.2";
/// Where backends are.
pub const BACKEND: &str = "127.0.0.3";

/// Settings without a tunnel interface, which loopback does not have.
pub fn settings() -> UserspaceSettings {
    UserspaceSettings {
        tunnel: None,
        ..UserspaceSettings::new("unused")
    }
}

/// The host with these public addresses.
pub fn environment(addresses: &[&str]) -> Environment {
    Environment {
        public_addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        ..Environment::default()
    }
}

/// A port that nobody uses at this moment on any of the addresses.
pub fn free_port() -> u16 {
    let probe = std::net::TcpListener::bind((PUBLIC, 0)).unwrap();
    probe.local_addr().unwrap().port()
}

/// A binding of `port` to `backend`.
pub fn binding(port: u16, protocol: Protocol, backend: SocketAddr) -> Binding {
    Binding {
        key: BindingKey { port, protocol },
        service: ServiceRef {
            agent: "home".into(),
            id: ServiceId {
                namespace: "default".into(),
                name: format!("story-{port}"),
            },
        },
        index: 1,
        generation: 1,
        backend,
        client_ip: ClientIp::Snat,
        idle_timeout: None,
    }
}

/// No drain at all.
pub const AT_ONCE: Removal = Removal {
    drain: Duration::ZERO,
};

/// An edge with one binding on [`PUBLIC`].
pub struct Edge {
    /// The datapath under test.
    pub datapath: UserspaceDatapath,
    /// Its binding.
    pub binding: Binding,
    /// Where clients knock.
    pub public: SocketAddr,
}

impl Edge {
    /// Serves `backend` on a free port of [`PUBLIC`].
    pub fn new(settings: UserspaceSettings, protocol: Protocol, backend: SocketAddr) -> Self {
        let mut datapath = UserspaceDatapath::new(settings);
        datapath.set_environment(&environment(&[PUBLIC])).unwrap();
        let binding = binding(free_port(), protocol, backend);
        datapath.upsert(&binding, AT_ONCE).unwrap();
        let public = SocketAddr::new(PUBLIC.parse::<IpAddr>().unwrap(), binding.key.port);
        Self {
            datapath,
            binding,
            public,
        }
    }

    /// The binding's counters.
    pub fn stats(&self) -> BindingStats {
        self.datapath.stats(self.binding.key).unwrap()
    }

    /// A TCP connection to the public port.
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.public).await.unwrap()
    }
}

/// A backend that accepts by hand.
pub async fn tcp_backend() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((BACKEND, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A client and the backend's end of the same connection.
pub async fn pair(edge: &Edge, backend: &TcpListener) -> (TcpStream, TcpStream) {
    let client = edge.connect().await;
    let (accepted, _) = within(backend.accept()).await.unwrap();
    (client, accepted)
}

/// Fails the test when `future` takes longer than any step of these stories may.
pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("no progress for 20 s")
}

/// Waits until `what` holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Bytes that are the same in each run and differ at each position, from a 64-bit xorshift.
pub fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Closes with RST.
pub fn abort(stream: TcpStream) {
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
}
