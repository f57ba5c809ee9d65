//! Puts the kernel programs' object where `datapath::kernel::object` embeds it from.
//!
//! The object is built by `cargo xtask build-ebpf`, not here: a `cargo check` of the edge must need no second compiler.
//! It is the file that `EXPOSER_EBPF_OBJECT` names (`.cargo/config.toml` sets it to `target/bpf/exposer-ebpf.o`). Where
//! that default has not been built, the edge carries an empty object, and says so when it is asked for the kernel path.

use std::fs::{self, File, FileTimes};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

const VARIABLE: &str = "EXPOSER_EBPF_OBJECT";

fn main() -> ExitCode {
    match embed() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={error}");
            ExitCode::FAILURE
        }
    }
}

fn embed() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let default = default_object()?;
    let object = std::env::var_os(VARIABLE).map_or_else(|| default.clone(), PathBuf::from);
    let bytes = match fs::read(&object) {
        Ok(bytes) => {
            println!("cargo::rerun-if-changed={}", object.display());
            bytes
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_default(&object) => {
            watch_for(&object)?;
            Vec::new()
        }
        Err(error) => {
            let path = object.display();
            return Err(io::Error::other(format!(
                "{VARIABLE} names {path}, which can't be read: {error}"
            )));
        }
    };
    let out = std::env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo sets no OUT_DIR"))?;
    fs::write(Path::new(&out).join("exposer-ebpf.o"), bytes)
}

fn default_object() -> io::Result<PathBuf> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .ok_or_else(|| io::Error::other("cargo sets no manifest folder"))?;
    Ok(Path::new(&manifest).join("../target/bpf/exposer-ebpf.o"))
}

/// Whether a path is the place where xtask puts the object, in whatever target folder.
fn is_default(object: &Path) -> bool {
    object.ends_with("bpf/exposer-ebpf.o")
}

/// Makes cargo come back when the object appears. A missing file counts as changed for ever, so its folder is watched;
/// and where the folder is made here, it is dated back, else it would count as changed after this run.
fn watch_for(object: &Path) -> io::Result<()> {
    let folder = object.parent().unwrap_or(object);
    if !folder.is_dir() {
        fs::create_dir_all(folder)?;
        File::open(folder)?.set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH))?;
    }
    println!("cargo::rerun-if-changed={}", folder.display());
    Ok(())
}
