//! Where things are: the one place that knows folder names.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::command::note;

/// Folder of the workspace.
pub fn root() -> PathBuf {
    // xtask is always run from its own checkout by cargo; a copied binary has no business elsewhere.
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    manifest
        .parent()
        .map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// Cargo's output folder, absolute.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Where downloaded toolchains and tools are kept: below target/, or where `EXPOSER_CACHE_DIR` says, so that several
/// checkouts or CI runs can share one.
pub fn cache() -> PathBuf {
    std::env::var_os("EXPOSER_CACHE_DIR").map_or_else(target, |dir| root().join(dir))
}

/// Where cargo keeps the sources of dependencies.
pub fn cargo_home() -> PathBuf {
    let home = || std::env::home_dir().unwrap_or_default().join(".cargo");
    std::env::var_os("CARGO_HOME").map_or_else(home, PathBuf::from)
}

/// Folder of the crate with the kernel programs.
pub fn ebpf_crate() -> PathBuf {
    root().join("exposer-ebpf")
}

/// The object that the edge embeds: without DWARF, with BTF.
pub fn object() -> PathBuf {
    target().join("bpf/exposer-ebpf.o")
}

/// The same object with DWARF, for `llvm-objdump -S`.
pub fn object_with_debug_info() -> PathBuf {
    target().join("bpf/exposer-ebpf.debug.o")
}

/// The object with the benchmark's own kernel programs.
pub fn bench_object() -> PathBuf {
    target().join("bpf/exposer-bench.o")
}

/// The search path of children, with `first` before everything.
pub fn path_with(first: &Path) -> OsString {
    let old = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::iter::once(first.to_owned()).chain(std::env::split_paths(&old));
    std::env::join_paths(dirs).unwrap_or(old)
}

/// Takes the lock of a folder, waiting for another run of this program that holds it. It is given back when dropped.
///
/// # Errors
///
/// When the folder or the lock file can't be made.
pub fn lock(dir: &Path) -> Result<File> {
    std::fs::create_dir_all(dir).with_context(|| format!("can't make the folder {}", dir.display()))?;
    let path = dir.join(".lock");
    let file = File::create(&path).with_context(|| format!("can't make the lock file {}", path.display()))?;
    if file.try_lock().is_err() {
        note(format_args!(
            "waiting for another run that works in {}",
            dir.display()
        ));
        file.lock()
            .with_context(|| format!("can't lock {}", path.display()))?;
    }
    Ok(file)
}
