//! Which integration tests there are, and which of them need root.
//!
//! A test file that needs privilege says so in its `//!` header with the words "needs root".

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::paths;

/// One integration test program: `tests/name.rs` or `tests/name/main.rs` of a crate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Suite {
    /// Cargo's name of it.
    pub name: String,
    /// Whether its header says that it needs root.
    pub privileged: bool,
}

/// Finds the integration tests of all crates of the workspace.
///
/// # Errors
///
/// When a folder or file can't be read.
pub fn discover() -> Result<Vec<Suite>> {
    let mut suites = Vec::new();
    for member in entries(&paths::root())? {
        let tests = member.join("tests");
        // The eBPF crate is no member: it has no tests that run on a host.
        if member != paths::ebpf_crate() && member.join("Cargo.toml").is_file() && tests.is_dir() {
            for entry in entries(&tests)? {
                suites.extend(suite(&entry)?);
            }
        }
    }
    suites.sort();
    Ok(suites)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let read = || {
        std::fs::read_dir(dir)?
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<Vec<_>>>()
    };
    read().with_context(|| format!("can't read the folder {}", dir.display()))
}

fn suite(entry: &Path) -> Result<Option<Suite>> {
    let main = if entry.is_dir() {
        entry.join("main.rs")
    } else {
        entry.to_owned()
    };
    let name = entry.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let (true, true, Some(name)) = (
        main.is_file(),
        main.extension().is_some_and(|ext| ext == "rs"),
        name,
    ) else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(&main).with_context(|| format!("can't read {}", main.display()))?;
    Ok(Some(Suite {
        name,
        privileged: needs_root(&text),
    }))
}

fn needs_root(source: &str) -> bool {
    let header = source
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .map(str::trim)
        .collect::<Vec<_>>();
    header.join(" ").to_lowercase().contains("needs root")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_says_who_needs_root() {
        assert!(needs_root(
            "//! Attaches programs.\n//!\n//! Needs\n//! root.\nuse x;\n"
        ));
        assert!(!needs_root("//! Parses text.\nfn f() {} // needs root\n"));
        assert!(!needs_root(""));
    }

    #[test]
    fn the_suites_of_this_workspace_are_found() {
        let suites = discover().unwrap();
        let layout = suites
            .iter()
            .find(|suite| suite.name == "layout")
            .expect("exposer-common/tests/layout.rs");
        assert!(!layout.privileged);
        assert!(
            suites.iter().any(|suite| suite.privileged),
            "the namespace tests need root, and say so"
        );
    }
}
