//! Entry point of the agent.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use exposer_agent::args::{Cli, Command, ParseArgs, Settings};
use exposer_agent::config::Config;
use exposer_agent::error::AgentError;
use exposer_agent::telemetry::{self, LogConfig};
use exposer_agent::{app, parse};

/// Worker threads: the agent waits more than it works, and a pod's memory limit is small.
const WORKERS: usize = 2;

fn main() -> ExitCode {
    let (text, code) = match Cli::parse().command {
        Command::Run(settings) => match run(&settings) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => (error.to_string(), error.exit_code()),
        },
        Command::Parse(args) => match print(&args) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(text) => (text, 1),
        },
    };
    // Where even standard error is closed, the exit status says it alone.
    let _ = writeln!(std::io::stderr(), "exposer-agent: {text}");
    ExitCode::from(code)
}

fn run(settings: &Settings) -> Result<(), AgentError> {
    telemetry::init(LogConfig::from_settings(settings)?)?;
    let config = Config::from_settings(settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(|source| AgentError::System {
            action: "starting the runtime",
            source,
        })?;
    let done = runtime.block_on(app::run(config));
    // A lookup of a name may block a thread for long; nothing waits for it any more.
    runtime.shutdown_background();
    done
}

fn print(args: &ParseArgs) -> Result<(), String> {
    match parse::run(args, &mut std::io::stdout().lock()) {
        Ok(printed) => printed.map_err(|error| error.to_string()),
        Err(error) => Err(format!("--ports: {error}")),
    }
}
