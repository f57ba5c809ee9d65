//! Taking turns: so many tunnels in userspace at once that each of them gets the processor in time, and no more.
//!
//! WireGuard in userspace encrypts on the processors that the test, the edge and the clients need as well. Tests of one
//! program run on threads, test programs of several checkouts beside each other: the turn is therefore a lock on a file
//! (flock(2)), which the kernel takes back from a process that dies.

use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

const FOLDER: &str = "/run/exposer-testkit/turns";

/// The right to keep one of the machine's few tunnels; given back when dropped.
#[derive(Debug)]
pub struct Turn {
    _lock: Flock<File>,
}

impl Turn {
    /// Waits for a turn: one for each processor are given at a time, but no more than four.
    ///
    /// # Errors
    ///
    /// `/run` cannot be written (root is needed), or there is no turn within `patience`.
    pub fn wait(patience: Duration) -> Result<Self> {
        let places = thread::available_parallelism().map_or(1, usize::from).min(4);
        Self::wait_among(Path::new(FOLDER), places, patience)
    }

    fn wait_among(folder: &Path, places: usize, patience: Duration) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| {
            format!(
                "cannot make {}: the tests that need privilege run as root",
                folder.display()
            )
        })?;
        let begun = Instant::now();
        loop {
            for place in 0..places {
                if let Some(lock) = try_lock(&folder.join(place.to_string()))? {
                    return Ok(Self { _lock: lock });
                }
            }
            if begun.elapsed() >= patience {
                bail!(
                    "{places} networks of other tests have been there for {} s: `fuser {}/*` tells whose they are",
                    patience.as_secs(),
                    folder.display()
                );
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The lock on a file, if nobody has it.
fn try_lock(path: &Path) -> Result<Option<Flock<File>>> {
    let file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_turns_at_once_than_there_are_places() {
        let folder = tempfile::tempdir().unwrap();
        let turn = |patience| Turn::wait_among(folder.path(), 2, patience);
        let first = turn(Duration::ZERO).unwrap();
        let _second = turn(Duration::ZERO).unwrap();
        let refused = turn(Duration::from_millis(120)).unwrap_err().to_string();
        assert!(refused.starts_with("2 networks of other tests"), "{refused}");
        thread::scope(|scope| {
            let third = scope.spawn(|| turn(Duration::from_secs(60)).map(drop));
            drop(first);
            third.join().unwrap().unwrap();
        });
    }
}
