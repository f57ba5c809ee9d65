//! Logging: level and form, to standard error.

use std::io::IsTerminal as _;

use exposer_common::model::shorten;
use thiserror::Error;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use crate::args::Settings;

/// Form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Settings of logging, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Least severe level that is logged.
    pub level: LevelFilter,
    /// Form of a line.
    pub format: LogFormat,
}

/// Why logging can't be set up.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TelemetryError {
    /// A level that is none.
    #[error("--log-level (LOG_LEVEL) is \"{0}\": it is one of ERROR, WARN, INFO, DEBUG and TRACE")]
    Level(String),
    /// A format that is none.
    #[error("--log-format (LOG_FORMAT) is \"{0}\": it is one of text and json")]
    Format(String),
    /// Called twice in one process.
    #[error("logging is set up already: {0}")]
    Twice(String),
}

impl LogConfig {
    /// Checks what was typed; empty text means the default.
    ///
    /// # Errors
    ///
    /// When the level or the format is unknown.
    pub fn from_settings(settings: &Settings) -> Result<Self, TelemetryError> {
        let level = match settings.log_level.trim().to_ascii_uppercase().as_str() {
            "" | "INFO" => LevelFilter::INFO,
            "ERROR" => LevelFilter::ERROR,
            "WARN" | "WARNING" => LevelFilter::WARN,
            "DEBUG" => LevelFilter::DEBUG,
            "TRACE" => LevelFilter::TRACE,
            _ => return Err(TelemetryError::Level(shorten(settings.log_level.trim()))),
        };
        let format = match settings.log_format.trim().to_ascii_lowercase().as_str() {
            "" | "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            _ => return Err(TelemetryError::Format(shorten(settings.log_format.trim()))),
        };
        Ok(Self { level, format })
    }
}

/// Sends the log to standard error from here on. Libraries are heard from INFO only when they warn: at DEBUG the
/// Kubernetes client and its transport would drown the agent's own words.
///
/// # Errors
///
/// When a logger is there already.
pub fn init(config: LogConfig) -> Result<(), TelemetryError> {
    let level = config.level;
    let others = if level == LevelFilter::TRACE {
        LevelFilter::TRACE
    } else {
        level.min(LevelFilter::WARN)
    };
    // kube warns at every retry of a watch; [`crate::kube::watch`] says the same once, with what to do about it.
    let retries = if level == LevelFilter::TRACE {
        level
    } else {
        LevelFilter::ERROR
    };
    let filter = EnvFilter::new(format!(
        "{others},kube_runtime={retries},kube_client={retries},exposer_agent={level},exposer_common={level}"
    ));
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let done = match config.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.try_init(),
    };
    done.map_err(|error| TelemetryError::Twice(error.to_string()))
}
