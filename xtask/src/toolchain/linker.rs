//! bpf-linker: one on PATH whose LLVM can read the compiler's bitcode, or one that is built here.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::{FOREIGN, pins};
use crate::command::{Cmd, note, step};
use crate::debian::Unpacked;
use crate::files::find_program;
use crate::paths;

/// Finds bpf-linker on PATH.
///
/// # Errors
///
/// When there is none, or its LLVM is older than the compiler's: LLVM reads bitcode of older releases, not of newer.
pub fn on_path(rustc_llvm: u32) -> Result<PathBuf> {
    let Some(linker) = find_program("bpf-linker") else {
        bail!("there is no bpf-linker on PATH")
    };
    let bytes = std::fs::read(&linker).with_context(|| format!("can't read {}", linker.display()))?;
    match pins::llvm_major_in_binary(&bytes) {
        Some(llvm) if llvm < rustc_llvm => {
            bail!(
                "{} has LLVM {llvm}, which can't read what rustc's LLVM {rustc_llvm} writes",
                linker.display()
            )
        }
        Some(_) => {}
        None => note(format_args!(
            "which LLVM {} has is not known; it must be {rustc_llvm} or later",
            linker.display()
        )),
    }
    Cmd::new(&linker).arg("--version").read()?;
    Ok(linker)
}

/// Builds bpf-linker into `dir` against the LLVM of an unpacked folder.
///
/// # Errors
///
/// When the pinned version does not know this LLVM, or does not build.
pub fn install(llvm_root: &Unpacked, llvm: u32, dir: &Path) -> Result<PathBuf> {
    check_llvm(llvm)?;
    step(format_args!(
        "building bpf-linker {} for LLVM {llvm} (once, about a minute)",
        pins::BPF_LINKER
    ));
    let build = dir.join("build");
    let mut cmd = Cmd::cargo()
        // One of the same version may be there already, for another LLVM.
        .args([
            "install",
            "bpf-linker",
            "--force",
            "--locked",
            "--version",
            pins::BPF_LINKER,
        ])
        .args([
            "--no-default-features",
            "--features",
            &format!("llvm-{llvm}"),
            "--root",
        ])
        .arg(dir)
        .arg("--target-dir")
        .arg(&build)
        .env("LLVM_PREFIX", llvm_root.root.join(format!("usr/lib/llvm-{llvm}")))
        // Else cargo advises to put the folder on PATH, which nobody needs: a wrapper runs it.
        .env("PATH", paths::path_with(&dir.join("bin")));
    for variable in FOREIGN {
        cmd = cmd.env_remove(variable);
    }
    cmd.run()
        .context("bpf-linker does not build; it needs gcc and libc6-dev, and crates.io within reach")?;
    if build.exists() {
        std::fs::remove_dir_all(&build).with_context(|| format!("can't remove {}", build.display()))?;
    }
    Ok(dir.join("bin/bpf-linker"))
}

/// Checks that the pinned linker can be built with this LLVM.
///
/// # Errors
///
/// With the LLVMs that it knows.
pub fn check_llvm(llvm: u32) -> Result<()> {
    if !pins::BPF_LINKER_LLVM.contains(&llvm) {
        bail!(
            "the compiler has LLVM {llvm}, but bpf-linker {} knows only LLVM {:?}; a later bpf-linker must be pinned",
            pins::BPF_LINKER,
            pins::BPF_LINKER_LLVM
        );
    }
    Ok(())
}

/// `llvm-strip` for objects of this linker: beside it, or of any LLVM on PATH that is not older.
pub fn strip_of(linker: &Path, llvm: u32) -> Option<PathBuf> {
    let beside = linker
        .parent()
        .map(|dir| dir.join("llvm-strip"))
        .filter(|file| crate::files::is_executable(file));
    let numbered = || (llvm..llvm + 8).find_map(|major| find_program(&format!("llvm-strip-{major}")));
    beside.or_else(numbered).or_else(|| find_program("llvm-strip"))
}
