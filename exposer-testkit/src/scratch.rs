//! A temporary folder that is removed also when its maker was killed: by the next run's sweep. It holds keys, tokens,
//! sockets and logs of a test.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::claim::{self, Claim};

const KIND: &str = "scratch";

/// A folder of the test's own, removed with all that is in it when dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    _claim: Claim,
}

impl Scratch {
    /// Makes a folder, readable by its maker alone.
    ///
    /// # Errors
    ///
    /// The temporary folder or `/run` cannot be written.
    pub fn new(test: &str) -> Result<Self> {
        for left in claim::leftovers(KIND) {
            if let Some(path) = left.folder() {
                let _ = fs::remove_dir_all(path);
            }
            left.forget();
        }
        let (path, claim) = claim::folder(KIND, test)?;
        Ok(Self { path, _claim: claim })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}
