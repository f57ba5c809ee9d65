//! The route that needs nothing: a compiler with its source, and a fitting bpf-linker, are there already.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::{Toolchain, from_sysroot, linker};
use crate::command::Cmd;

/// Finds the toolchain of this machine.
///
/// # Errors
///
/// With what is missing.
pub fn find() -> Result<Toolchain> {
    let sysroot = Cmd::new("rustc")
        .args(["--print", "sysroot"])
        // A compiler that rustup would have to fetch first is not one that is there.
        .env("RUSTUP_AUTO_INSTALL", "0")
        .read()
        .context("rustc does not run")?;
    from_sysroot(
        &PathBuf::from(sysroot.trim()),
        "the machine's own",
        linker::on_path,
    )
}
