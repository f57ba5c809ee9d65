//! The toolchain of the kernel programs: a compiler with its source, and a linker of the same LLVM.

mod debian;
mod linker;
pub mod pins;
mod rustup;
mod system;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::command::{Cmd, note, step};
use crate::paths;
use pins::RustcVersion;

/// The target of the kernel programs: BPF, little-endian as every machine that Exposer runs on.
pub const TARGET: &str = "bpfel-unknown-none";

/// Where the toolchain may come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    /// One that is there, else Debian's packages unpacked below target/; never rustup.
    #[default]
    Auto,
    /// Only one that is there: rustc with rust-src, and bpf-linker on PATH.
    System,
    /// Debian's packages, unpacked below target/toolchain without root; nothing is installed system-wide.
    Debian,
    /// The pinned toolchain with rust-src, installed by rustup.
    Rustup,
}

/// A toolchain that builds the kernel programs.
pub struct Toolchain {
    /// Where it came from, for people.
    pub origin: String,
    /// The compiler, or a wrapper of it.
    pub rustc: PathBuf,
    /// What the compiler says of itself.
    pub version: RustcVersion,
    /// bpf-linker, or a wrapper of it.
    pub linker: PathBuf,
    /// clippy of exactly this compiler.
    pub clippy: Option<PathBuf>,
    /// `llvm-strip`, which removes DWARF and keeps BTF.
    pub strip: Option<PathBuf>,
}

impl Toolchain {
    /// Provides a toolchain, and says which.
    ///
    /// # Errors
    ///
    /// When there is none; the text says, route by route, why not and what to install.
    pub fn provide(choice: Choice) -> Result<Self> {
        let toolchain = match choice {
            Choice::System => system::find(),
            Choice::Debian => debian::provide(),
            Choice::Rustup => rustup::provide(),
            Choice::Auto => auto(),
        }?;
        step(format_args!("eBPF toolchain: {}", toolchain.origin));
        note(format_args!(
            "rustc {} (LLVM {}), {}",
            toolchain.version.release,
            toolchain.version.llvm,
            Cmd::new(&toolchain.linker).arg("--version").read()?.trim()
        ));
        Ok(toolchain)
    }

    /// clippy on the eBPF crate, by the driver of exactly this compiler; `None` where the toolchain has no clippy.
    pub fn clippy(&self, target_dir: &Path) -> Option<Cmd> {
        // What `cargo clippy` does, except that it would look for the driver beside cargo.
        let driver = self.clippy.as_ref()?;
        let cmd = self
            .cargo("check", target_dir)
            .env("RUSTC_WORKSPACE_WRAPPER", driver);
        Some(cmd.env("CLIPPY_ARGS", "-Dwarnings"))
    }

    /// cargo in the eBPF crate with this toolchain: `verb`, for the BPF target, with `core` built from source.
    pub fn cargo(&self, verb: &str, target_dir: &Path) -> Cmd {
        let flags = [
            "-Cdebuginfo=2".to_owned(),
            "-Clink-arg=--btf".to_owned(),
            format!("-Clinker={}", self.linker.display()),
            // BTF names source files: relative to the checkout they are short, and the same wherever it was built.
            format!("--remap-path-prefix={}=.", paths::root().display()),
            format!("--remap-path-prefix={}=cargo", paths::cargo_home().display()),
            format!("--remap-path-prefix={}=./target", paths::cache().display()),
        ];
        let mut cmd = Cmd::cargo()
            .args([
                verb,
                "--release",
                "-Z",
                "build-std=core",
                "--target",
                TARGET,
                "--target-dir",
            ])
            .arg(target_dir)
            .dir(paths::ebpf_crate())
            .env("RUSTC", &self.rustc)
            // build-std is an unstable flag of cargo, and the programs use two unstable features of the compiler.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
        for variable in FOREIGN {
            cmd = cmd.env_remove(variable);
        }
        cmd
    }
}

/// Variables that would bring another compiler, target or folder into a build that has its own.
pub const FOREIGN: &[&str] = &[
    "RUSTFLAGS",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_RUSTFLAGS",
];

fn auto() -> Result<Toolchain> {
    let system = match system::find() {
        Ok(toolchain) => return Ok(toolchain),
        Err(error) => error,
    };
    note(format_args!(
        "no eBPF toolchain that is there already fits: {system:#}"
    ));
    debian::provide().map_err(|debian| {
        anyhow::anyhow!(
            "there is no toolchain for the kernel programs.\n\
             - what is there does not fit: {system:#}\n\
             - Debian's packages can't be used: {debian:#}\n\
             Install either of these, then run this again:\n\
             - rustc {}.{} or later with its source (rust-src), and bpf-linker {} of the same LLVM on PATH\n\
             - or let rustup install them: cargo xtask build-ebpf --toolchain rustup",
            pins::OLDEST_RUSTC.0,
            pins::OLDEST_RUSTC.1,
            pins::BPF_LINKER
        )
    })
}

/// Asks a compiler for its version, and checks it.
///
/// # Errors
///
/// When it does not run or is too old.
fn version_of(rustc: &Path) -> Result<RustcVersion> {
    let text = Cmd::new(rustc)
        .arg("-vV")
        .env("RUSTUP_AUTO_INSTALL", "0")
        .read()?;
    let version =
        RustcVersion::parse(&text).with_context(|| format!("{} -vV is not understood", rustc.display()))?;
    version.check()?;
    Ok(version)
}

/// The compiler of a sysroot that holds the source of `core`, with what stands beside it.
fn from_sysroot(
    sysroot: &Path,
    origin: &str,
    linker: impl FnOnce(u32) -> Result<PathBuf>,
) -> Result<Toolchain> {
    if !sysroot
        .join("lib/rustlib/src/rust/library/core/src/lib.rs")
        .is_file()
    {
        bail!(
            "rustc at {} has no source of `core` (rust-src)",
            sysroot.display()
        );
    }
    let rustc = sysroot.join("bin/rustc");
    let version = version_of(&rustc)?;
    let llvm = version
        .llvm_major()
        .with_context(|| format!("rustc's LLVM `{}` is not understood", version.llvm))?;
    let linker = linker(llvm)?;
    let beside =
        |name: &str| Some(sysroot.join("bin").join(name)).filter(|file| crate::files::is_executable(file));
    Ok(Toolchain {
        origin: format!("{origin} ({})", sysroot.display()),
        clippy: beside("clippy-driver"),
        strip: linker::strip_of(&linker, llvm),
        rustc,
        version,
        linker,
    })
}
