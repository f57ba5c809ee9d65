//! Ctrl-C for work that waits: waits and transfers of this crate end soon after [`raise`], so that the guards of what
//! was made are dropped in order.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

static RAISED: AtomicBool = AtomicBool::new(false);

/// How often a waiting socket looks whether it is to end.
const LOOK: Duration = Duration::from_millis(250);

/// Asks every wait and transfer of this process to end.
pub fn raise() {
    RAISED.store(true, Ordering::Relaxed);
}

/// Whether [`raise`] was called.
#[must_use]
pub fn raised() -> bool {
    RAISED.load(Ordering::Relaxed)
}

/// Fails if [`raise`] was called.
///
/// # Errors
///
/// "interrupted".
pub fn check() -> Result<()> {
    if raised() {
        bail!("interrupted");
    }
    Ok(())
}

/// Sleeps, unless [`raise`] is or was called.
///
/// # Errors
///
/// As [`check`].
pub fn sleep(time: Duration) -> Result<()> {
    let start = Instant::now();
    while let Some(left) = time.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
        check()?;
        std::thread::sleep(left.min(LOOK));
    }
    check()
}

/// A TCP stream whose reads and writes wait up to a patience of their own, and end when interrupted.
#[derive(Debug)]
pub struct Patient {
    stream: TcpStream,
    patience: Duration,
}

impl Patient {
    /// Wraps a stream: each read and write may take up to `patience`.
    ///
    /// # Errors
    ///
    /// The stream's timeouts cannot be set.
    pub fn new(stream: TcpStream, patience: Duration) -> io::Result<Self> {
        let look = LOOK.min(patience).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(look))?;
        stream.set_write_timeout(Some(look))?;
        Ok(Self { stream, patience })
    }

    /// Another handle of the same connection.
    ///
    /// # Errors
    ///
    /// No file descriptor is left.
    pub fn try_clone(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }

    /// Shuts down the sending side: the peer reads the end.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    pub fn finish_sending(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    fn retry(&self, mut work: impl FnMut(&TcpStream) -> io::Result<usize>) -> io::Result<usize> {
        let start = Instant::now();
        loop {
            if raised() {
                return Err(io::Error::other("interrupted"));
            }
            match work(&self.stream) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if start.elapsed() >= self.patience {
                        return Err(io::Error::new(
                            ErrorKind::TimedOut,
                            format!("nothing moved for {:?}", self.patience),
                        ));
                    }
                }
                done => return done,
            }
        }
    }
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.retry(|mut stream| stream.read(buffer))
    }
}

impl Write for Patient {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.retry(|mut stream| stream.write(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
