//! A TCP connection, from accept to its end.

pub mod connect;
pub mod relay;
pub mod splice;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use exposer_common::model::Protocol;
use socket2::SockRef;
use tokio::net::TcpStream;
use tracing::debug;

use self::connect::DialError;
use self::relay::{End, Side};
use super::limits::Permit;
use super::proxy;
use super::served::{Route, Served};
use super::tunnel::Tunnel;

/// How long what was written before a reset may take to leave.
const SETTLE: Duration = Duration::from_millis(500);

/// Takes over an accepted connection, or resets it where a cap is reached.
pub fn admit(served: &Arc<Served>, client: TcpStream, peer: SocketAddr) {
    let context = &served.context;
    match context.limits.acquire(&served.load, peer.ip(), Protocol::Tcp) {
        Ok(permit) => {
            let route = served.route();
            served.counters.begin();
            drop(
                context
                    .tasks
                    .spawn(connection(Arc::clone(served), route, client, peer, permit)),
            );
        }
        Err(failure) => {
            served.counters.failed(failure);
            debug!(
                component = "userspace",
                port = served.key.port,
                protocol = %Protocol::Tcp,
                action = "over limit",
                client = %peer,
                limit = ?failure,
            );
            reset(client);
        }
    }
}

/// Counts the end of a connection however its task ends.
struct Active<'a>(&'a Served);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.counters.end();
    }
}

async fn connection(
    served: Arc<Served>,
    route: Arc<Route>,
    client: TcpStream,
    peer: SocketAddr,
    _permit: Permit,
) {
    let _active = Active(&served);
    let event = |action: &'static str| {
        debug!(
            component = "userspace",
            service = %route.binding.service,
            port = served.key.port,
            protocol = %Protocol::Tcp,
            action,
            target = %route.binding.backend,
            client = %peer,
        );
    };
    // A socket that is dead before it begins shows that in the relay.
    let _tuned = connect::tune(&SockRef::from(&client));
    let (settings, tunnel) = (&served.context.settings, &served.context.tunnel);
    let dialled = tokio::select! {
        dialled = connect::connect(&client, route.binding.backend, settings, tunnel) => dialled,
        () = route.over.cancelled() => return reset(client),
    };
    let backend = match dialled {
        Ok(backend) => backend,
        Err(DialError::ClientGone) => return event("client gone before the backend answered"),
        Err(DialError::Failed(failure, error)) => {
            served.counters.failed(failure);
            debug!(
                component = "userspace",
                service = %route.binding.service,
                port = served.key.port,
                protocol = %Protocol::Tcp,
                action = "dial failed",
                target = %route.binding.backend,
                client = %peer,
                failure = ?failure,
                %error,
            );
            return reset(client);
        }
    };
    event("connected");
    let idle = route.binding.idle_timeout.unwrap_or(settings.tcp_idle);
    let pipes = settings.zero_copy.then_some(&served.context.pipes);
    let carried = async {
        if proxy::introduce(&backend, &client, peer, route.binding.client_ip)
            .await
            .is_err()
        {
            return End::Reset {
                survivor: Side::Client,
            };
        }
        relay::relay(&client, &backend, &served.counters, pipes, idle).await
    };
    let end = tokio::select! {
        end = carried => Some(end),
        () = route.over.cancelled() => None,
        () = follow(tunnel, &backend) => None,
    };
    match end {
        Some(End::Closed) => return event("closed"),
        Some(End::Reset { survivor }) => {
            event("reset");
            settle(match survivor {
                Side::Client => &client,
                Side::Backend => &backend,
            })
            .await;
        }
        Some(End::Idle) => event("idle for too long"),
        None => event("drained"),
    }
    reset(client);
    reset(backend);
}

/// Binds `backend` to the tunnel anew as often as the interface is made anew. Never ends.
async fn follow(tunnel: &Tunnel, backend: &TcpStream) {
    loop {
        tunnel.changed().await;
        if let Err(error) = tunnel.bind_again(backend) {
            debug!(component = "userspace", action = "socket stays on the old tunnel", %error);
        }
    }
}

/// Closes with RST instead of FIN.
pub fn reset(stream: TcpStream) {
    // Where the option is refused the socket is dead already.
    let _dead = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    drop(stream);
}

nix::ioctl_read_bad!(
    /// Bytes written that the peer has not acknowledged (`SIOCOUTQ`, tcp(7)).
    unacknowledged,
    libc::TIOCOUTQ,
    libc::c_int
);

/// Waits until what was written has arrived, for a bounded time: a reset throws away what is still queued.
async fn settle(stream: &TcpStream) {
    use std::os::fd::AsRawFd;
    let mut waited = Duration::ZERO;
    let mut pause = Duration::from_millis(1);
    while waited < SETTLE {
        let mut queued = 0;
        // SAFETY: the descriptor is open as long as `stream` lives, and the kernel writes one int.
        let asked = unsafe { unacknowledged(stream.as_raw_fd(), &raw mut queued) };
        if asked.is_err() || queued == 0 {
            return;
        }
        tokio::time::sleep(pause).await;
        waited = waited.saturating_add(pause);
        pause = pause.saturating_mul(2);
    }
}
