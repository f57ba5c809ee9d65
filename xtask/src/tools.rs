//! `cargo xtask tools`: the programs that tests and demo call, from PATH or unpacked below target/tools.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::command::{Cmd, step};
use crate::debian::{Archive, Unpacked, Wanted};
use crate::files::{find_program, is_executable};
use crate::paths;
use crate::stamp::Stamp;

/// A program that is needed, and the Debian package that has it.
struct Tool {
    name: &'static str,
    package: &'static str,
    /// What makes it print its version and end with status 0.
    version: &'static str,
}

const TOOLS: &[Tool] = &[
    Tool {
        name: "wireguard-go",
        package: "wireguard-go",
        version: "--version",
    },
    Tool {
        name: "wg",
        package: "wireguard-tools",
        version: "--version",
    },
    Tool {
        name: "bpftool",
        package: "bpftool",
        version: "version",
    },
    Tool {
        name: "nft",
        package: "nftables",
        version: "--version",
    },
    Tool {
        name: "ip",
        package: "iproute2",
        version: "-V",
    },
    Tool {
        name: "tc",
        package: "iproute2",
        version: "-V",
    },
    Tool {
        name: "ethtool",
        package: "ethtool",
        version: "--version",
    },
];

/// A tool that runs.
pub struct Found {
    /// Its name.
    pub name: &'static str,
    /// The program itself, where `file` may be a wrapper.
    pub program: PathBuf,
    /// Folders with the libraries that it needs beside the system's, as a value for `LD_LIBRARY_PATH`; may be empty.
    pub libraries: String,
    file: PathBuf,
    version: String,
    origin: String,
}

