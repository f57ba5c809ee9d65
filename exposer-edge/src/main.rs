//! `exposer-edge`: from the command line to a command and its exit status.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use exposer_edge::args::{Cli, Command, Settings};
use exposer_edge::config::{self, Config, ConfigError};
use exposer_edge::telemetry::{self, LogConfig};
use exposer_edge::{app, cli};

/// Exit status for a setting that is wrong: the same as clap's for wrong usage.
const WRONG_SETTING: u8 = 2;

fn main() -> ExitCode {
    let Cli { log, command } = Cli::parse();
    let started = LogConfig::from_args(&log).and_then(telemetry::init);
    if let Err(error) = started {
        return fail(&error.into(), WRONG_SETTING);
    }
    match dispatch(command) {
        Ok(code) => code,
        Err(Failure::Setting(error)) => fail(&error, WRONG_SETTING),
        Err(Failure::Other(error)) => fail(&error, 1),
    }
}

/// Why a command did not run to its end.
enum Failure {
    /// Something that was typed.
    Setting(anyhow::Error),
    /// Anything else.
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        if error.is::<ConfigError>() {
            Self::Setting(error)
        } else {
            Self::Other(error)
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Other(error.into()))?;
    runtime.block_on(async {
        Ok(match command {
            Command::Run(settings) => run(&settings).await?,
            Command::Check(args) => cli::check::run(&args).await?,
            Command::Status(args) => cli::status::run(&args).await?,
            Command::Flows(args) => cli::flows::run(&args).await?,
            Command::Explain(args) => cli::explain::run(&args).await?,
            Command::Cleanup(args) => cli::cleanup::run(&args)?,
            Command::Token(args) => cli::token::run(&args)?,
        })
    })
}

/// The daemon, until it is told to stop.
async fn run(settings: &Settings) -> anyhow::Result<ExitCode> {
    let config = Config::from_settings(settings)?;
    match config::local_port_range() {
        Ok(range) => config.check_host(range)?,
        Err(error) => tracing::warn!(component = "config", %error, "can't read net.ipv4.ip_local_port_range"),
    }
    app::run(config).await?;
    Ok(ExitCode::SUCCESS)
}

/// Says what went wrong, with the chain of causes, each once.
fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    // Standard error may be closed; there is nobody else to tell.
    let _ = writeln!(std::io::stderr(), "exposer-edge: {text}");
    ExitCode::from(code)
}
