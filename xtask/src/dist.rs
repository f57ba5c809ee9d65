//! `cargo xtask dist`: what is installed on a VPS and in a cluster, as one archive with checksums.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::build::{PRODUCTS, products_for_release};
use crate::command::{Cmd, note, step};
use crate::{build_ebpf, paths};

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    ebpf: build_ebpf::Options,
}

/// Files and folders of the checkout that go into the archive, where they are there.
const EXTRAS: &[&str] = &["deploy", "README.md", "CHANGELOG.md", "LICENSE"];

/// Builds the archive.
///
/// # Errors
///
/// When something does not build or can't be written.
pub fn run(options: &Options) -> Result<ExitCode> {
    build_ebpf::build(&options.ebpf)?;
    products_for_release()?;
    let name = format!(
        "exposer-{}-linux-{}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH
    );
    let dist = paths::target().join("dist");
    let folder = dist.join(&name);
    if dist.exists() {
        std::fs::remove_dir_all(&dist).with_context(|| format!("can't remove {}", dist.display()))?;
    }
    step(format_args!("packing {}", folder.display()));
    let bin = folder.join("bin");
    std::fs::create_dir_all(&bin)?;
    for product in PRODUCTS {
        let from = paths::target().join("release").join(product);
        std::fs::copy(&from, bin.join(product)).with_context(|| format!("can't copy {}", from.display()))?;
    }
    for extra in EXTRAS.iter().filter(|extra| paths::root().join(extra).exists()) {
        Cmd::new("cp")
            .args(["-R", "--no-dereference", "--"])
            .arg(paths::root().join(extra))
            .arg(&folder)
            .run()?;
    }
    checksums(&folder)?;
    let archive = format!("{name}.tar.gz");
    pack(&dist, &name, &archive)?;
    let sum = Cmd::new("sha256sum").arg(&archive).dir(&dist).read()?;
    std::fs::write(dist.join("SHA256SUMS"), sum)?;
    note(dist.join(archive).display());
    note(dist.join("SHA256SUMS").display());
    Ok(ExitCode::SUCCESS)
}

/// Writes `SHA256SUMS` of every file in the folder, in order of their names.
fn checksums(folder: &Path) -> Result<()> {
    let script = "find . -type f ! -name SHA256SUMS -print0 | LC_ALL=C sort -z | xargs -0 sha256sum";
    let sums = Cmd::new("sh").args(["-c", script]).dir(folder).read()?;
    std::fs::write(folder.join("SHA256SUMS"), sums)?;
    Ok(())
}

/// Packs the folder so that the same commit gives the same bytes: names in order, no owner, the commit's time.
fn pack(dist: &Path, name: &str, archive: &str) -> Result<()> {
    let commit_time = Cmd::new("git")
        .args(["log", "-1", "--format=%ct"])
        .dir(paths::root())
        .read();
    // A checkout without git (an unpacked source archive) has no commit; its archive then has a fixed time.
    let seconds = commit_time.map_or_else(|_| "0".to_owned(), |text| text.trim().to_owned());
    Cmd::new("tar")
        .args([
            "--sort=name",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            &format!("--mtime=@{seconds}"),
        ])
        .args(["-I", "gzip -n", "-cf", archive, name])
        .dir(dist)
        .run()
}
