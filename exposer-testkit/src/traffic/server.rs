//! Servers for tests: one TCP server that does what the client's first line says, and a UDP echo.
//!
//! | line | answer |
//! |---|---|
//! | `NAME` | the server's name, then the end |
//! | `DOWNLOAD bytes seed` | that many bytes of the seed's stream, then the end |
//! | `UPLOAD bytes` | after that many bytes: their SHA-256 in hexadecimal |
//! | `HALFCLOSE bytes seed` | reads to the client's end; then count and SHA-256 of what it read, and a download |
//! | `DRIP bytes seed chunk milliseconds` | a download, `chunk` bytes at a time with pauses until the client sends a byte |
//! | `ECHO` | every byte back, until the client's end |
//! | `GET …` | an HTTP page with the server's name, for a person with curl |

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::pattern;
use crate::netns::Handle;

/// How often a waiting server looks whether it is to end, in milliseconds.
const LOOK: u16 = 100;

/// A running server; ends, with all its connections, when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    ended: AtomicBool,
    /// Connections or datagrams that were served.
    served: AtomicU64,
    /// Open connections by their peer, so that the end of the server ends them.
    streams: Mutex<Vec<(SocketAddr, TcpStream)>>,
}

impl Server {
    /// Starts the TCP server `name` on `address` inside `netns`.
    ///
    /// # Errors
    ///
    /// The address is not one of the namespace, or its port is taken.
    pub fn tcp(netns: &Handle, address: SocketAddr, name: &str) -> Result<Self> {
        let listener = netns
            .run(|| TcpListener::bind(address).with_context(|| format!("cannot listen on {address}/tcp")))?;
        let address = listener.local_addr()?;
        Self::start(name, address, move |shared| accept(&listener, &shared))
    }

    /// Starts a UDP echo on `address` inside `netns`. It answers from the address that it is bound to.
    ///
    /// # Errors
    ///
    /// As [`Self::tcp`].
    pub fn udp(netns: &Handle, address: SocketAddr, name: &str) -> Result<Self> {
        let socket = netns
            .run(|| UdpSocket::bind(address).with_context(|| format!("cannot listen on {address}/udp")))?;
        let address = socket.local_addr()?;
        socket.set_read_timeout(Some(Duration::from_millis(LOOK.into())))?;
        Self::start(name, address, move |shared| echo_datagrams(&socket, &shared))
    }

    fn start(
        name: &str,
        address: SocketAddr,
        work: impl FnOnce(Arc<Shared>) + Send + 'static,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            ended: AtomicBool::new(false),
            served: AtomicU64::new(0),
            streams: Mutex::new(Vec::new()),
        });
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name(format!("server-{name}"))
            .spawn(move || work(theirs))
            .context("cannot start a thread")?;
        Ok(Self {
            address,
            shared,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections or datagrams it has served.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.shared.served.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        for (_, stream) in self
            .shared
            .streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            let _ = stream.shutdown(Shutdown::Both);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.ended.load(Ordering::Relaxed) {
        let mut wait = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        if !poll(&mut wait, PollTimeout::from(LOOK)).is_ok_and(|ready| ready > 0) {
            continue;
        }
        let Ok((stream, peer)) = listener.accept() else {
            continue;
        };
        let mut streams = shared.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.extend(stream.try_clone().map(|clone| (peer, clone)));
        drop(streams);
        let theirs = Arc::clone(shared);
        let served = thread::Builder::new()
            .name(format!("conn-{}", shared.name))
            .spawn(move || {
                // A client that goes away in the middle is a normal end here: the client's side judges the transfer.
                let _ = serve(&stream, &theirs);
                let _ = stream.shutdown(Shutdown::Both);
                let mut streams = theirs.streams.lock().unwrap_or_else(PoisonError::into_inner);
                streams.retain(|(other, _)| *other != peer);
            });
        if served.is_ok() {
            shared.served.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn serve(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut from = BufReader::with_capacity(pattern::BLOCK, stream);
    let mut to = stream;
    let mut line = String::new();
    from.read_line(&mut line)?;
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let number = |index: usize| -> io::Result<u64> {
        words
            .get(index)
            .and_then(|word| word.parse().ok())
            .ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("word {index} of \"{line}\" is no number"),
                )
            })
    };
    match words.first().copied() {
        Some("NAME") => to.write_all(shared.name.as_bytes()),
        Some("DOWNLOAD") => pattern::write(&mut to, number(2)?, number(1)?),
        Some("UPLOAD") => {
            let (_, digest) = pattern::consume(&mut from, number(1)?)?;
            to.write_all(format!("{digest}\n").as_bytes())
        }
        Some("HALFCLOSE") => {
            let (count, digest) = pattern::consume(&mut from, u64::MAX)?;
            to.write_all(format!("{count} {digest}\n").as_bytes())?;
            pattern::write(&mut to, number(2)?, number(1)?)
        }
        Some("DRIP") => drip(
            to,
            number(1)?,
            number(2)?,
            number(3)?,
            Duration::from_millis(number(4)?),
            shared,
        ),
        Some("ECHO") => io::copy(&mut from, &mut to).map(|_| ()),
        Some("GET") => page(&mut from, to, &shared.name),
        _ => to.write_all(b"what?\n"),
    }
}

fn drip(
    mut to: &TcpStream,
    bytes: u64,
    seed: u64,
    chunk: u64,
    pause: Duration,
    shared: &Shared,
) -> io::Result<()> {
    let chunk = usize::try_from(chunk)
        .unwrap_or(usize::MAX)
        .clamp(1, pattern::BLOCK);
    let mut hurry = false;
    pattern::stream(seed, bytes, |block| {
        for part in block.chunks(chunk) {
            if shared.ended.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            to.write_all(part)?;
            let mut wait = [PollFd::new(to.as_fd(), PollFlags::POLLIN)];
            if !hurry && poll(&mut wait, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
                // Taken, because closing with bytes unread would send a reset instead of an end.
                hurry = (&mut to).read(&mut [0; 1])? > 0;
            }
            if !hurry {
                thread::sleep(pause);
            }
        }
        Ok(())
    })
}

fn page(from: &mut BufReader<&TcpStream>, mut to: &TcpStream, name: &str) -> io::Result<()> {
    let mut header = String::new();
    while from.read_line(&mut header)? > 2 {
        header.clear();
    }
    let body = format!("Hello from {name}, at home behind the tunnel.\n");
    let length = body.len();
    to.write_all(
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
            .as_bytes(),
    )
}

fn echo_datagrams(socket: &UdpSocket, shared: &Shared) {
    let mut buffer = vec![0; 65_536];
    while !shared.ended.load(Ordering::Relaxed) {
        let Ok((count, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        if socket
            .send_to(buffer.get(..count).unwrap_or_default(), from)
            .is_ok()
        {
            shared.served.fetch_add(1, Ordering::Relaxed);
        }
    }
}
