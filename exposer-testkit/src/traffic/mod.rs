//! Real traffic with checksums: servers at home, clients on the internet, and what the clients measured.
//!
//! A TCP server reads one line and does what it says; see [`server`] for the lines. Both sides know the bytes of a
//! transfer from a seed ([`pattern`]), so that a receiver judges every byte without trusting the sender.

pub mod continuous;
pub mod pattern;
pub mod server;
pub mod tcp;
pub mod udp;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result};
use socket2::{Domain, Protocol, Socket, Type};

use crate::interrupt::Patient;
use crate::netns::Handle;

pub use continuous::{SlowReport, SlowTransfer, UdpCounter, UdpReport};
pub use server::Server;
pub use tcp::{HalfClose, Transfer};
pub use udp::Echo;

/// How long a client waits for a connection.
const CONNECT: Duration = Duration::from_secs(15);
/// How long a client waits for the next byte: longer than any gap that a test forgives.
const IDLE: Duration = Duration::from_secs(20);

/// A client: its namespace and the source address that it uses.
#[derive(Clone, Debug)]
pub struct Client {
    netns: Handle,
    source: IpAddr,
}

impl Client {
    /// A client that sends from `source`, an address of the namespace.
    #[must_use]
    pub fn new(netns: Handle, source: impl Into<IpAddr>) -> Self {
        Self {
            netns,
            source: source.into(),
        }
    }

    /// A TCP connection to `to` whose reads and writes may each take 20 s.
    ///
    /// # Errors
    ///
    /// Refused, unreachable, or no answer within 15 s. The text names both ends.
    pub fn connect(&self, to: SocketAddr) -> Result<Patient> {
        Ok(Patient::new(self.connect_within(to, CONNECT)?, IDLE)?)
    }

    /// The bare connection, made within `patience`.
    ///
    /// # Errors
    ///
    /// As [`Self::connect`].
    pub fn connect_within(&self, to: SocketAddr, patience: Duration) -> Result<TcpStream> {
        let connect = || -> io::Result<TcpStream> {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
            socket.bind(&SocketAddr::new(self.source, 0).into())?;
            socket.connect_timeout(&to.into(), patience)?;
            Ok(TcpStream::from(socket))
        };
        self.netns
            .run(|| connect().with_context(|| format!("cannot connect from {} to {to}", self.source)))
    }

    /// A UDP socket connected to `to`: a port-unreachable answer becomes an error of it.
    ///
    /// # Errors
    ///
    /// The source is not an address of the namespace, or there is no route.
    pub fn udp_socket(&self, to: SocketAddr) -> Result<UdpSocket> {
        let open = || -> io::Result<UdpSocket> {
            let socket = UdpSocket::bind(SocketAddr::new(self.source, 0))?;
            socket.connect(to)?;
            Ok(socket)
        };
        self.netns
            .run(|| open().with_context(|| format!("cannot open a UDP socket from {} to {to}", self.source)))
    }
}
