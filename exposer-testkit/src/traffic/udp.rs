//! UDP clients: datagrams one after the other, each compared with its echo.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{Client, pattern};
use crate::interrupt;

/// How long one echo may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What an echo run measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo {
    /// Datagrams sent.
    pub sent: u64,
    /// Echoes that were equal to what was sent.
    pub equal: u64,
    /// Datagrams without an echo within 5 s.
    pub lost: u64,
    /// Echoes that differed.
    pub changed: u64,
    /// Payload bytes that went each way.
    pub bytes: u64,
    /// The whole run.
    pub took: Duration,
}

impl Echo {
    /// Fails unless every datagram came back unchanged.
    ///
    /// # Errors
    ///
    /// The text counts what was lost and what was changed.
    pub fn check(&self) -> Result<()> {
        if self.sent == 0 || self.equal != self.sent {
            bail!("{} sent, {} lost, {} changed", self.sent, self.lost, self.changed);
        }
        Ok(())
    }
}

impl Client {
    /// Sends `count` datagrams of sizes that rise evenly from `smallest` to `largest` bytes, each after the echo of
    /// the one before. One socket, so one flow.
    ///
    /// # Errors
    ///
    /// The socket fails, or the port is refused (ICMP port unreachable).
    pub fn udp_echo(&self, to: SocketAddr, count: u64, smallest: usize, largest: usize) -> Result<Echo> {
        let socket = self.udp_socket(to)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut result = Echo::default();
        let mut sent = vec![0; largest];
        let mut received = vec![0; 65_536];
        let start = Instant::now();
        for index in 0..count {
            interrupt::check()?;
            let datagram = sent
                .get_mut(..size(index, count, smallest, largest))
                .unwrap_or_default();
            pattern::fill(datagram, u64::from(to.port()), index);
            socket
                .send(datagram)
                .with_context(|| format!("datagram {index} to {to}"))?;
            result.sent = result.sent.saturating_add(1);
            match socket.recv(&mut received) {
                Ok(size) if received.get(..size) == Some(&*datagram) => {
                    result.equal = result.equal.saturating_add(1);
                    result.bytes = result.bytes.saturating_add(size as u64);
                }
                Ok(_) => result.changed = result.changed.saturating_add(1),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    result.lost = result.lost.saturating_add(1);
                    if result.lost > 5 && result.equal == 0 {
                        bail!("the first {} datagrams to {to} had no echo", result.sent);
                    }
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("echo of datagram {index} from {to}"));
                }
            }
        }
        result.took = start.elapsed();
        Ok(result)
    }

    /// Sends one datagram and waits for its echo.
    ///
    /// # Errors
    ///
    /// None within `patience`, or the port is refused.
    pub fn udp_ping(&self, to: SocketAddr, patience: Duration) -> Result<()> {
        let socket = self.udp_socket(to)?;
        socket.set_read_timeout(Some(patience.max(Duration::from_millis(1))))?;
        socket.send(b"ping")?;
        let mut buffer = [0; 16];
        let size = socket
            .recv(&mut buffer)
            .with_context(|| format!("no echo from {to}"))?;
        if buffer.get(..size) != Some(b"ping") {
            bail!("the echo from {to} differs");
        }
        Ok(())
    }
}

/// The size of datagram `index` of `count`: from `smallest` to `largest`, both reached.
fn size(index: u64, count: u64, smallest: usize, largest: usize) -> usize {
    let span = largest.saturating_sub(smallest) as u64;
    let step = index
        .saturating_mul(span)
        .checked_div(count.saturating_sub(1))
        .unwrap_or(0);
    smallest
        .saturating_add(usize::try_from(step).unwrap_or(usize::MAX))
        .min(largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_reach_both_ends() {
        assert_eq!(size(0, 1_000, 1, 1_372), 1);
        assert_eq!(size(999, 1_000, 1, 1_372), 1_372);
        assert_eq!(size(0, 1, 5, 9), 5);
    }
}
