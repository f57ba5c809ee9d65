//! Dials the backend, through the tunnel only, with patience where patience helps.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::Interest;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::datapath::userspace::settings::UserspaceSettings;
use crate::datapath::userspace::stats::Failure;
use crate::datapath::userspace::tunnel::Tunnel;

/// First pause between two attempts; it doubles from there.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Why there is no backend connection.
#[derive(Debug)]
pub enum DialError {
    /// The backend can't be had; the client gets a RST.
    Failed(Failure, io::Error),
    /// The client gave up first.
    ClientGone,
}

/// Connects to `backend` for `client`.
///
/// A refusal is asked again, for a short time, while the client has sent nothing: a pod that restarts is worth a
/// moment, a client that waits for an answer is not kept waiting. Everything that means "the tunnel is not up" (no such
/// interface, no route, no key) is tried again until the connect timeout.
///
/// # Errors
///
/// See [`DialError`].
pub async fn connect(
    client: &TcpStream,
    backend: SocketAddr,
    settings: &UserspaceSettings,
    tunnel: &Tunnel,
) -> Result<TcpStream, DialError> {
    tokio::select! {
        connected = attempts(client, backend, settings, tunnel) => connected,
        () = reset_by_peer(client) => Err(DialError::ClientGone),
    }
}

async fn attempts(
    client: &TcpStream,
    backend: SocketAddr,
    settings: &UserspaceSettings,
    tunnel: &Tunnel,
) -> Result<TcpStream, DialError> {
    let began = Instant::now();
    let by = |span: Duration| began.checked_add(span).unwrap_or(began);
    let (deadline, patience) = (by(settings.connect_timeout), by(settings.refused_retry));
    let mut pause = FIRST_PAUSE;
    let mut byte = [0; 1];
    loop {
        let dialled = tokio::select! {
            dialled = timeout_at(deadline, dial(backend, tunnel)) => dialled,
            // What was sent on the old interface is lost.
            () = tunnel.changed() => continue,
        };
        let error = match dialled {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error,
            Err(_) => {
                return Err(DialError::Failed(
                    Failure::Timeout,
                    io::ErrorKind::TimedOut.into(),
                ));
            }
        };
        let next = Instant::now().checked_add(pause).unwrap_or(deadline);
        match kind(&error) {
            Kind::Refused if next > patience || has_spoken(client) => {
                return Err(DialError::Failed(Failure::Refused, error));
            }
            // `peek`, not `readable`: the runtime takes an accepted socket for readable until a read says otherwise.
            Kind::Refused => tokio::select! {
                () = sleep_until(next) => {}
                _ = client.peek(&mut byte) => {}
            },
            Kind::Reset => return Err(DialError::Failed(Failure::Refused, error)),
            Kind::Local => return Err(DialError::Failed(Failure::System, error)),
            Kind::NotReady if next > deadline => return Err(DialError::Failed(Failure::Timeout, error)),
            Kind::NotReady => sleep_until(next).await,
        }
        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
    }
}

/// What an error of a dial means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The backend's host answers, nobody listens.
    Refused,
    /// It accepted and hung up before the dial was over.
    Reset,
    /// The way there is not up: worth waiting for.
    NotReady,
    /// This process or host is out of something: waiting holds even more of it.
    Local,
}

fn kind(error: &io::Error) -> Kind {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ECONNREFUSED) => Kind::Refused,
        Some(Errno::ECONNRESET | Errno::EPIPE) => Kind::Reset,
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM | Errno::EAFNOSUPPORT) => {
            Kind::Local
        }
        _ => Kind::NotReady,
    }
}

/// Whether the client has sent anything, or has closed: either way it is not waiting for the backend to begin.
fn has_spoken(client: &TcpStream) -> bool {
    let mut byte = [MaybeUninit::uninit(); 1];
    SockRef::from(client).peek(&mut byte).is_ok()
}

/// Ends when `stream` was reset, or never.
async fn reset_by_peer(stream: &TcpStream) {
    if stream.ready(Interest::ERROR).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// One attempt.
async fn dial(backend: SocketAddr, tunnel: &Tunnel) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(backend), Type::STREAM.nonblocking(), None)?;
    tunnel.bind(&socket)?;
    tune(&SockRef::from(&socket))?;
    TcpSocket::from_std_stream(socket.into()).connect(backend).await
}

/// What every TCP socket of the path has: no delay of small segments, and keepalive, which finds peers that vanished
/// long before the idle timeout does.
///
/// # Errors
///
/// When the system refuses an option, which it does for a socket that is dead already.
pub fn tune(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(120))
        .with_interval(Duration::from_secs(30))
        .with_retries(5);
    socket.set_tcp_keepalive(&keepalive)
}
