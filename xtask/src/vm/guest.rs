//! A running guest: what its console says, until it ends, or hangs and is killed.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::report::Report;
use crate::command::Cmd;

/// Lines of the console that are shown when a guest ends badly.
const TAIL: usize = 60;
/// What a kernel writes when it is beyond saving.
const FATAL: &[&str] = &[
    "Kernel panic",
    "Oops:",
    "BUG: ",
    "general protection fault",
    "rcu_sched self-detected stall",
];
/// How long the rest of an oops may take to arrive.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// How long a guest may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until its first process speaks.
    pub boot: Duration,
    /// Without a line on the console.
    pub silence: Duration,
    /// In all.
    pub whole: Duration,
}

/// How a guest came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// All stories were told.
    Done,
    /// It never reached its first process.
    NoBoot,
    /// It was killed, or died; why.
    Broken(String),
}

/// Starts a guest, follows it to its end, and leaves nothing running. The console goes to `log` too.
///
/// # Errors
///
/// When QEMU can't be started or the log not be written.
pub fn run(qemu: &Cmd, log: &Path, patience: Patience, report: &mut Report) -> Result<(End, String)> {
    let mut console =
        File::create(log).with_context(|| format!("can't write the console's log {}", log.display()))?;
    let errors = console.try_clone()?;
    let child = qemu
        .build()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .with_context(|| format!("can't start:\n  {qemu}"))?;
    let mut child = KillOnDrop(child);
    let lines = read_lines(&mut child.0)?;
    let mut tail = VecDeque::new();
    let end = follow(
        &lines,
        |line| {
            writeln!(console, "{line}").context("can't write the console's log")?;
            tail.push_back(line.to_owned());
            if tail.len() > TAIL {
                tail.pop_front();
            }
            report.line(line);
            Ok(())
        },
        patience,
    )?;
    drop(child);
    let mut text: Vec<String> = tail.into();
    if end == End::NoBoot {
        // Perhaps QEMU itself has said why.
        text = std::fs::read_to_string(log)
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect();
        let from = text.len().saturating_sub(TAIL);
        text.drain(..from);
    }
    Ok((end, text.join("\n")))
}

/// A child that never outlives us.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read_lines(child: &mut Child) -> Result<Receiver<String>> {
    let pipe = child.stdout.take().context("QEMU has no standard output")?;
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if sender.send(text).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

fn follow(
    lines: &Receiver<String>,
    mut take: impl FnMut(&str) -> Result<()>,
    patience: Patience,
) -> Result<End> {
    let start = Instant::now();
    let (mut booted, mut done, mut fatal) = (false, false, None);
    loop {
        let left = patience.whole.saturating_sub(start.elapsed());
        let wait = if fatal.is_some() || done {
            LAST_WORDS
        } else if booted {
            patience.silence
        } else {
            patience.boot.saturating_sub(start.elapsed())
        };
        match lines.recv_timeout(wait.min(left)) {
            Ok(line) => {
                booted |= line.starts_with("@@ kernel ");
                done |= line == "@@ done";
                if fatal.is_none() && FATAL.iter().any(|word| line.contains(word)) {
                    fatal = Some(format!("the kernel broke down: {line}"));
                }
                take(&line)?;
            }
            Err(error) => {
                return Ok(match (fatal, done, error) {
                    (Some(why), _, _) => End::Broken(why),
                    (None, true, _) => End::Done,
                    _ if !booted => End::NoBoot,
                    (_, _, RecvTimeoutError::Disconnected) => {
                        End::Broken("the guest ended before its stories did".to_owned())
                    }
                    _ if start.elapsed() >= patience.whole => {
                        End::Broken(format!("killed: not at its end after {:?}", patience.whole))
                    }
                    _ => End::Broken(format!("killed: silent for {:?}", patience.silence)),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end_of(script: &str) -> End {
        let log = std::env::temp_dir().join(format!(
            "xtask-guest-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let patience = Patience {
            boot: Duration::from_millis(400),
            silence: Duration::from_millis(400),
            whole: Duration::from_secs(5),
        };
        let mut report = Report::new("6.1", &[]);
        let (end, _) = run(&Cmd::new("sh").args(["-c", script]), &log, patience, &mut report).unwrap();
        std::fs::remove_file(log).unwrap();
        end
    }

    #[test]
    fn every_way_to_end_is_told_apart() {
        assert_eq!(end_of("echo @@ kernel 6.1.0; echo @@ done"), End::Done);
        assert_eq!(end_of("echo no boot device"), End::NoBoot);
        assert_eq!(end_of("exec sleep 20"), End::NoBoot);
        let broken = |script: &str| match end_of(script) {
            End::Broken(why) => why,
            other => panic!("{other:?}"),
        };
        assert!(broken("echo @@ kernel 6.1.0; exec sleep 20").contains("silent"));
        assert!(broken("echo @@ kernel 6.1.0").contains("before its stories"));
        assert!(broken("echo @@ kernel 6.1.0; while sleep 0.1; do echo x; done").contains("not at its end"));
        let oops = "echo @@ kernel 6.1.0; echo '[ 1.0] Kernel panic - not syncing'; echo @@ done";
        assert!(broken(oops).contains("Kernel panic"));
    }
}