/// Prints which tool comes from where.
///
/// # Errors
///
/// When a tool is nowhere and can't be unpacked.
pub fn run() -> Result<ExitCode> {
    let found = provide_all()?;
    let width = |column: fn(&Found) -> &str| found.iter().map(|one| column(one).len()).max().unwrap_or(0);
    let (names, versions) = (width(|one| one.name), width(|one| &one.version));
    for Found {
        name,
        file,
        version,
        origin,
        ..
    } in &found
    {
        println!("{name:names$}  {version:versions$}  {origin}: {}", file.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Provides every tool and returns the search path by which children find them.
///
/// # Errors
///
/// As [`run`].
pub fn provide() -> Result<std::ffi::OsString> {
    provide_all()?;
    Ok(paths::path_with(&bin()))
}

/// The folder with a wrapper or a link for each tool that is not on PATH.
fn bin() -> PathBuf {
    paths::cache().join("tools/bin")
}

/// Provides every tool and returns them, with what they are made of.
///
/// # Errors
///
/// As [`run`].
pub fn provide_all() -> Result<Vec<Found>> {
    let dir = paths::cache().join("tools");
    let _lock = paths::lock(&dir)?;
    let mut found: Vec<_> = TOOLS.iter().filter_map(on_machine).collect();
    let missing: Vec<_> = TOOLS
        .iter()
        .filter(|tool| !found.iter().any(|one| one.name == tool.name))
        .collect();
    if !missing.is_empty() {
        let root = unpack(&missing, &dir)?;
        for tool in missing {
            let program = unpacked_program(&root, tool)?;
            let file = root.wrap(&bin(), tool.name, &program, &[])?;
            let version = version(&file, tool)?;
            found.push(Found {
                name: tool.name,
                program,
                libraries: root.library_path(&[]),
                file,
                version,
                origin: format!("Debian's {}, unpacked", tool.package),
            });
        }
    }
    Ok(found)
}

/// The tool as the machine has it, if it has one that runs (Ubuntu's bpftool, for one, is a script that needs the
/// running kernel's own package).
fn on_machine(tool: &Tool) -> Option<Found> {
    // What was provided by an earlier run, perhaps of another checkout, is not the machine's.
    let file = find_program(tool.name).filter(|file| !file.starts_with(bin()))?;
    let version = version(&file, tool).ok()?;
    if on_path(&file) {
        // What an earlier run put there must not stand before it.
        let _ = std::fs::remove_file(bin().join(tool.name));
    } else {
        link(&file, tool.name).ok()?;
    }
    Some(Found {
        name: tool.name,
        program: file.clone(),
        libraries: String::new(),
        file,
        version,
        origin: "this machine".to_owned(),
    })
}

fn on_path(file: &Path) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| Some(dir.as_path()) == file.parent())
}

fn link(file: &Path, name: &str) -> Result<()> {
    let link = bin().join(name);
    std::fs::create_dir_all(bin())?;
    if std::fs::read_link(&link).is_ok_and(|old| old == file) {
        return Ok(());
    }
    // A wrapper may be in its place, from the time when the machine had no such tool.
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(file, &link).with_context(|| format!("can't make the link {}", link.display()))
}

/// Unpacks the packages of the missing tools, or returns the folder as it is if it holds just these.
fn unpack(missing: &[&Tool], dir: &Path) -> Result<Unpacked> {
    let dir = dir.join("debian");
    std::fs::create_dir_all(&dir)?;
    let mut packages: Vec<_> = missing.iter().map(|tool| tool.package).collect();
    packages.dedup();
    let root = dir.join("root");
    let stamp = Stamp::new(&dir, &packages);
    if stamp.holds() {
        return Ok(Unpacked { root });
    }
    let names: Vec<_> = missing.iter().map(|tool| tool.name).collect();
    step(format_args!(
        "providing {} in {} (once; nothing is installed)",
        names.join(", "),
        dir.display()
    ));
    let advice = || {
        format!(
            "{} not on this machine; install: {}",
            names.join(", "),
            packages.join(" ")
        )
    };
    let archive = Archive::open().with_context(advice)?;
    let wanted: Vec<_> = packages
        .iter()
        .map(|package| Wanted::with_libraries(package))
        .collect();
    let plan = archive.plan(&wanted).with_context(advice)?;
    stamp.clear()?;
    let unpacked = archive.unpack(&plan, &root)?;
    stamp.set()?;
    Ok(unpacked)
}

/// Where a package has put its program: releases of Debian differ in what they keep out of /usr.
fn unpacked_program(root: &Unpacked, tool: &Tool) -> Result<PathBuf> {
    ["usr/bin", "usr/sbin", "bin", "sbin"]
        .iter()
        .map(|dir| root.root.join(dir).join(tool.name))
        .find(|file| is_executable(file))
        .with_context(|| format!("Debian's package {} has no program `{}`", tool.package, tool.name))
}

/// The first line that has a digit in it, of what the tool says of its version.
fn version(file: &Path, tool: &Tool) -> Result<String> {
    let text = Cmd::new(file).arg(tool.version).read()?;
    Ok(shorten(&text))
}

fn shorten(text: &str) -> String {
    let line = text
        .lines()
        .find(|line| line.chars().any(|c| c.is_ascii_digit()))
        .unwrap_or_default();
    let word = line
        .split([' ', ',', '-'])
        .map(|word| word.trim_start_matches('v'))
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    word.unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_tools_print_them() {
        for (text, version) in [
            (
                "wireguard-go v0.0.20220316\n\nUserspace WireGuard daemon for linux-amd64.\n",
                "0.0.20220316",
            ),
            (
                "wireguard-tools v1.0.20210914 - https://git.zx2c4.com/wireguard-tools/\n",
                "1.0.20210914",
            ),
            ("bpftool v7.1.0\nusing libbpf v1.1\n", "7.1.0"),
            ("nftables v1.0.6 (Lester Gooch #5)\n", "1.0.6"),
            ("ip utility, iproute2-6.1.0, libbpf 1.1.0\n", "6.1.0"),
            ("ethtool version 6.1\n", "6.1"),
            ("nothing\n", ""),
        ] {
            assert_eq!(shorten(text), version, "{text}");
        }
    }

    #[test]
    fn tools_of_one_package_stand_together() {
        let mut packages: Vec<_> = TOOLS.iter().map(|tool| tool.package).collect();
        packages.dedup();
        let all = packages.len();
        packages.sort_unstable();
        packages.dedup();
        assert_eq!(packages.len(), all, "`dedup` in `unpack` relies on it");
    }
}
