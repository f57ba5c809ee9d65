//! Which tests a guest runs: every test of the suites that depend on the kernel, each in a process of its own.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use crate::build;
use crate::command::{Cmd, step};

/// The suites: programs of `tests/`. The table is last: two of its rows put times of up to a minute ago into maps, and
/// the clock of a kernel that has just booted does not reach back so far.
pub const SUITES: &[&str] = &[
    "kernel_attach",
    "kernel_path",
    "kernel_router",
    "control_app",
    "kernel_table",
];

/// Suites of which only a module depends on the kernel.
const ONLY: &[(&str, &str)] = &[("control_app", "kernel::")];

/// One test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story {
    /// The test program.
    pub suite: String,
    /// The test in it.
    pub name: String,
}

/// A built test program.
#[derive(Clone, Debug)]
pub struct Suite {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub program: PathBuf,
}

/// Builds the test programs, with the features that `cargo xtask test` builds them with, so that nothing is built twice.
///
/// # Errors
///
/// When something does not build.
pub fn build_suites() -> Result<Vec<Suite>> {
    step("building the tests");
    let cmd = build::cargo()
        .args(["test", "--workspace", "--all-features", "--no-run"])
        .args(["--message-format", "json-render-diagnostics"])
        .args(SUITES.iter().flat_map(|name| ["--test", name]));
    let mut child = cmd
        .build()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't start:\n  {cmd}"))?;
    let mut messages = String::new();
    child
        .stdout
        .take()
        .context("the child has no standard output")?
        .read_to_string(&mut messages)?;
    if !child.wait()?.success() {
        bail!("this command failed:\n  {cmd}");
    }
    SUITES
        .iter()
        .map(|name| {
            let program = messages
                .lines()
                .find_map(|line| executable_of(line, name))
                .with_context(|| format!("cargo did not say where the test program `{name}` is"))?;
            Ok(Suite {
                name: (*name).to_owned(),
                program,
            })
        })
        .collect()
}

/// The program in one of cargo's messages, if it is about the test `name` (cargo reference, "external tools"). The few
/// fields that are needed do not justify a JSON parser, which every newcomer would wait for.
fn executable_of(message: &str, name: &str) -> Option<PathBuf> {
    let field = |text: &str, key: &str| {
        let (_, rest) = text.split_once(&format!("\"{key}\":\""))?;
        rest.split('"').next().map(str::to_owned)
    };
    if !message.contains("\"reason\":\"compiler-artifact\"") {
        return None;
    }
    let (_, target) = message.split_once("\"kind\":[\"test\"]")?;
    (field(target, "name")? == name)
        .then(|| field(target, "executable"))?
        .map(PathBuf::from)
}

/// The tests of the suites whose name contains `filter`.
///
/// # Errors
///
/// When a test program can't list its tests, or none is left.
pub fn list(suites: &[Suite], filter: Option<&str>) -> Result<Vec<Story>> {
    let mut stories = Vec::new();
    for suite in suites {
        let text = Cmd::new(&suite.program)
            .args(["--list", "--format", "terse"])
            .read()?;
        stories.extend(
            text.lines()
                .filter_map(|line| line.strip_suffix(": test"))
                .map(|name| Story {
                    suite: suite.name.clone(),
                    name: name.to_owned(),
                }),
        );
    }
    let wanted =
        |story: &Story| filter.is_none_or(|filter| story.name.contains(filter) || story.suite == filter);
    stories.retain(|story| depends_on_the_kernel(story) && wanted(story));
    if stories.is_empty() {
        bail!(
            "no test of {} has a name that contains `{}`",
            SUITES.join(", "),
            filter.unwrap_or_default()
        );
    }
    Ok(stories)
}

fn depends_on_the_kernel(story: &Story) -> bool {
    ONLY.iter()
        .all(|(suite, module)| story.suite != *suite || story.name.starts_with(module))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_daemons_stories_only_those_of_the_kernel_path() {
        let story = |suite: &str, name: &str| Story {
            suite: suite.to_owned(),
            name: name.to_owned(),
        };
        assert!(depends_on_the_kernel(&story("control_app", "kernel::a")));
        assert!(!depends_on_the_kernel(&story("control_app", "userspace::a")));
        assert!(depends_on_the_kernel(&story("kernel_path", "a")));
    }

    #[test]
    fn a_test_program_is_found_in_cargos_messages() {
        let message = |reason: &str, kind: &str| {
            format!(
                r#"{{"reason":"{reason}","target":{{"kind":["{kind}"],"crate_types":["bin"],"name":"kernel_path"}},"executable":"/t/kernel_path-1"}}"#
            )
        };
        assert_eq!(
            executable_of(&message("compiler-artifact", "test"), "kernel_path"),
            Some(PathBuf::from("/t/kernel_path-1"))
        );
        assert_eq!(
            executable_of(&message("compiler-artifact", "test"), "kernel"),
            None
        );
        assert_eq!(
            executable_of(&message("compiler-artifact", "bin"), "kernel_path"),
            None
        );
        assert_eq!(
            executable_of(&message("build-script-executed", "test"), "kernel_path"),
            None
        );
    }
}
