//! A large TCP download and upload through a public port, judged by SHA-256.

use anyhow::{Result, ensure};

use super::WEB;
use crate::stage::Stage;
use crate::view::Counted;

/// On the kernel path: what went through is in the flow map.
pub fn kernel(stage: &mut Stage) -> Result<String> {
    let port = stage.answering(WEB.0, WEB.1, "tcp")?.port();
    let before = stage.counted(port)?;
    let text = transfers(stage)?;
    let after = stage.counted(port)?;
    let (packets_in, bytes_in) = grown(&before, &after, |sum| (sum.packets_in, sum.bytes_in));
    let (packets_out, bytes_out) = grown(&before, &after, |sum| (sum.packets_out, sum.bytes_out));
    ensure!(
        bytes_in >= stage.bulk && bytes_out >= stage.bulk,
        "{text}, but the flow map counts only {bytes_in} bytes in and {bytes_out} out: another path carried them"
    );
    Ok(format!(
        "{text}; flow map: {} flows, {packets_in} packets ({bytes_in} B) in, {packets_out} packets ({bytes_out} B) out",
        after.flows.saturating_sub(before.flows)
    ))
}

/// On the userspace path: what went through is in its counters.
pub fn userspace(stage: &mut Stage) -> Result<String> {
    let port = stage.answering(WEB.0, WEB.1, "tcp")?.port();
    let text = transfers(stage)?;
    let carried = stage.carried(port, "tcp", stage.bulk.saturating_mul(2))?;
    Ok(format!(
        "{text}; the proxy counts {carried} B, no program attached"
    ))
}

fn transfers(stage: &Stage) -> Result<String> {
    let to = stage.answering(WEB.0, WEB.1, "tcp")?;
    let down = stage.far_client().download(to, stage.bulk)?;
    down.check()?;
    let up = stage.near_client().upload(to, stage.bulk)?;
    up.check()?;
    Ok(format!(
        "{} MB down (client behind the gateway) {:.0} Mbit/s, up (client on the link) {:.0} Mbit/s, SHA-256 equal",
        stage.bulk / 1_000_000,
        down.megabits(),
        up.megabits()
    ))
}

fn grown(before: &Counted, after: &Counted, of: impl Fn(&Counted) -> (u64, u64)) -> (u64, u64) {
    let ((old_packets, old_bytes), (packets, bytes)) = (of(before), of(after));
    (
        packets.saturating_sub(old_packets),
        bytes.saturating_sub(old_bytes),
    )
}
