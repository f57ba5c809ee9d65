//! Public sockets: one for each address, port and protocol. They are the reservation of the port as well.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use exposer_common::model::Protocol;
use nix::errno::Errno;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::served::Served;
use super::tcp;
use crate::datapath::{BindingKey, DatapathError};

/// Connections that the kernel keeps until they are accepted; it takes the smaller of this and `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;
/// First pause after an accept that failed for lack of something; it doubles from there.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often lack of something is reported.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// A socket that is bound to `address` alone, whether the address is there yet or not.
///
/// Neither protocol gets `SO_REUSEPORT`, and UDP no `SO_REUSEADDR` either (which on Linux would let another program
/// bind the same port): the socket is the reservation.
///
/// # Errors
///
/// [`DatapathError::PortInUse`], or what the system said.
pub fn bind(key: BindingKey, address: IpAddr) -> Result<Socket, DatapathError> {
    let local = SocketAddr::new(address, key.port);
    try_bind(key.protocol, local).map_err(|source| {
        if source.kind() == io::ErrorKind::AddrInUse {
            DatapathError::PortInUse {
                key,
                address,
                owner: crate::net::listeners::owner_of(local, key.protocol)
                    .map(|owner| format!(" ({owner})"))
                    .unwrap_or_default(),
            }
        } else {
            DatapathError::System {
                action: format!("could not listen on {local}/{}", key.protocol),
                source,
            }
        }
    })
}

fn try_bind(protocol: Protocol, local: SocketAddr) -> io::Result<Socket> {
    let kind = match protocol {
        Protocol::Tcp => Type::STREAM,
        Protocol::Udp => Type::DGRAM,
    };
    let socket = Socket::new(Domain::for_address(local), kind.nonblocking(), None)?;
    if local.is_ipv4() {
        socket.set_freebind_v4(true)?;
    } else {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    }
    if protocol == Protocol::Tcp {
        // Connections of an earlier process, in TIME_WAIT, do not block the port.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&local.into())?;
    if protocol == Protocol::Tcp {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

/// A TCP listener and its task. Dropped, it accepts nothing from that moment on.
#[derive(Debug)]
pub struct TcpEndpoint {
    listener: Arc<TcpListener>,
    stop: CancellationToken,
}

impl TcpEndpoint {
    /// Accepts on a socket made by [`bind`]. Must be called within a runtime.
    ///
    /// # Errors
    ///
    /// When the runtime can't watch the socket.
    pub fn start(socket: Socket, served: &Arc<Served>) -> io::Result<Self> {
        let listener = Arc::new(TcpListener::from_std(socket.into())?);
        let stop = served.context.over.child_token();
        let accepting = accept(Arc::clone(&listener), Arc::clone(served), stop.clone());
        drop(served.context.tasks.spawn(accepting));
        Ok(Self { listener, stop })
    }
}

impl Drop for TcpEndpoint {
    fn drop(&mut self) {
        // First, so that the task takes what follows for the end that it is, not for trouble.
        self.stop.cancel();
        // The task holds the socket until it is polled; this takes it out of LISTEN at once, so that a client is
        // refused and the port is free (tcp_disconnect on a listener).
        let _closed = SockRef::from(&*self.listener).shutdown(std::net::Shutdown::Both);
    }
}

async fn accept(listener: Arc<TcpListener>, served: Arc<Served>, stop: CancellationToken) {
    let mut trouble = Trouble::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                trouble.pause = FIRST_PAUSE;
                tcp::admit(&served, stream, peer);
            }
            Err(_) if stop.is_cancelled() => return,
            Err(error) => {
                if let Some(pause) = trouble.meet(&error, served.key) {
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
    }
}

/// What to do about errors of accept(2), and of receiving on a public UDP socket: they never end a listener.
#[derive(Debug)]
pub struct Trouble {
    pause: Duration,
    count: u64,
    reported: Option<Instant>,
}

impl Default for Trouble {
    fn default() -> Self {
        Self {
            pause: FIRST_PAUSE,
            count: 0,
            reported: None,
        }
    }
}

impl Trouble {
    /// How long to wait before the next accept; none where the error was of that one connection (accept(2) lists the
    /// network errors that are to be taken like `EAGAIN`).
    pub fn meet(&mut self, error: &io::Error, key: BindingKey) -> Option<Duration> {
        let lack = matches!(
            error.raw_os_error().map(Errno::from_raw),
            Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM)
        );
        let passing = matches!(
            error.raw_os_error().map(Errno::from_raw),
            Some(
                Errno::ECONNABORTED
                    | Errno::ECONNRESET
                    | Errno::EPROTO
                    | Errno::ENETDOWN
                    | Errno::ENETUNREACH
                    | Errno::ENOPROTOOPT
                    | Errno::EHOSTDOWN
                    | Errno::EHOSTUNREACH
                    | Errno::ENONET
                    | Errno::EOPNOTSUPP
                    | Errno::EPERM
            )
        );
        if passing {
            return None;
        }
        self.count = self.count.saturating_add(1);
        if self.reported.is_none_or(|at| at.elapsed() >= REPORT_EVERY) {
            self.reported = Some(Instant::now());
            warn!(
                component = "userspace",
                port = key.port,
                protocol = %key.protocol,
                action = "accepting failed",
                failures = self.count,
                %error,
                hint = if lack { "raise LimitNOFILE of the service, or lower the caps" } else { "" },
            );
        }
        let pause = self.pause;
        self.pause = self.pause.saturating_mul(2).min(LONGEST_PAUSE);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lack_of_descriptors_backs_off_and_a_dead_connection_does_not() {
        let key = BindingKey {
            port: 1,
            protocol: Protocol::Tcp,
        };
        let mut trouble = Trouble::default();
        let error = |errno: Errno| io::Error::from_raw_os_error(errno as i32);
        assert_eq!(trouble.meet(&error(Errno::ECONNABORTED), key), None);
        assert_eq!(trouble.meet(&error(Errno::EMFILE), key), Some(FIRST_PAUSE));
        for _ in 0..20 {
            trouble.meet(&error(Errno::EMFILE), key);
        }
        assert_eq!(trouble.meet(&error(Errno::EMFILE), key), Some(LONGEST_PAUSE));
        assert_eq!(trouble.count, 22);
    }
}
