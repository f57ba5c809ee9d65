//! TCP clients: transfers whose every byte is judged.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{Client, pattern};
use crate::interrupt::Patient;

/// What a transfer measured.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// Bytes that arrived.
    pub bytes: u64,
    /// Bytes that were to arrive.
    pub wanted: u64,
    /// Whether the SHA-256 of what arrived is that of what was sent.
    pub intact: bool,
    /// From the first byte sent to the last received.
    pub took: Duration,
}

impl Transfer {
    /// Megabits a second.
    #[must_use]
    pub fn megabits(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a rate for a person to read")]
        let bits = self.bytes as f64 * 8.0;
        bits / 1e6 / self.took.as_secs_f64().max(1e-9)
    }

    /// Fails unless every byte arrived unchanged.
    ///
    /// # Errors
    ///
    /// The text says what is missing or wrong.
    pub fn check(&self) -> Result<()> {
        if self.bytes != self.wanted {
            bail!("{} of {} bytes arrived", self.bytes, self.wanted);
        }
        if !self.intact {
            bail!(
                "{} bytes arrived, but their SHA-256 is not that of what was sent",
                self.bytes
            );
        }
        Ok(())
    }
}

/// What a half-close exchange measured.
#[derive(Clone, Debug)]
pub struct HalfClose {
    /// What went up before the client shut down its sending side, as the server saw it.
    pub sent: Transfer,
    /// What came back after it.
    pub answer: Transfer,
}

impl Client {
    /// Downloads `bytes` bytes.
    ///
    /// # Errors
    ///
    /// No connection, a reset, or silence for 20 s. Fewer or changed bytes are a result, not an error.
    pub fn download(&self, to: SocketAddr, bytes: u64) -> Result<Transfer> {
        let mut stream = self.connect(to)?;
        let seed = seed(to, bytes);
        let start = Instant::now();
        stream.write_all(format!("DOWNLOAD {bytes} {seed}\n").as_bytes())?;
        let (count, digest) = pattern::consume(&mut stream, u64::MAX).context("the download broke off")?;
        let took = start.elapsed();
        Ok(Transfer {
            bytes: count,
            wanted: bytes,
            intact: digest == pattern::digest(seed, bytes),
            took,
        })
    }

    /// Uploads `bytes` bytes; the server answers with their digest.
    ///
    /// # Errors
    ///
    /// As [`Self::download`].
    pub fn upload(&self, to: SocketAddr, bytes: u64) -> Result<Transfer> {
        let mut stream = self.connect(to)?;
        let seed = seed(to, bytes);
        let start = Instant::now();
        stream.write_all(format!("UPLOAD {bytes}\n").as_bytes())?;
        pattern::write(&mut stream, seed, bytes).context("the upload broke off")?;
        let mut answer = String::new();
        BufReader::new(&mut stream)
            .read_line(&mut answer)
            .context("the server's digest did not arrive")?;
        let took = start.elapsed();
        let intact = answer.trim_end() == pattern::digest(seed, bytes);
        Ok(Transfer {
            bytes: if intact { bytes } else { 0 },
            wanted: bytes,
            intact,
            took,
        })
    }

    /// Sends `up` bytes, shuts down the sending side, and then takes `down` bytes of answer, which the server begins
    /// only when it has seen the end.
    ///
    /// # Errors
    ///
    /// As [`Self::download`].
    pub fn half_close(&self, to: SocketAddr, up: u64, down: u64) -> Result<HalfClose> {
        let mut stream = self.connect(to)?;
        let seed = seed(to, up);
        let start = Instant::now();
        stream.write_all(format!("HALFCLOSE {down} {seed}\n").as_bytes())?;
        pattern::write(&mut stream, seed, up).context("the upload broke off")?;
        stream
            .finish_sending()
            .context("cannot shut down the sending side")?;
        let mut from = BufReader::new(&mut stream);
        let mut line = String::new();
        from.read_line(&mut line)
            .context("no answer after the sending side was shut down")?;
        let (count, digest) = line.trim_end().split_once(' ').unwrap_or_default();
        let sent = Transfer {
            bytes: count.parse().unwrap_or(0),
            wanted: up,
            intact: digest == pattern::digest(seed, up),
            took: start.elapsed(),
        };
        let (count, digest) = pattern::consume(&mut from, u64::MAX).context("the answer broke off")?;
        let intact = digest == pattern::digest(seed, down);
        let answer = Transfer {
            bytes: count,
            wanted: down,
            intact,
            took: start.elapsed(),
        };
        Ok(HalfClose { sent, answer })
    }

    /// Asks the server behind `to` for its name, so that one knows who answered.
    ///
    /// # Errors
    ///
    /// No connection within `patience`, or an answer that is no name.
    pub fn ask_name(&self, to: SocketAddr, patience: Duration) -> Result<String> {
        let mut stream = Patient::new(self.connect_within(to, patience)?, patience)?;
        stream.write_all(b"NAME\n")?;
        let mut name = String::new();
        (&mut stream)
            .take(256)
            .read_to_string(&mut name)
            .context("no answer")?;
        if name.is_empty() {
            bail!("{to} accepted and closed without an answer");
        }
        Ok(name)
    }
}

/// Another stream for each destination and size.
fn seed(to: SocketAddr, bytes: u64) -> u64 {
    u64::from(to.port()) ^ bytes.rotate_left(20)
}
