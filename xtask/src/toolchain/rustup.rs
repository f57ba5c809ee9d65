//! The route that installs system-wide, and therefore only on request: rustup.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use super::{Toolchain, debian, from_sysroot, linker};
use crate::command::{Cmd, note, step};
use crate::files::find_program;
use crate::paths;

/// The pinned toolchain of the workspace, with rust-src, installed by rustup if it is not there.
///
/// # Errors
///
/// When rustup is missing, may not install (`RUSTUP_AUTO_INSTALL=0`), or fails.
pub fn provide() -> Result<Toolchain> {
    if find_program("rustup").is_none() {
        bail!("rustup is not on this machine; install it from https://rustup.rs, or use another --toolchain");
    }
    let channel = channel()?;
    if !has_source(&channel) {
        let install = Cmd::new("rustup").args([
            "toolchain",
            "install",
            &channel,
            "--profile",
            "minimal",
            "--component",
            "rust-src",
        ]);
        if std::env::var_os("RUSTUP_AUTO_INSTALL").is_some_and(|value| value == "0") {
            bail!(
                "Rust {channel} with rust-src is not installed, and RUSTUP_AUTO_INSTALL=0 forbids it; run:\n  {install}"
            );
        }
        step(format_args!(
            "installing Rust {channel} with rust-src by rustup, for the whole account"
        ));
        install.run()?;
    }
    let sysroot = sysroot(&channel).with_context(|| format!("rustup does not run Rust {channel}"))?;
    from_sysroot(&sysroot, "rustup's", |llvm| {
        linker::on_path(llvm).or_else(|reason| {
            note(format_args!("no fitting bpf-linker on PATH ({reason:#}); building one with Debian's LLVM {llvm}"));
            debian::linker_for(llvm).with_context(|| {
                format!("install bpf-linker of LLVM {llvm} or later (https://github.com/aya-rs/bpf-linker#installation)")
            })
        })
    })
}

/// The channel that rust-toolchain.toml pins.
fn channel() -> Result<String> {
    let file = paths::root().join("rust-toolchain.toml");
    let text = std::fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
    parse_channel(&text).with_context(|| format!("{} names no channel", file.display()))
}

fn parse_channel(text: &str) -> Option<String> {
    let value = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("channel"))?
        .trim()
        .strip_prefix('=')?;
    Some(value.trim().trim_matches('"').to_owned())
}

fn sysroot(channel: &str) -> Result<PathBuf> {
    let text = Cmd::new("rustup")
        .args(["run", channel, "rustc", "--print", "sysroot"])
        .env("RUSTUP_AUTO_INSTALL", "0")
        .read()?;
    Ok(PathBuf::from(text.trim()))
}

fn has_source(channel: &str) -> bool {
    sysroot(channel).is_ok_and(|dir| dir.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_channel_is_read() {
        assert_eq!(
            parse_channel("[toolchain]\nchannel = \"1.95.0\"\n").as_deref(),
            Some("1.95.0")
        );
        assert_eq!(parse_channel("[toolchain]\n"), None);
    }
}
