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
        let folder = tempfile::Builder::new()
            .prefix(&format!("xpo-{test}-bpffs-"))
            .tempdir()
            .context("cannot make a folder for a private bpffs")?
            .keep();
        let name = folder
            .file_name()
            .context("the folder has no name")?
            .to_string_lossy()
            .into_owned();
        let claim = Claim::new(KIND, &name)?;
        claim.note(&folder.to_string_lossy())?;
        let this = Self {
            path: folder,
            _claim: claim,
        };
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
        let path = PathBuf::from(&left.note);
        // The note is ours, but a file may be damaged: only a folder named as we name them is touched.
        if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy() == left.name && left.name.starts_with("xpo-"))
        {
            unmount(&path);
        }
        left.forget();
    }
}
