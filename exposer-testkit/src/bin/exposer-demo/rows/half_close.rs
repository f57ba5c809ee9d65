//! A client shuts down its sending side and still gets the whole answer, which the server begins only then.

use anyhow::{Result, ensure};

use super::WEB;
use crate::stage::Stage;

const UP: u64 = 2_000_000;
const DOWN: u64 = 20_000_000;

/// On the kernel path: the answer is in the flow map.
pub fn kernel(stage: &mut Stage) -> Result<String> {
    let port = stage.answering(WEB.0, WEB.1, "tcp")?.port();
    let before = stage.counted(port)?.bytes_out;
    let text = exchange(stage)?;
    let counted = stage.counted(port)?.bytes_out.saturating_sub(before);
    ensure!(
        counted >= DOWN,
        "{text}, but the flow map counts only {counted} bytes out"
    );
    Ok(format!("{text}; flow map: {counted} B out"))
}

/// On the userspace path: both are in its counters.
pub fn userspace(stage: &mut Stage) -> Result<String> {
    let port = stage.answering(WEB.0, WEB.1, "tcp")?.port();
    let text = exchange(stage)?;
    stage.carried(port, "tcp", UP.saturating_add(DOWN))?;
    Ok(text)
}

fn exchange(stage: &Stage) -> Result<String> {
    let to = stage.answering(WEB.0, WEB.1, "tcp")?;
    let both = stage.far_client().half_close(to, UP, DOWN)?;
    both.sent.check()?;
    both.answer.check()?;
    Ok(format!(
        "sent {} MB, shut down sending, then got the whole answer of {} MB, SHA-256 of both equal",
        UP / 1_000_000,
        DOWN / 1_000_000
    ))
}
