//! Taking everything away that outlives the daemon: the only way in which the programs are detached.

use std::path::{Path, PathBuf};

use aya::programs::TcAttachType;
use aya::programs::tc::qdisc_detach_program;
use exposer_common::names::{PROG_TUNNEL_INGRESS, PROG_WAN_INGRESS};

use super::error::os_error;

/// What a cleanup would remove, or has removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Pinned links: removing one detaches its program.
    pub links: Vec<PathBuf>,
    /// Pinned maps.
    pub maps: Vec<PathBuf>,
    /// `program on interface` for each clsact filter.
    pub filters: Vec<String>,
    /// What could not be removed, and why.
    pub failed: Vec<String>,
}

impl Removed {
    /// Whether there was nothing to remove.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.links.is_empty() && self.maps.is_empty() && self.filters.is_empty() && self.failed.is_empty()
    }
}

/// Detaches the programs and removes every pin of every layout below `bpffs`; live kernel-path flows end. `interfaces`
/// are searched for clsact filters of ours, by program name. With `dry_run` nothing is touched.
#[must_use]
pub fn cleanup(bpffs: &Path, interfaces: &[String], dry_run: bool) -> Removed {
    let mut removed = Removed::default();
    // Filters before links before maps: a program must not run on while its maps are made anew by another daemon.
    for interface in interfaces {
        for program in [PROG_WAN_INGRESS, PROG_TUNNEL_INGRESS] {
            remove_filter(&mut removed, interface, program, dry_run);
        }
    }
    for layout in folders(bpffs) {
        for link in files(&layout.join("links")) {
            remove_file(&mut removed.links, &mut removed.failed, link, dry_run);
        }
        for map in files(&layout) {
            remove_file(&mut removed.maps, &mut removed.failed, map, dry_run);
        }
        if !dry_run {
            let _ = std::fs::remove_dir(layout.join("links"));
            let _ = std::fs::remove_dir(&layout);
        }
    }
    if !dry_run {
        let _ = std::fs::remove_dir(bpffs);
    }
    removed
}

fn folders(bpffs: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(bpffs) else {
        return Vec::new();
    };
    let is_layout = |name: &str| {
        name.strip_prefix('v')
            .is_some_and(|number| number.parse::<u32>().is_ok())
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_str().is_some_and(is_layout))
        .map(|entry| entry.path())
        .collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files: Vec<_> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| !path.is_dir())
        .collect();
    files.sort();
    files
}

fn remove_file(done: &mut Vec<PathBuf>, failed: &mut Vec<String>, path: PathBuf, dry_run: bool) {
    if dry_run {
        done.push(path);
        return;
    }
    match std::fs::remove_file(&path) {
        Ok(()) => done.push(path),
        Err(error) => failed.push(format!("{}: {error}", path.display())),
    }
}

fn remove_filter(removed: &mut Removed, interface: &str, program: &str, dry_run: bool) {
    if dry_run {
        return;
    }
    match qdisc_detach_program(interface, TcAttachType::Ingress, program) {
        Ok(()) => removed.filters.push(format!("{program} on {interface}")),
        // No such filter, no such qdisc, no such interface: nothing to remove.
        Err(error)
            if os_error(&error)
                .is_none_or(|code| matches!(code, libc::ENOENT | libc::EINVAL | libc::ENODEV)) => {}
        Err(error) => removed.failed.push(format!(
            "{program} on {interface}: {}",
            super::error::chain(&error)
        )),
    }
}
