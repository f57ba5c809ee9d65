//! A client shuts down its sending side and still gets the whole answer, which the server begins only then.

use anyhow::Result;

use super::WEB;
use crate::stage::Stage;

const UP: u64 = 2_000_000;
const DOWN: u64 = 20_000_000;

/// On whichever path the stage is.
pub fn run(stage: &mut Stage) -> Result<String> {
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
