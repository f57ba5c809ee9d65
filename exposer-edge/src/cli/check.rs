//! `exposer-edge check`: what this machine offers for the settings, one row each, and what to do about what is missing.
//!
//! With `--output json` it prints `{"works": bool, "rows": [{"check", "state", "found", "remedy"}]}`; `check` is a stable
//! name, `state` is `ok`, `warn` or `fail`, `remedy` is null where nothing is to be done. Rows are added, never renamed.
//! Exit status: 0 the edge works on this machine, perhaps with warnings; 1 something must be mended first.

mod facts;
mod files;
mod firewall;
mod kernel;
mod network;
mod ports;
mod report;
mod wireguard;

use std::process::ExitCode;

use facts::Facts;
use report::{Report, Row};

use super::output;
use crate::args::{CheckArgs, ENVIRONMENT_FILE, Output};
use crate::config::Config;

/// Prints the report.
///
/// # Errors
///
/// When a setting is wrong, or standard output can't be written to.
pub async fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let config = Config::from_settings(&args.settings)?;
    let facts = Facts::gather(&config).await;
    let report = Report::new(rows(&config, &facts));
    match args.output {
        Output::Json => output::json(&report)?,
        Output::Table => output::line(&render(&report))?,
    }
    Ok(if report.works {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn rows(config: &Config, facts: &Facts) -> Vec<Row> {
    let mut rows = vec![settings()];
    rows.extend(kernel::rows(config));
    rows.extend(network::rows(config, facts));
    rows.extend(wireguard::rows(config, facts));
    rows.extend(ports::rows(config, facts));
    rows.extend(firewall::rows(config, facts));
    rows.extend(files::rows(config));
    rows
}

/// Whether the settings of the daemon are those that are checked here.
fn settings() -> Row {
    let given: Vec<String> = std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| name.starts_with("EXPOSER_"))
        .collect();
    let row = Row::new("settings");
    if given.is_empty() && std::path::Path::new(ENVIRONMENT_FILE).exists() {
        return row.warn(
            format!("no EXPOSER_ variable is set, but the daemon reads {ENVIRONMENT_FILE}"),
            format!(
                "check with the daemon's settings: set -a; . {ENVIRONMENT_FILE}; set +a; exposer-edge check"
            ),
        );
    }
    row.ok(format!("{} from the environment", given.len()))
}

/// One line a row, and what to do below it: long texts in columns would be hard to read.
fn render(report: &Report) -> String {
    let mut lines = Vec::new();
    for Row {
        check,
        state,
        found,
        remedy,
    } in &report.rows
    {
        lines.push(format!("{:<4}  {check:<16}  {found}", state.as_str()));
        lines.extend(remedy.iter().map(|remedy| format!("{:<24}-> {remedy}", "")));
    }
    let verdict = if report.works {
        "The edge works on this machine."
    } else {
        "The edge does not work yet: mend what says FAIL."
    };
    format!("{}\n\n{verdict}", lines.join("\n"))
}
