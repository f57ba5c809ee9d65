//! Sockets: connecting, and carrying bytes between a socket and a [`Session`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use exposer_common::proto::DEAD_AFTER;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::ending::Ending;
use super::report::Reporter;
use super::session::{Event, Session};
use crate::config::ServerAddr;
use crate::desired::{Desired, DesiredReceiver};
use crate::readiness::{Readiness, Welcomed};

/// From the name to the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last words may take to leave.
const FAREWELL: Duration = Duration::from_secs(1);
/// What is read at once.
const CHUNK: usize = 16 * 1024;

/// What a session's driver works with, beyond the socket.
#[derive(Debug)]
pub struct Context {
    /// The edge as it was configured, for logs.
    pub edge: String,
    /// What is wanted.
    pub desired: DesiredReceiver,
    /// Where outcomes go.
    pub reporter: Reporter,
    /// Who is told that the edge knows us.
    pub readiness: Readiness,
    /// The agent stops.
    pub shutdown: CancellationToken,
    /// Since when the edge knows us; none before.
    pub welcomed: Option<Instant>,
}

/// Opens a connection: no delay (messages are small), and a dead way is noticed by the kernel too.
///
/// # Errors
///
/// Why there is none.
pub async fn connect(server: &ServerAddr) -> Result<TcpStream, Ending> {
    let connecting = async {
        let addresses: Vec<_> = tokio::net::lookup_host((server.host(), server.port()))
            .await
            .map_err(Ending::Resolve)?
            .collect();
        TcpStream::connect(&addresses[..]).await.map_err(Ending::Connect)
    };
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
        .await
        .map_err(|_| Ending::ConnectTimeout(CONNECT_TIMEOUT))??;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10));
    let socket = SockRef::from(&stream);
    socket.set_tcp_keepalive(&keepalive).map_err(Ending::Io)?;
    // Bytes that the edge's host does not take for so long mean the same as its silence.
    socket
        .set_tcp_user_timeout(Some(DEAD_AFTER))
        .map_err(Ending::Io)?;
    stream.set_nodelay(true).map_err(Ending::Io)?;
    Ok(stream)
}

/// Carries bytes until the session ends.
pub async fn drive(stream: TcpStream, session: &mut Session, context: &mut Context) -> Ending {
    let (mut reader, mut writer) = stream.into_split();
    let mut input = vec![0; CHUNK];
    let mut output = Vec::new();
    // Held for as long as the edge knows us.
    let mut welcomed: Option<Welcomed> = None;
    let mut desired_ends = false;
    take_desired(session, context);
    loop {
        while let Some(event) = session.next_event() {
            match event {
                Event::Send(bytes) => output.extend_from_slice(&bytes),
                Event::Close(ending) => {
                    // Whether the last words arrive or not changes nothing.
                    let _ = tokio::time::timeout(FAREWELL, writer.write_all(&output)).await;
                    let _ = tokio::time::timeout(FAREWELL, writer.shutdown()).await;
                    return ending;
                }
                other => welcomed = heed(other, context).or(welcomed),
            }
        }
        let due = session.poll_timeout().unwrap_or_else(Instant::now);
        tokio::select! {
            read = reader.read(&mut input) => match read {
                Ok(0) => session.handle_eof(),
                Ok(length) => session.handle_bytes(input.get(..length).unwrap_or_default(), Instant::now()),
                Err(error) => return Ending::Io(error),
            },
            written = writer.write(&output), if !output.is_empty() => match written {
                Ok(length) => drop(output.drain(..length.min(output.len()))),
                // What the edge said before it closed explains more than the broken pipe does.
                Err(error) => return last_words(&mut reader, &mut input, session).await.unwrap_or(Ending::Io(error)),
            },
            changed = context.desired.changed(), if !desired_ends => match changed {
                Ok(()) => take_desired(session, context),
                Err(_) => desired_ends = true,
            },
            () = context.reporter.flush(), if context.reporter.is_waiting() => {}
            () = tokio::time::sleep_until(due.into()) => session.handle_timeout(Instant::now()),
            () = context.shutdown.cancelled() => session.shut_down(),
        }
    }
}

fn take_desired(session: &mut Session, context: &mut Context) {
    let desired: Option<Arc<Desired>> = context.desired.borrow_and_update().clone();
    if let Some(desired) = desired {
        context.reporter.retain(|id| desired.services.contains_key(id));
        session.set_desired(desired, Instant::now());
    }
}

/// Reads what is there already after a failed write, and gives back how the session ends by it.
async fn last_words(
    reader: &mut tokio::net::tcp::OwnedReadHalf,
    input: &mut [u8],
    session: &mut Session,
) -> Option<Ending> {
    while let Ok(Ok(length @ 1..)) = tokio::time::timeout(FAREWELL, reader.read(input)).await {
        session.handle_bytes(input.get(..length).unwrap_or_default(), Instant::now());
        while let Some(event) = session.next_event() {
            if let Event::Close(ending) = event {
                return Some(ending);
            }
        }
    }
    None
}

/// Everything but bytes and the end; gives back the guard if the edge knows us from here on.
fn heed(event: Event, context: &mut Context) -> Option<Welcomed> {
    let edge = context.edge.as_str();
    match event {
        Event::Send(_) | Event::Close(_) => {}
        Event::Welcomed {
            software,
            public_addresses,
        } => {
            info!(
                component = "edge_client",
                edge,
                action = "connect",
                software,
                ?public_addresses,
                "connected, both sides are proven"
            );
            context.welcomed = Some(Instant::now());
            return Some(context.readiness.welcomed(edge));
        }
        Event::Outcomes(outcomes) => context.reporter.take(outcomes),
        Event::Settled { revision, services } => {
            debug!(
                component = "edge_client",
                edge,
                action = "settle",
                revision,
                services,
                "the edge is up to date"
            );
        }
        Event::Slow { revision, waited } => warn!(
            component = "edge_client",
            edge,
            action = "wait",
            revision,
            seconds = waited.as_secs(),
            "the edge lives but does not acknowledge; its log may say why"
        ),
        Event::Disagreed(disagreement) => warn!(
            component = "edge_client",
            edge,
            action = "resync",
            "everything is sent again, because {disagreement}"
        ),
    }
    None
}
