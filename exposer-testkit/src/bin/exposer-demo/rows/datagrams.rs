//! A thousand UDP datagrams of every size up to what the tunnel carries, each compared with its echo.

use anyhow::{Result, ensure};

use super::GAME;
use crate::stage::Stage;

/// Datagrams.
const COUNT: u64 = 1_000;
/// The largest payload that fits the tunnel's MTU of 1,420 bytes with room to spare for IPv6 (40 + 8).
const LARGEST: usize = 1_372;

/// On the kernel path: every datagram is in the flow map.
pub fn kernel(stage: &mut Stage) -> Result<String> {
    let port = stage.answering(GAME.0, GAME.1, "udp")?.port();
    let before = stage.counted(port)?;
    let (text, _) = echo(stage)?;
    let after = stage.counted(port)?;
    let packets_in = after.packets_in.saturating_sub(before.packets_in);
    let packets_out = after.packets_out.saturating_sub(before.packets_out);
    ensure!(
        packets_in >= COUNT && packets_out >= COUNT,
        "{text}, but the flow map counts only {packets_in} packets in and {packets_out} out"
    );
    Ok(format!(
        "{text}; flow map: {packets_in} packets in, {packets_out} out"
    ))
}

/// On the userspace path: every byte is in its counters.
pub fn userspace(stage: &mut Stage) -> Result<String> {
    let port = stage.answering(GAME.0, GAME.1, "udp")?.port();
    let (text, bytes) = echo(stage)?;
    let carried = stage.carried(port, "udp", bytes.saturating_mul(2))?;
    Ok(format!(
        "{text}; the proxy counts {carried} B, no program attached"
    ))
}

/// Runs it, and returns the text and the payload bytes each way.
fn echo(stage: &Stage) -> Result<(String, u64)> {
    let to = stage.answering(GAME.0, GAME.1, "udp")?;
    let echo = stage.far_client().udp_echo(to, COUNT, 1, LARGEST)?;
    echo.check()?;
    let text = format!(
        "{} datagrams of 1 to {LARGEST} bytes, {} lost, {} changed, in {:.2} s",
        echo.sent,
        echo.lost,
        echo.changed,
        echo.took.as_secs_f64()
    );
    Ok((text, echo.bytes))
}
