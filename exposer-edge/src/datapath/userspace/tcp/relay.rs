//! Moves bytes between two TCP sockets until both directions are over.
//!
//! Each direction is a loop of its own. Little data is copied through a buffer that the thread owns, so that an idle
//! connection holds no memory at all; a direction that fills that buffer goes over to splice(2) until it runs dry.
//! Nothing is read before all that was read is written: a reader that stops thereby stops the writer.
//!
//! How a direction ends decides what the other side sees:
//!
//! * end of stream: the other side's sending half is shut down, the other direction goes on;
//! * the source was reset: the other side is reset, after what came before has left;
//! * the sink was reset: what the sink had sent before is still delivered, then the source is reset. The kernel reports
//!   a reset once, so the direction that reads from the sink may see a plain end of stream: it is no half-close then.

use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::splice::{Pipe, PipePool, SpliceError};
use crate::datapath::userspace::stats::{Counters, Direction};

/// Bytes that are copied at a time; a read that fills it means bulk data.
const SCRATCH: usize = 32 * 1024;

thread_local! {
    /// Never held across an await: filled and emptied within one poll.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// The side of a connection that is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Client,
    /// The backend.
    Backend,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both sides closed.
    Closed,
    /// One side was reset; the other one is to be.
    Reset {
        /// Who is left.
        survivor: Side,
    },
    /// Nothing came for as long as the binding allows.
    Idle,
}

/// How one direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Eof,
    SourceReset,
    SinkGone,
}

/// What one connection measures.
struct Meter<'a> {
    counters: &'a Counters,
    began: Instant,
    /// Milliseconds from `began` to the last byte.
    last: AtomicU64,
}

impl Meter<'_> {
    fn carried(&self, direction: Direction, bytes: usize) {
        self.counters
            .carried(direction, 0, u64::try_from(bytes).unwrap_or(u64::MAX));
        let elapsed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(elapsed, Relaxed);
    }

    /// Ends when no byte came for `idle`.
    async fn idle(&self, idle: Duration) {
        loop {
            let due = self
                .began
                .checked_add(Duration::from_millis(self.last.load(Relaxed)))
                .and_then(|last| last.checked_add(idle));
            match due {
                Some(due) if due <= Instant::now() => return,
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        }
    }
}

/// Relays between `client` and `backend`. The sockets stay open: the caller closes or resets them, by [`End`].
pub async fn relay(
    client: &TcpStream,
    backend: &TcpStream,
    counters: &Counters,
    pipes: Option<&PipePool>,
    idle: Duration,
) -> End {
    let meter = Meter {
        counters,
        began: Instant::now(),
        last: AtomicU64::new(0),
    };
    let mut inbound = std::pin::pin!(pump(client, backend, Direction::In, &meter, pipes));
    let mut outbound = std::pin::pin!(pump(backend, client, Direction::Out, &meter, pipes));
    let mut idle = std::pin::pin!(meter.idle(idle));
    let (mut received, mut answered) = (None, None);
    loop {
        tokio::select! {
            ended = &mut inbound, if received.is_none() => received = Some(ended),
            ended = &mut outbound, if answered.is_none() => answered = Some(ended),
            () = &mut idle => return End::Idle,
        }
        match (received, answered) {
            (Some(Ended::SourceReset), _) | (Some(_), Some(Ended::SinkGone)) => {
                return End::Reset {
                    survivor: Side::Backend,
                };
            }
            (_, Some(Ended::SourceReset)) | (Some(Ended::SinkGone), Some(_)) => {
                return End::Reset {
                    survivor: Side::Client,
                };
            }
            (Some(Ended::Eof), Some(Ended::Eof)) => {
                // Both halves are shut: the second one here.
                half_close(client);
                half_close(backend);
                return End::Closed;
            }
            (Some(Ended::Eof), None) => half_close(backend),
            (None, Some(Ended::Eof)) => half_close(client),
            // What the sink had sent before it was reset is still on its way.
            (Some(Ended::SinkGone), None) | (None, Some(Ended::SinkGone) | None) => {}
        }
    }
}

/// Passes on an end of stream. A socket that is gone already needs none.
fn half_close(sink: &TcpStream) {
    let _gone = SockRef::from(sink).shutdown(Shutdown::Write);
}

