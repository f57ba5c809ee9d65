//! Deleting the namespaces of killed runs.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::{FOLDER, KIND, MARK, delete};
use crate::claim::{self, Leftover};

/// Deletes what dead runs of this crate left behind, their processes first.
pub fn sweep() {
    for left in claim::leftovers(KIND) {
        sweep_one(&left);
        left.forget();
    }
}

fn sweep_one(left: &Leftover) {
    let path = Path::new(FOLDER).join(&left.name);
    let Ok(inode) = left.note.parse::<u64>() else {
        return;
    };
    // The inode proves that the name still stands for the namespace that was claimed.
    if !left.name.starts_with("xpo-") || !path.metadata().is_ok_and(|meta| meta.ino() == inode) {
        return;
    }
    for pid in members(&left.name, inode) {
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    }
    delete(&left.name);
}

/// The processes that this crate started in the namespace `name`, whose inode is given.
fn members(name: &str, inode: u64) -> Vec<nix::unistd::Pid> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mark = format!("{MARK}={name}");
    let marked = |pid: &i32| {
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|text| {
            text.split(|byte| *byte == 0)
                .any(|entry| entry == mark.as_bytes())
        })
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|meta| meta.ino() == inode))
        .filter(marked)
        .map(nix::unistd::Pid::from_raw)
        .collect()
}
