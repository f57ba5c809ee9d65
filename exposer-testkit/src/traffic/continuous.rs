//! Traffic that goes on while something else happens: a steady UDP count and a slow TCP download, both of which know
//! the longest time that nothing came.

use std::collections::HashSet;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use ring::digest::{Context as Digest, SHA256};

use super::tcp::Transfer;
use super::{Client, pattern};
use crate::interrupt::Patient;

/// How long a stopped count waits for echoes that are still on their way.
const STRAGGLERS: Duration = Duration::from_secs(2);

/// A steady stream of numbered datagrams to an echo; see [`UdpCounter::stop`].
#[derive(Debug)]
pub struct UdpCounter {
    ended: Arc<AtomicBool>,
    sender: JoinHandle<(u64, u64)>,
    receiver: JoinHandle<Received>,
}

/// What a [`UdpCounter`] measured.
#[derive(Clone, Copy, Debug)]
pub struct UdpReport {
    /// Datagrams sent.
    pub sent: u64,
    /// Different datagrams that came back.
    pub received: u64,
    /// Sent, and not come back.
    pub lost: u64,
    /// Echoes that came twice.
    pub duplicates: u64,
    /// Answers of the kind "port unreachable".
    pub refused: u64,
    /// The longest time between two echoes.
    pub longest_gap: Duration,
}

#[derive(Debug, Default)]
struct Received {
    numbers: HashSet<u64>,
    duplicates: u64,
    refused: u64,
    longest_gap: Duration,
}

impl UdpCounter {
    /// Begins to send one datagram every `interval` on one socket.
    ///
    /// # Errors
    ///
    /// The socket cannot be opened.
    pub fn start(client: &Client, to: SocketAddr, interval: Duration) -> Result<Self> {
        let socket = client.udp_socket(to)?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let receiving = socket.try_clone()?;
        let ended = Arc::new(AtomicBool::new(false));
        let (first, second) = (Arc::clone(&ended), Arc::clone(&ended));
        Ok(Self {
            ended,
            sender: thread::spawn(move || send_numbers(&socket, interval, &first)),
            receiver: thread::spawn(move || receive_numbers(&receiving, &second)),
        })
    }

    /// Ends it and returns what it measured.
    ///
    /// # Errors
    ///
    /// One of its threads panicked.
    pub fn stop(self) -> Result<UdpReport> {
        self.ended.store(true, Ordering::Relaxed);
        let (sent, refused) = self
            .sender
            .join()
            .map_err(|_| anyhow!("the sending thread panicked"))?;
        let got = self
            .receiver
            .join()
            .map_err(|_| anyhow!("the receiving thread panicked"))?;
        let received = got.numbers.len() as u64;
        Ok(UdpReport {
            sent,
            received,
            lost: sent.saturating_sub(received),
            duplicates: got.duplicates,
            refused: got.refused.saturating_add(refused),
            longest_gap: got.longest_gap,
        })
    }
}

fn send_numbers(socket: &UdpSocket, interval: Duration, ended: &AtomicBool) -> (u64, u64) {
    let (mut number, mut refused) = (0_u64, 0_u64);
    while !ended.load(Ordering::Relaxed) {
        let mut datagram = [0; 64];
        for (byte, value) in datagram.iter_mut().zip(number.to_be_bytes()) {
            *byte = value;
        }
        // A pending port-unreachable is reported by the next call, which then has sent nothing: try once more.
        if socket.send(&datagram).is_err() {
            refused = refused.saturating_add(1);
            let _ = socket.send(&datagram);
        }
        number = number.saturating_add(1);
        thread::sleep(interval);
    }
    (number, refused)
}

fn receive_numbers(socket: &UdpSocket, ended: &AtomicBool) -> Received {
    let mut got = Received::default();
    let mut buffer = [0; 2_048];
    let mut last: Option<Instant> = None;
    let mut stopped: Option<Instant> = None;
    loop {
        if ended.load(Ordering::Relaxed) && stopped.get_or_insert_with(Instant::now).elapsed() > STRAGGLERS {
            return got;
        }
        match socket.recv(&mut buffer) {
            Ok(_) => {
                let number = buffer
                    .first_chunk::<8>()
                    .map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes));
                if !got.numbers.insert(number) {
                    got.duplicates = got.duplicates.saturating_add(1);
                }
                let gap = last.map_or(Duration::ZERO, |last| last.elapsed());
                got.longest_gap = got.longest_gap.max(gap);
                last = Some(Instant::now());
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                got.refused = got.refused.saturating_add(1);
            }
            Err(_) => {}
        }
    }
}

/// A slow TCP download that runs while something else happens; see [`SlowTransfer::finish`].
#[derive(Debug)]
pub struct SlowTransfer {
    arrived: Arc<AtomicU64>,
    /// To tell the server to hurry.
    sending: TcpStream,
    thread: JoinHandle<Result<SlowReport>>,
}

/// What a [`SlowTransfer`] measured.
#[derive(Clone, Debug)]
pub struct SlowReport {
    /// The transfer itself.
    pub transfer: Transfer,
    /// The longest time between two reads that brought bytes.
    pub longest_gap: Duration,
}

impl SlowTransfer {
    /// Begins to download `bytes` bytes, of which the server sends `chunk` (up to 64 KiB) every `pause`.
    ///
    /// # Errors
    ///
    /// No connection.
    pub fn start(client: &Client, to: SocketAddr, bytes: u64, chunk: u64, pause: Duration) -> Result<Self> {
        let mut stream = client.connect(to)?;
        let seed = u64::from(to.port()) ^ bytes;
        stream.write_all(format!("DRIP {bytes} {seed} {chunk} {}\n", pause.as_millis()).as_bytes())?;
        let sending = stream.try_clone()?;
        let arrived = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&arrived);
        let thread = thread::spawn(move || take_slowly(stream, seed, bytes, &counter));
        Ok(Self {
            arrived,
            sending,
            thread,
        })
    }

    /// Lets the server send the rest as fast as it can.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    pub fn hurry(&self) -> Result<()> {
        (&self.sending)
            .write_all(b"\n")
            .context("the slow download has ended")
    }

    /// Bytes that have arrived so far.
    #[must_use]
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// Whether it has ended, well or not.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// The connection was reset, or silent for 20 s.
    pub fn finish(self) -> Result<SlowReport> {
        self.thread
            .join()
            .map_err(|_| anyhow!("the downloading thread panicked"))?
    }
}

fn take_slowly(mut stream: Patient, seed: u64, wanted: u64, arrived: &AtomicU64) -> Result<SlowReport> {
    let mut digest = Digest::new(&SHA256);
    let mut buffer = vec![0; pattern::BLOCK];
    let start = Instant::now();
    let mut last = start;
    let mut longest_gap = Duration::ZERO;
    loop {
        let count = stream.read(&mut buffer).with_context(|| {
            format!(
                "the slow download broke off after {} bytes",
                arrived.load(Ordering::Relaxed)
            )
        })?;
        if count == 0 {
            break;
        }
        longest_gap = longest_gap.max(last.elapsed());
        last = Instant::now();
        digest.update(buffer.get(..count).unwrap_or_default());
        arrived.fetch_add(count as u64, Ordering::Relaxed);
    }
    let hex: String = digest
        .finish()
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let transfer = Transfer {
        bytes: arrived.load(Ordering::Relaxed),
        wanted,
        intact: hex == pattern::digest(seed, wanted),
        took: start.elapsed(),
    };
    Ok(SlowReport {
        transfer,
        longest_gap,
    })
}
