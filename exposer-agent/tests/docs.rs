//! README.md against the command line: every setting of the agent stands in its table with flag, variable and default,
//! and no other does.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "test code: a failing test is what a panic is for"
)]

use std::collections::BTreeSet;
use std::path::Path;

use clap::{Arg, ArgAction, CommandFactory as _};
use exposer_agent::args::Cli;

/// The settings of `run`, each as the first three cells of its row; no default where the text describes it.
fn settings() -> BTreeSet<(String, String, Option<String>)> {
    let cli = Cli::command();
    let run = cli.find_subcommand("run").expect("the verb run");
    let global = cli.get_arguments().filter(|arg| arg.is_global_set());
    run.get_arguments().chain(global).filter_map(setting).collect()
}

fn setting(arg: &Arg) -> Option<(String, String, Option<String>)> {
    let flag = format!("`--{}`", arg.get_long()?);
    let variable = arg
        .get_env()
        .map_or_else(|| "–".to_owned(), |name| format!("`{}`", name.to_string_lossy()));
    let default = match (arg.get_action(), arg.get_default_values()) {
        (ArgAction::Help | ArgAction::Version, _) => return None,
        (ArgAction::SetTrue, _) => Some("off".to_owned()),
        (_, [value]) => Some(format!("`{}`", value.to_string_lossy())),
        _ => None,
    };
    Some((flag, variable, default))
}

/// The rows of the section's tables whose first cell is a flag: the first three cells.
fn documented(heading: &str) -> BTreeSet<(String, String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (_, section) = text
        .split_once(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("README.md has no section \"{heading}\""));
    section
        .lines()
        .take_while(|line| !line.starts_with("## "))
        .filter(|line| line.starts_with("| `--"))
        .filter_map(|line| {
            let mut cells = line
                .trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().to_owned());
            Some((cells.next()?, cells.next()?, cells.next()?))
        })
        .collect()
}

#[test]
fn the_table_of_settings_is_the_command_line() {
    let documented = documented("Settings of the agent");
    let flags = |rows: &BTreeSet<(String, String, String)>| -> BTreeSet<String> {
        rows.iter().map(|(flag, _, _)| flag.clone()).collect()
    };
    let settings = settings();
    let real: BTreeSet<String> = settings.iter().map(|(flag, _, _)| flag.clone()).collect();
    assert_eq!(
        flags(&documented),
        real,
        "flags in README.md, and flags of `exposer-agent run`"
    );
    for (flag, variable, default) in settings {
        let row = documented
            .iter()
            .find(|(name, _, _)| *name == flag)
            .expect("compared above");
        assert_eq!(row.1, variable, "README.md: the variable of {flag}");
        if let Some(default) = default {
            assert_eq!(row.2, default, "README.md: the default of {flag}");
        }
    }
}