/// One direction, to its end.
async fn pump(
    source: &TcpStream,
    sink: &TcpStream,
    direction: Direction,
    meter: &Meter<'_>,
    mut pipes: Option<&PipePool>,
) -> Ended {
    loop {
        let moved = source.async_io(Interest::READABLE, || copy(source, sink));
        let Ok(step) = moved.await else {
            return Ended::SourceReset;
        };
        let Some(rest) = step.rest else {
            return Ended::SinkGone;
        };
        if step.read == 0 {
            return Ended::Eof;
        }
        meter.carried(direction, step.read.saturating_sub(rest.len()));
        if write_all(sink, &rest, direction, meter).await.is_err() {
            return Ended::SinkGone;
        }
        drop(rest);
        if step.read < SCRATCH {
            continue;
        }
        let Some(pool) = pipes else { continue };
        // Without descriptors for a pipe, copying goes on.
        let Ok(mut pipe) = pool.take() else { continue };
        match splice(source, sink, &mut pipe, direction, meter).await {
            Spliced::Dry => {}
            Spliced::Unfit => pipes = None,
            Spliced::Ended(ended) => return ended,
        }
    }
}

/// What one copy did.
struct Step {
    /// Bytes read; 0 is the end of the stream.
    read: usize,
    /// What the sink did not take, or none if the sink is gone.
    rest: Option<Vec<u8>>,
}

/// Reads once and writes what the sink takes at once.
fn copy(source: &TcpStream, sink: &TcpStream) -> io::Result<Step> {
    BUFFER.with_borrow_mut(|buffer| {
        let read = nix::unistd::read(source, buffer)?;
        let bytes = buffer.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(Step {
                read: 0,
                rest: Some(Vec::new()),
            });
        }
        let rest = match sink.try_write(bytes) {
            Ok(written) => Some(bytes.get(written..).unwrap_or_default().to_vec()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(bytes.to_vec()),
            Err(_) => None,
        };
        Ok(Step { read, rest })
    })
}

async fn write_all(
    sink: &TcpStream,
    bytes: &[u8],
    direction: Direction,
    meter: &Meter<'_>,
) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        sink.writable().await?;
        match sink.try_write(rest) {
            Ok(written) => {
                meter.carried(direction, written);
                rest = rest.get(written..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// How a run of splice(2) ended.
enum Spliced {
    /// There is nothing more for the moment. The pipe is empty.
    Dry,
    /// These sockets can't be spliced. The pipe is empty.
    Unfit,
    /// The direction is over.
    Ended(Ended),
}

/// Moves bulk data until the source runs dry.
async fn splice(
    source: &TcpStream,
    sink: &TcpStream,
    pipe: &mut Pipe<'_>,
    direction: Direction,
    meter: &Meter<'_>,
) -> Spliced {
    loop {
        // Where splice(2) finds nothing, the copying loop asks read(2) next, whose word on the end of the stream counts:
        // in front of urgent data splice(2) says "would block" for ever, or 0 when a FIN waits behind it. read(2) steps
        // over it.
        tokio::task::consume_budget().await;
        match pipe.fill(source) {
            Ok(0) => return Spliced::Dry,
            Ok(_) => {}
            Err(SpliceError::Unfit) => return Spliced::Unfit,
            Err(SpliceError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return Spliced::Dry,
            Err(SpliceError::Io(_)) => return Spliced::Ended(Ended::SourceReset),
        }
        while pipe.held() > 0 {
            let moved = sink
                .async_io(Interest::WRITABLE, || match pipe.drain(sink) {
                    Ok(moved) => Ok(Some(moved)),
                    Err(SpliceError::Unfit) => Ok(None),
                    Err(SpliceError::Io(error)) => Err(error),
                })
                .await;
            match moved {
                Ok(Some(0)) | Err(_) => return Spliced::Ended(Ended::SinkGone),
                Ok(Some(moved)) => meter.carried(direction, moved),
                Ok(None) => {
                    let Ok(bytes) = pipe.take_back() else {
                        return Spliced::Ended(Ended::SinkGone);
                    };
                    return match write_all(sink, &bytes, direction, meter).await {
                        Ok(()) => Spliced::Unfit,
                        Err(_) => Spliced::Ended(Ended::SinkGone),
                    };
                }
            }
        }
    }
}
