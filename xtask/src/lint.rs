//! `cargo xtask lint`: formatting, clippy for the host and for the kernel programs, docs, house rules, dependencies.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use crate::command::{Cmd, note, step};
use crate::files::find_program;
use crate::toolchain::Toolchain;
use crate::{build_ebpf, house, paths};

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    ebpf: build_ebpf::Options,
}

/// Runs every check, also after one has failed, and sums up.
///
/// # Errors
///
/// When the checkout can't be read; a check that fails is no error but a failing exit status.
pub fn run(options: &Options) -> Result<ExitCode> {
    let checks: [(&str, &dyn Fn() -> Result<()>); 8] = [
        ("Cargo.lock is up to date", &lock_files),
        ("formatting", &formatting),
        ("house rules", &house::check),
        ("clippy, host crates", &|| {
            clippy(&["--workspace", "--all-targets", "--all-features"])
        }),
        ("clippy, exposer-common as no_std", &no_std),
        ("clippy, kernel programs", &|| kernel_programs(options)),
        ("documentation", &documentation),
        ("dependencies (cargo deny)", &dependencies),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        step(name);
        if let Err(error) = check() {
            eprintln!("{error:#}");
            failed.push(name);
        }
    }
    if failed.is_empty() {
        step("lint: clean");
        return Ok(ExitCode::SUCCESS);
    }
    step(format_args!("lint: NOT clean: {}", failed.join("; ")));
    Ok(ExitCode::FAILURE)
}

fn cargo() -> Cmd {
    Cmd::cargo().dir(paths::root())
}

/// The manifests that are workspaces of their own.
fn manifests() -> Result<Vec<PathBuf>> {
    let mut found = vec![
        paths::root().join("Cargo.toml"),
        paths::ebpf_crate().join("Cargo.toml"),
    ];
    for entry in std::fs::read_dir(paths::root())? {
        found.push(entry?.path().join("fuzz/Cargo.toml"));
    }
    found.retain(|manifest| manifest.is_file());
    Ok(found)
}

fn lock_files() -> Result<()> {
    for manifest in manifests()?
        .iter()
        .filter(|manifest| manifest.with_file_name("Cargo.lock").is_file())
    {
        let cmd = cargo()
            .args(["metadata", "--locked", "--format-version", "1", "--manifest-path"])
            .arg(manifest);
        cmd.read().with_context(|| {
            format!(
                "{} does not fit its Cargo.toml",
                manifest.with_file_name("Cargo.lock").display()
            )
        })?;
    }
    Ok(())
}

fn formatting() -> Result<()> {
    require("cargo-fmt", "rustfmt")?;
    let mut failures = 0;
    for manifest in manifests()? {
        let cmd = cargo()
            .args(["fmt", "--all", "--check", "--manifest-path"])
            .arg(&manifest);
        failures += u32::from(!cmd.status()?.success());
    }
    if failures > 0 {
        bail!(
            "not formatted: run `cargo fmt --all`, and the same with --manifest-path for the crates outside the workspace"
        );
    }
    Ok(())
}

fn clippy(selection: &[&str]) -> Result<()> {
    require("cargo-clippy", "clippy")?;
    cargo()
        .arg("clippy")
        .args(selection)
        .args(["--", "-D", "warnings"])
        .run()
}

/// The shared crate as the kernel programs take it.
fn no_std() -> Result<()> {
    clippy(&["-p", "exposer-common", "--lib", "--no-default-features"])
}

/// A run of its own: built together with the host crates, features would be unified (and aya-ebpf exports a `memcpy`).
fn kernel_programs(options: &Options) -> Result<()> {
    let toolchain = Toolchain::provide(options.ebpf.toolchain)?;
    let Some(cmd) = toolchain.clippy(&paths::target().join("bpf-lint")) else {
        bail!("this toolchain has no clippy: run `rustup component add clippy`, or use --toolchain debian");
    };
    note("by the clippy of that toolchain, for the BPF target");
    cmd.run()
}

fn documentation() -> Result<()> {
    cargo()
        .args(["doc", "--no-deps", "--workspace", "--all-features", "--quiet"])
        .env("RUSTDOCFLAGS", "-Dwarnings")
        .run()
}

fn dependencies() -> Result<()> {
    if find_program("cargo-deny").is_none() {
        note("NOT RUN: cargo-deny is not on this machine (cargo install --locked cargo-deny)");
        return Ok(());
    }
    // What is shipped, that is; fuzz targets are not.
    for manifest in [paths::root(), paths::ebpf_crate()].map(|dir| dir.join("Cargo.toml")) {
        deny(&manifest).args(["bans", "licenses", "sources"]).run()?;
        advisories(&deny(&manifest).arg("advisories"))?;
    }
    Ok(())
}

fn deny(manifest: &Path) -> Cmd {
    cargo()
        .args(["deny", "--all-features", "--manifest-path"])
        .arg(manifest)
        .arg("--config")
        .arg(paths::root().join("deny.toml"))
        // An exception for a crate of the other workspace is no mistake.
        .args([
            "check",
            "--hide-inclusion-graph",
            "--allow",
            "license-exception-not-encountered",
        ])
}

/// Known vulnerabilities. Their database comes from GitHub; where that can't be reached, nothing can be said.
fn advisories(cmd: &Cmd) -> Result<()> {
    let output = cmd.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        note("no known vulnerability");
    } else if said.contains("failed to fetch advisory database") {
        note("NOT RUN: the advisory database can't be fetched from here");
    } else {
        bail!("this command failed ({}):\n  {cmd}\n{said}", output.status);
    }
    Ok(())
}

fn require(program: &str, component: &str) -> Result<()> {
    if find_program(program).is_none() {
        bail!("`{program}` is not on this machine; run: rustup component add {component}");
    }
    Ok(())
}
