//! `cargo xtask build-ebpf`: the object with the kernel programs, with BTF and without DWARF.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use crate::command::{Cmd, note, step};
use crate::files::write_if_changed;
use crate::paths;
use crate::toolchain::{Choice, TARGET, Toolchain};

/// Options of the verb, which others share.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)] // clap names a group after the type, and the verbs' own options have the same name
pub struct Options {
    /// Where the compiler and the linker of the kernel programs come from.
    #[arg(long, value_enum, default_value_t)]
    pub toolchain: Choice,
}

/// Builds the object.
///
/// # Errors
///
/// When there is no toolchain, or the programs do not build.
pub fn run(options: &Options) -> Result<ExitCode> {
    build(options)?;
    Ok(ExitCode::SUCCESS)
}

/// Builds the object, for the other verbs.
///
/// # Errors
///
/// As [`run`].
pub fn build(options: &Options) -> Result<()> {
    let (built, strip) = compile(options, "exposer-ebpf")?;
    publish(&built, strip.as_deref())
}

/// Builds the object with the benchmark's own programs.
///
/// # Errors
///
/// As [`run`].
pub fn build_bench(options: &Options) -> Result<()> {
    let (built, _) = compile(options, "exposer-bench")?;
    let bytes = std::fs::read(&built)?;
    require_btf(&bytes).with_context(|| format!("{} is of no use", built.display()))?;
    write_if_changed(&paths::bench_object(), &bytes, false)?;
    Ok(())
}

/// Compiles a program of the eBPF crate. Returns the object, and where `llvm-strip` is.
fn compile(options: &Options, name: &str) -> Result<(PathBuf, Option<PathBuf>)> {
    let manifest = paths::ebpf_crate().join("Cargo.toml");
    if !manifest.is_file() {
        bail!(
            "{} is not there: this checkout is not complete",
            manifest.display()
        );
    }
    let toolchain = Toolchain::provide(options.toolchain)?;
    step("building the kernel programs");
    let target_dir = paths::target().join("bpf-build");
    toolchain
        .cargo("build", &target_dir)
        .args(["--bin", name])
        .run()?;
    Ok((
        target_dir.join(TARGET).join("release").join(name),
        toolchain.strip,
    ))
}

/// Puts the built object in its places, touching nothing that has not changed, so that nothing that embeds it is
/// built again.
fn publish(built: &Path, strip: Option<&Path>) -> Result<()> {
    let bytes = std::fs::read(built).with_context(|| format!("cargo did not build {}", built.display()))?;
    require_btf(&bytes).with_context(|| format!("{} is of no use", built.display()))?;
    let (object, with_debug) = (paths::object(), paths::object_with_debug_info());
    let changed = write_if_changed(&with_debug, &bytes, false)?;
    if changed || !object.is_file() {
        let stripped = match strip {
            Some(strip) => stripped(strip, &with_debug)?,
            None => {
                note(
                    "no llvm-strip beside the linker or on PATH: the object keeps its DWARF, it is only larger",
                );
                bytes
            }
        };
        require_btf(&stripped).context("llvm-strip removed the BTF")?;
        write_if_changed(&object, &stripped, false)?;
    }
    let size = object.metadata()?.len();
    let state = if changed { "" } else { ", unchanged" };
    note(format_args!(
        "{} ({size} bytes{state}; with DWARF beside it)",
        object.display()
    ));
    Ok(())
}

fn stripped(strip: &Path, object: &Path) -> Result<Vec<u8>> {
    let out = object.with_extension("stripped");
    Cmd::new(strip).arg("-g").arg("-o").arg(&out).arg(object).run()?;
    let bytes = std::fs::read(&out)?;
    std::fs::remove_file(&out)?;
    Ok(bytes)
}

/// The loader, `bpftool` and the tests read maps by their BTF: an object without it is a mistake of the build.
fn require_btf(object: &[u8]) -> Result<()> {
    let has = |name: &[u8]| object.windows(name.len()).any(|window| window == name);
    // Section names stand in a string table, each ended by a zero byte.
    if !object.starts_with(b"\x7fELF") || !has(b".BTF\0") {
        bail!("it is no ELF object with a .BTF section");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_without_btf_is_refused() {
        require_btf(b"\x7fELF....\0.BTF\0.BTF.ext\0").unwrap();
        assert!(require_btf(b"\x7fELF....\0.text\0.BTFX").is_err());
        assert!(require_btf(b"").is_err());
    }
}
