//! The programs that the tests and the demo call: where they are, and what to do where they are not.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, bail};

/// Folders that are searched after `PATH`: a plain user's path often lacks them.
const SYSTEM_FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// Where the program `name` is.
///
/// # Errors
///
/// It is nowhere: the text says how to get it.
pub fn find(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(SYSTEM_FOLDERS.iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| is_executable(candidate));
    match found {
        Some(path) => Ok(path),
        None => bail!("`{name}` is not on the PATH. {}", advice(name)),
    }
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn advice(name: &str) -> &'static str {
    match name {
        "wireguard-go" | "wg" | "bpftool" => {
            "Run this through `cargo xtask test` or `cargo xtask demo`, which provide it under target/ without \
             installing anything, or install Debian's packages: apt install wireguard-tools wireguard-go bpftool"
        }
        "ip" => "Install Debian's package: apt install iproute2",
        "nsenter" | "unshare" => "Install Debian's package: apt install util-linux",
        _ => "Install it, or run this through `cargo xtask test` or `cargo xtask demo`.",
    }
}

/// Runs a command to its end and returns what it printed.
///
/// # Errors
///
/// It cannot be started, or it failed: the text then holds the whole command and all that it printed.
pub fn run(command: &mut Command) -> Result<Output> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {}", show(command)))?;
    if !output.status.success() {
        bail!(
            "{} failed ({})\n{}{}",
            show(command),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(output)
}

/// Runs a command to its end and returns its standard output as text.
///
/// # Errors
///
/// As [`run`].
pub fn stdout(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&run(command)?.stdout).into_owned())
}

/// The command line as a person would type it.
#[must_use]
pub fn show(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_says_how_to_get_it() {
        let error = find("no-such-tool-of-exposer").unwrap_err().to_string();
        assert!(
            error.contains("no-such-tool-of-exposer") && error.contains("xtask"),
            "{error}"
        );
        assert!(find("sh").is_ok());
    }

    #[test]
    fn a_failed_command_is_shown_whole() {
        let error = run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]))
            .unwrap_err()
            .to_string();
        for part in ["sh -c", "exit status: 3", "out", "err"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
