//! The route without root: Debian's compiler, its source and its LLVM, unpacked into a folder below target/.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::{Toolchain, linker, pins, version_of};
use crate::command::{note, step};
use crate::debian::{Archive, MovedOn, Plan, Unpacked, Wanted};
use crate::paths;
use crate::stamp::Stamp;

/// Provides the toolchain in its folder; what is there from an earlier run and still fits is used as it is.
///
/// # Errors
///
/// When this is no Debian, its archive can't be reached, or compiler and linker do not fit each other.
pub fn provide() -> Result<Toolchain> {
    let dir = paths::cache().join("toolchain/debian");
    let _lock = paths::lock(&dir)?;
    let stamp = Stamp::new(&dir, &[pins::DEBIAN_RUST, pins::DEBIAN_LLVM, pins::BPF_LINKER]);
    if stamp.holds() {
        match assemble(&dir) {
            Ok(toolchain) => return Ok(toolchain),
            Err(error) => note(format_args!(
                "{} is damaged and is made again: {error:#}",
                dir.display()
            )),
        }
    }
    step(format_args!(
        "providing an eBPF toolchain in {} (once, 1.4 GB; nothing is installed)",
        dir.display()
    ));
    let archive = Archive::open()?;
    let rust = archive.plan(&rust_packages())?;
    let llvm = llvm_of(&rust)?;
    linker::check_llvm(llvm)?;
    let plan = archive.plan(&[rust_packages(), llvm_packages(llvm)].concat())?;
    report_moved_on(&plan.moved_on, llvm);
    stamp.clear()?;
    let unpacked = archive.unpack(&plan, &dir.join("root"))?;
    wrap_compiler(&unpacked, &dir, llvm)?;
    wrap_linker(&unpacked, &dir, llvm)?;
    let toolchain = assemble(&dir)?;
    if toolchain.version.llvm_major() != Some(llvm) {
        bail!(
            "Debian's rustc has LLVM {}, but its packages depend on LLVM {llvm}",
            toolchain.version.llvm
        );
    }
    stamp.set()?;
    Ok(toolchain)
}

/// A bpf-linker of Debian's LLVM `llvm`, for a compiler that came by another way.
///
/// # Errors
///
/// As [`provide`].
pub fn linker_for(llvm: u32) -> Result<PathBuf> {
    linker::check_llvm(llvm)?;
    let dir = paths::cache().join(format!("toolchain/llvm-{llvm}"));
    let _lock = paths::lock(&dir)?;
    let stamp = Stamp::new(&dir, &[pins::DEBIAN_LLVM, pins::BPF_LINKER]);
    if !stamp.holds() {
        let archive = Archive::open()?;
        let plan = archive.plan(&llvm_packages(llvm))?;
        report_moved_on(&plan.moved_on, llvm);
        stamp.clear()?;
        let unpacked = archive.unpack(&plan, &dir.join("root"))?;
        wrap_linker(&unpacked, &dir, llvm)?;
        stamp.set()?;
    }
    Ok(dir.join("bin/bpf-linker"))
}

/// The compiler, its libraries for build scripts, its source for `core`, and its clippy.
fn rust_packages() -> Vec<Wanted> {
    vec![
        Wanted::with_libraries("rustc-web").pinned(pins::DEBIAN_RUST),
        Wanted::with_libraries("libstd-rust-web-dev").pinned(pins::DEBIAN_RUST),
        Wanted::alone("rust-web-src").pinned(pins::DEBIAN_RUST),
        Wanted::alone("rust-web-clippy").pinned(pins::DEBIAN_RUST),
    ]
}

/// LLVM to link with (`-dev`), its library even where the machine has it (the folder must stand alone), and llvm-strip.
fn llvm_packages(llvm: u32) -> Vec<Wanted> {
    vec![
        Wanted::with_libraries(&format!("libllvm{llvm}")).pinned(pins::DEBIAN_LLVM),
        Wanted::alone(&format!("llvm-{llvm}-dev")).pinned(pins::DEBIAN_LLVM),
        Wanted::alone(&format!("llvm-{llvm}")).pinned(pins::DEBIAN_LLVM),
    ]
}

/// The LLVM major that the compiler's packages depend on.
fn llvm_of(plan: &Plan) -> Result<u32> {
    plan.packages
        .iter()
        .flat_map(|package| package.depends.iter().flatten())
        .find_map(|dependency| pins::llvm_major_of_package(&dependency.name))
        .context("Debian's rustc-web packages name no LLVM; the pinned versions must be looked at anew")
}

fn report_moved_on(moved_on: &[MovedOn], llvm: u32) {
    if moved_on.is_empty() {
        return;
    }
    note("Debian has moved on from the versions that were tried:");
    for MovedOn { name, tried, present } in moved_on {
        note(format_args!("  {name}: tried {tried}, present {present}"));
    }
    note(format_args!(
        "going on with what is there: compiler and linker agree on LLVM {llvm}"
    ));
}

fn llvm_libraries(root: &Unpacked, llvm: u32) -> Vec<PathBuf> {
    vec![root.root.join(format!("usr/lib/llvm-{llvm}/lib"))]
}

fn wrap_compiler(root: &Unpacked, dir: &Path, llvm: u32) -> Result<()> {
    for name in ["rustc", "clippy-driver"] {
        root.wrap(
            &dir.join("bin"),
            name,
            &root.root.join("usr/bin").join(name),
            &llvm_libraries(root, llvm),
        )?;
    }
    Ok(())
}

fn wrap_linker(root: &Unpacked, dir: &Path, llvm: u32) -> Result<()> {
    let bin = dir.join("bin");
    for name in ["llvm-strip", "llvm-objdump"] {
        let program = root.root.join(format!("usr/lib/llvm-{llvm}/bin/{name}"));
        root.wrap(&bin, name, &program, &llvm_libraries(root, llvm))?;
    }
    let linker = linker::install(root, llvm, &dir.join("linker"))?;
    root.wrap(&bin, "bpf-linker", &linker, &llvm_libraries(root, llvm))?;
    Ok(())
}

fn assemble(dir: &Path) -> Result<Toolchain> {
    let bin = dir.join("bin");
    let rustc = bin.join("rustc");
    Ok(Toolchain {
        origin: format!("Debian's packages, unpacked in {}", dir.display()),
        version: version_of(&rustc)?,
        rustc,
        linker: bin.join("bpf-linker"),
        clippy: Some(bin.join("clippy-driver")),
        strip: Some(bin.join("llvm-strip")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::debian::Package;
    use crate::debian::control::parse_depends;

    fn plan(depends: &str) -> Plan {
        let package = Package {
            name: "libstd-rust-web-1.96".to_owned(),
            version: "1".to_owned(),
            size: 0,
            depends: parse_depends(depends),
        };
        Plan {
            packages: vec![package],
            moved_on: Vec::new(),
        }
    }

    #[test]
    fn the_llvm_of_the_compiler_is_derived_from_depends() {
        assert_eq!(
            llvm_of(&plan("libc6 (>= 2.34), libllvm23 (>= 1:23)")).unwrap(),
            23
        );
        assert!(llvm_of(&plan("libc6")).is_err());
        assert!(
            llvm_packages(23)
                .iter()
                .any(|wanted| wanted.name == "llvm-23-dev")
        );
    }
}
