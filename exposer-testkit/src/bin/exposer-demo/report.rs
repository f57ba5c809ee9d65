//! What the person reads: progress, and the table of what was measured.
#![expect(
    clippy::print_stdout,
    reason = "the demo's output is for a person at a terminal"
)]

use std::time::Duration;

use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use exposer_testkit::process::tail;

use crate::rows::Row;
use crate::settings::Route;
use crate::stage::Stage;

/// Width of the table, in characters.
const WIDTH: u16 = 120;

/// Rows and their outcome.
#[derive(Default)]
pub struct Report {
    rows: Vec<(String, String, bool, Duration)>,
}

impl Report {
    /// Notes and prints the outcome of a row.
    pub fn add(&mut self, row: &Row, measured: Result<String>, took: Duration) {
        let (text, passed) = match measured {
            Ok(text) => (text, true),
            Err(error) => (first_line(&format!("{error:#}")), false),
        };
        if passed {
            println!("    pass in {:.1} s: {text}", took.as_secs_f64());
        }
        self.rows
            .push((format!("{}\n{}", row.name, row.title), text, passed, took));
    }

    /// Whether the row before failed for the same reason, so that the logs have been shown.
    pub fn failed_alike(&self, error: &anyhow::Error) -> bool {
        let text = first_line(&format!("{error:#}"));
        self.rows
            .last()
            .is_some_and(|(_, before, passed, _)| !passed && *before == text)
    }

    /// Whether there was a row and every one passed.
    pub fn passed(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|(_, _, passed, _)| *passed)
    }

    /// Prints the whole table.
    pub fn table(&self) {
        let mut table = Table::new();
        table
            .load_preset(UTF8_FULL_CONDENSED)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(WIDTH)
            .set_header(["row", "measured", "", "s"]);
        for (name, measured, passed, took) in &self.rows {
            table.add_row([
                name,
                measured,
                word(*passed),
                &format!("{:.1}", took.as_secs_f64()),
            ]);
        }
        let passed = self.rows.iter().filter(|(_, _, passed, _)| *passed).count();
        println!("\n{table}\n{passed} of {} rows passed", self.rows.len());
    }
}

const fn word(passed: bool) -> &'static str {
    if passed { "pass" } else { "FAIL" }
}

fn first_line(text: &str) -> String {
    text.lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(400)
        .collect()
}

/// Says what begins.
pub fn step(text: &str) {
    println!("==> {text}");
}

/// Says a detail.
pub fn note(text: &str) {
    println!("    {text}");
}

/// Says which row begins.
pub fn begin(row: &Row) {
    step(&format!("{} ({})", row.title, row.name));
}

/// Says what went wrong, with every cause.
pub fn failure(error: &anyhow::Error) {
    println!("    FAIL: {error:#}");
}

/// Lists the rows.
pub fn rows(rows: &[Row]) {
    for row in rows {
        println!("{:22} {}", row.name, row.title);
    }
}

/// Shows the ends of the logs, after a row failed.
pub fn logs(stage: &Stage) {
    let folder = stage.network.folder();
    for (name, file) in [("exposer-edge", "edge.log"), ("exposer-agent", "agent.log")] {
        println!("{}", tail(name, &folder.join(file)));
    }
}

/// Says how to look at what was left running.
pub fn keep(stage: &Stage) -> Result<()> {
    let mut environment = stage.edge_settings(Route::Kernel);
    if let Ok(path) = std::env::var("PATH") {
        environment.push(("PATH".to_owned(), path));
    }
    let network = &stage.network;
    let (edge, home) = (network.edge_script(&environment)?, network.home_script()?);
    let (edge, home) = (edge.display(), home.display());
    let client = network.client.enter_hint();
    let binary = exposer_testkit::process::project_binary("exposer-edge")?;
    let binary = binary.display();
    let kubeconfig = stage.cluster.kubeconfig().display();
    step("everything is left running; Ctrl-C ends it and cleans up");
    println!("the internet  {client}");
    println!("              {client} curl http://44.128.0.2/");
    println!("the VPS       {edge}                      (a shell; the settings are in its environment)");
    println!("              {edge} {binary} status");
    println!("              {edge} {binary} flows");
    println!("              {edge} {binary} check");
    println!("              {edge} wg show");
    println!("the home node {home}");
    println!("              {home} kubectl --kubeconfig {kubeconfig} get services -A");
    println!(
        "the maps      bpftool map dump pinned {}",
        stage.pin("SERVICES").display()
    );
    println!("the logs      tail -f {}/*.log", network.folder().display());
    for process in stage.processes() {
        println!(
            "              pid {} writes {}",
            process.pid(),
            process.log_path().display()
        );
    }
    Ok(())
}
