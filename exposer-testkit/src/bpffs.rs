//! A BPF file system of one's own: pins of a test never meet those of the host or of another test.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::claim::{self, Claim};

const KIND: &str = "bpffs";

/// A private bpffs, unmounted when dropped; what is pinned in it goes with it.
#[derive(Debug)]
pub struct Bpffs {
    path: PathBuf,
    _claim: Claim,
}

impl Bpffs {
    /// Mounts a bpffs on a new folder.
    ///
    /// # Errors
    ///
    /// No privilege, or a kernel without bpffs.
    pub fn new(test: &str) -> Result<Self> {
        sweep();
        let (path, claim) = claim::folder(KIND, test)?;
        let this = Self { path, _claim: claim };
        mount(
            Some("bpf"),
            &this.path,
            Some("bpf"),
            MsFlags::empty(),
            Some("mode=0700"),
        )
        .with_context(|| {
            format!(
                "cannot mount a bpffs on {}: root and a kernel with CONFIG_BPF_SYSCALL are needed",
                this.path.display()
            )
        })?;
        Ok(this)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        unmount(&self.path);
    }
}

fn unmount(path: &Path) {
    let _ = umount2(path, MntFlags::MNT_DETACH);
    // Empty again once unmounted; never remove a tree here.
    let _ = fs::remove_dir(path);
}

/// Unmounts what dead runs of this crate left behind.
fn sweep() {
    for left in claim::leftovers(KIND) {
        if let Some(path) = left.folder() {
            unmount(&path);
        }
        left.forget();
    }
}
