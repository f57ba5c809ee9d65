//! `cargo xtask build`: the kernel programs, then the binaries that carry them.

use std::process::ExitCode;

use anyhow::Result;

use crate::build_ebpf;
use crate::command::{Cmd, note, step};
use crate::paths;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Build with optimizations, for installation.
    #[arg(long)]
    release: bool,
    #[command(flatten)]
    ebpf: build_ebpf::Options,
}

/// Builds kernel programs and binaries.
///
/// # Errors
///
/// When something does not build.
pub fn run(options: &Options) -> Result<ExitCode> {
    build_ebpf::build(&options.ebpf)?;
    let dir = if options.release {
        products_for_release()?;
        "release"
    } else {
        binaries_for_tests()?;
        "debug"
    };
    for name in PRODUCTS {
        note(paths::target().join(dir).join(name).display());
    }
    Ok(ExitCode::SUCCESS)
}

/// The programs that are installed somewhere.
pub const PRODUCTS: &[&str] = &["exposer-edge", "exposer-agent"];

/// Every binary of the workspace with debug assertions, as tests and demo run them.
///
/// # Errors
///
/// When something does not build.
pub fn binaries_for_tests() -> Result<()> {
    step("building the binaries");
    cargo().args(["build", "--workspace", "--bins"]).run()
}

/// The products alone, so that no test library takes part in choosing the features of their dependencies.
///
/// # Errors
///
/// When something does not build.
pub fn products_for_release() -> Result<()> {
    step("building the binaries, optimized (some minutes the first time)");
    cargo()
        .args(["build", "--release"])
        .args(PRODUCTS.iter().flat_map(|name| ["-p", name]))
        .run()
}

/// cargo in the workspace, with the object that the edge embeds.
pub fn cargo() -> Cmd {
    Cmd::cargo()
        .dir(paths::root())
        .env("EXPOSER_EBPF_OBJECT", paths::object())
}
