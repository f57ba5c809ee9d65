//! `cargo xtask demo`: the whole line from a client on the internet to a Service at home, with the real binaries, real
//! WireGuard and real traffic, as a table of what was measured.
//!
//! | file | duty |
//! |---|---|
//! | `args` | what was typed |
//! | `signals` | Ctrl-C and SIGTERM |
//! | `stage` | the network, the processes and the Services; everything goes when it is dropped |
//! | `cluster` | the Kubernetes API: embedded, or that of a kubeconfig |
//! | `relay` | the agent's way to a real cluster |
//! | `settings` | environment variables of the edge and the agent |
//! | `view` | the JSON that `exposer-edge status` and `flows` print |
//! | `report` | progress and the table |
//! | `rows` | one file for each story |

mod args;
mod cluster;
mod relay;
mod report;
mod rows;
mod settings;
mod signals;
mod stage;
mod view;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Parser as _;
use exposer_testkit::interrupt;

use args::Args;
use report::Report;
use rows::Row;
use stage::Stage;

fn main() -> ExitCode {
    let args = Args::parse();
    if args.list {
        report::rows(rows::ALL);
        return ExitCode::SUCCESS;
    }
    signals::watch();
    match show(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            report::failure(&error);
            ExitCode::FAILURE
        }
    }
}

/// Runs the chosen rows; true if every one passed.
fn show(args: &Args) -> Result<bool> {
    let chosen = rows::choose(&args.only)?;
    let mut stage = Stage::new(args)?;
    let mut report = Report::default();
    for row in chosen {
        interrupt::check()?;
        run(&mut stage, row, &mut report);
    }
    report.table();
    if args.keep && !interrupt::raised() {
        report::keep(&stage)?;
        signals::wait();
    }
    report::step("cleaning up: processes, namespaces, pins");
    drop(stage);
    Ok(report.passed())
}

fn run(stage: &mut Stage, row: &Row, report: &mut Report) {
    report::begin(row);
    let start = Instant::now();
    let measured = stage.on_path(row.path).and_then(|()| (row.run)(stage));
    if let Err(error) = &measured {
        report::failure(error);
        if !interrupt::raised() && !report.failed_alike(error) {
            report::logs(stage);
        }
    }
    report.add(row, measured, start.elapsed());
}
