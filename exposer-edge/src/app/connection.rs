//! The control listener and one task for each connection: bytes to the core, bytes from the core, both bounded.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::control::core::ConnId;
use crate::readiness::Readiness;

/// Most control connections at a time.
const MAX_CONNECTIONS: usize = 1_024;
/// Largest piece that is handed to the core at once, in bytes.
const CHUNK: usize = 64 << 10;
/// Frames that may wait to be written; a peer that lets more pile up is disconnected.
pub const WRITE_QUEUE: usize = 64;
/// A write that takes longer ends the connection.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the peer may take to read the last words.
const LINGER: Duration = Duration::from_secs(2);
/// First and longest pause between two tries to listen.
const BIND_PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// What a connection tells the core task.
#[derive(Debug)]
pub enum Inbound {
    /// It is there.
    Connected {
        /// Its name.
        conn: ConnId,
        /// From where.
        peer: SocketAddr,
        /// Where to put frames; dropped = close after the last one.
        writer: mpsc::Sender<Vec<u8>>,
    },
    /// It brought bytes.
    Bytes {
        /// Its name.
        conn: ConnId,
        /// What it brought.
        bytes: Vec<u8>,
    },
    /// It ended.
    Closed {
        /// Its name.
        conn: ConnId,
    },
}

/// Listens on `address` for ever. The address need not exist yet: the tunnel may come later. Each connection is a task
/// of `connections`, so that its last words can be waited for.
pub async fn listen(
    address: SocketAddr,
    readiness: Readiness,
    core: mpsc::Sender<Inbound>,
    connections: TaskTracker,
) {
    let block = readiness.block(format!(
        "the control channel does not listen on {address} yet: the address does not exist or is in use"
    ));
    let listener = bind(address).await;
    drop(block);
    info!(component = "app", %address, action = "listen", "control channel listens");
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut last = 0_u64;
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(component = "app", %error, "a control connection could not be accepted");
                sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            debug!(component = "app", %peer, "too many control connections; one more is turned away");
            continue;
        };
        last = last.wrapping_add(1);
        let (conn, core) = (ConnId(last), core.clone());
        connections.spawn(async move {
            serve(conn, stream, peer, core).await;
            drop(permit);
        });
    }
}

async fn bind(address: SocketAddr) -> TcpListener {
    let (mut pause, longest) = BIND_PAUSE;
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    let hint = match error.kind() {
                        io::ErrorKind::AddrNotAvailable => "is the WireGuard interface up? it is tried again",
                        io::ErrorKind::AddrInUse => "another program has the port; it is tried again",
                        _ => "it is tried again",
                    };
                    warn!(component = "app", %address, %error, hint, "the control channel can't listen");
                }
                sleep(pause).await;
                pause = pause.saturating_mul(2).min(longest);
            }
        }
    }
}

async fn serve(conn: ConnId, stream: TcpStream, peer: SocketAddr, core: mpsc::Sender<Inbound>) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(component = "app", %error, "nodelay");
    }
    let (read, write) = stream.into_split();
    let (writer, frames) = mpsc::channel(WRITE_QUEUE);
    if core
        .send(Inbound::Connected { conn, peer, writer })
        .await
        .is_err()
    {
        return;
    }
    let mut reading = Box::pin(read_all(conn, read, core.clone()));
    let writing = write_all(write, frames);
    tokio::pin!(writing);
    tokio::select! {
        _ = &mut reading => {
            // The peer is done; what was to be said to it may still go out.
            if core.send(Inbound::Closed { conn }).await.is_ok() {
                let _late = timeout(LINGER, writing).await;
            }
        }
        () = &mut writing => {
            // Read on for a moment: bytes left unread would turn our last words into a reset.
            let _late = timeout(LINGER, reading).await;
            let _closing = core.send(Inbound::Closed { conn }).await;
        }
    }
}

/// Hands bytes to the core until the peer is done. The core's bounded queue holds the peer back.
async fn read_all(conn: ConnId, mut read: OwnedReadHalf, core: mpsc::Sender<Inbound>) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = read.read(&mut buffer).await?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            return Ok(());
        };
        let bytes = bytes.to_vec();
        if core.send(Inbound::Bytes { conn, bytes }).await.is_err() {
            return Ok(());
        }
    }
}

/// Writes frames until there are none to come, or the peer takes too long.
async fn write_all(mut write: OwnedWriteHalf, mut frames: mpsc::Receiver<Vec<u8>>) {
    while let Some(frame) = frames.recv().await {
        match timeout(WRITE_TIMEOUT, write.write_all(&frame)).await {
            Ok(Ok(())) => {}
            _ => return,
        }
    }
    let _already_closed = write.shutdown().await;
}
