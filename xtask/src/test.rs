//! `cargo xtask test`: provides all that the tests need, runs them, and ends with a true count.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::process::{ExitCode, Stdio};

use anyhow::{Context as _, Result};

use crate::command::{Cmd, note, step};
use crate::counts::{Counts, Reader, listed};
use crate::suites::{self, Suite};
use crate::{build, build_ebpf, paths, preflight, tools};

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Run only the tests whose name contains this.
    filter: Option<String>,
    /// Leave out the test programs that need root (they are counted as skipped).
    #[arg(long)]
    unprivileged: bool,
    #[command(flatten)]
    ebpf: build_ebpf::Options,
}

/// Runs the tests.
///
/// # Errors
///
/// When the machine lacks something, or something does not build. A failed test is no error but a failing exit status.
pub fn run(options: &Options) -> Result<ExitCode> {
    if !options.unprivileged {
        preflight::check(
            "test",
            "\nor leave out what needs it: cargo xtask test --unprivileged",
        )?;
    }
    build_ebpf::build(&options.ebpf)?;
    let path = if options.unprivileged {
        std::env::var_os("PATH").unwrap_or_default()
    } else {
        tools::provide()?
    };
    step("building the binaries and the tests");
    // With the very flags of the runs below, so that nothing is built twice. The binaries land in target/debug.
    cargo_test(&path).arg("--no-run").run()?;
    let counts = if options.unprivileged {
        unprivileged(options, &path)?
    } else {
        everything(options, &path)?
    };
    let nothing = counts == Counts::default();
    if nothing && let Some(filter) = &options.filter {
        note(format_args!("no test's name contains `{filter}`"));
    }
    // The last line, on standard output, in this very form: scripts read it.
    println!("{counts}");
    Ok(if counts.failed == 0 && !nothing {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn everything(options: &Options, path: &OsString) -> Result<Counts> {
    step("running all tests");
    stream(&cargo_test(path).args(&options.filter))
}

fn unprivileged(options: &Options, path: &OsString) -> Result<Counts> {
    let (privileged, others): (Vec<Suite>, Vec<Suite>) = suites::discover()?
        .into_iter()
        .partition(|suite| suite.privileged);
    step("running the tests that need no root");
    let mut counts = stream(
        &cargo_test(path)
            .args(["--lib", "--bins"])
            .args(selected(&others))
            .args(&options.filter),
    )?;
    counts += stream(&cargo_test(path).arg("--doc").args(&options.filter))?;
    if !privileged.is_empty() {
        let left_out = cargo_test(path)
            .args(selected(&privileged))
            .args(&options.filter)
            .args(["--", "--list"])
            .read()?;
        counts.skipped += listed(&left_out);
        let names: Vec<_> = privileged.iter().map(|suite| suite.name.as_str()).collect();
        note(format_args!(
            "left out, because they need root: {}",
            names.join(", ")
        ));
    }
    Ok(counts)
}

fn selected(suites: &[Suite]) -> impl Iterator<Item = &str> {
    suites.iter().flat_map(|suite| ["--test", suite.name.as_str()])
}

/// `cargo test` for the whole workspace, with what the tests read from their environment.
fn cargo_test(path: &OsString) -> Cmd {
    environment(build::cargo(), path).args(["test", "--workspace", "--all-features", "--no-fail-fast"])
}

/// What tests and demo read: the object (set by [`build::cargo`]), the folder of the binaries, the tools.
pub fn environment(cmd: Cmd, path: &OsString) -> Cmd {
    cmd.env("EXPOSER_BIN_DIR", paths::target().join("debug"))
        .env("PATH", path)
}

/// Runs `cargo test`, passing on what it prints as it comes, and counts the results in it.
fn stream(cmd: &Cmd) -> Result<Counts> {
    let mut child = cmd
        .build()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't start:\n  {cmd}"))?;
    let mut pipe = child.stdout.take().context("the child has no standard output")?;
    let mut reader = Reader::default();
    let mut line = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        // In pieces, not in lines: a test's name is to be seen while it runs.
        let count = pipe.read(&mut buffer)?;
        let piece = buffer.get(..count).unwrap_or_default();
        if piece.is_empty() {
            break;
        }
        let mut out = std::io::stdout().lock();
        out.write_all(piece)?;
        out.flush()?;
        for byte in piece {
            line.push(*byte);
            if *byte == b'\n' {
                reader.line(&String::from_utf8_lossy(&line));
                line.clear();
            }
        }
    }
    reader.line(&String::from_utf8_lossy(&line));
    let status = child.wait()?;
    let (counts, remark) = reader.finish(status.success());
    if let Some(remark) = remark {
        note(format_args!("{remark} ({status}):\n      {cmd}"));
    }
    Ok(counts)
}
