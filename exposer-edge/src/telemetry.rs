//! Logging: level and form, fit for a terminal, the systemd journal or a collector.

use std::io::IsTerminal as _;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;

use crate::args::LogArgs;

/// Form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people and the journal.
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
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// A level that is none.
    #[error("--log-level (EXPOSER_LOG_LEVEL) is \"{0}\": it is one of ERROR, WARN, INFO, DEBUG and TRACE")]
    Level(String),
    /// A format that is none.
    #[error("--log-format (EXPOSER_LOG_FORMAT) is \"{0}\": it is one of text and json")]
    Format(String),
    /// Called twice in one process.
    #[error("logging is set up already: {0}")]
    Twice(String),
}

impl LogConfig {
    /// Checks what was typed. Empty text means the default.
    ///
    /// # Errors
    ///
    /// When the level or the format is unknown.
    pub fn from_args(args: &LogArgs) -> Result<Self, TelemetryError> {
        let LogArgs {
            log_level,
            log_format,
        } = args;
        let shorten = exposer_common::model::shorten;
        let level = match log_level.trim() {
            "" => LevelFilter::INFO,
            text => level(text).ok_or_else(|| TelemetryError::Level(shorten(text)))?,
        };
        let format = match log_format.trim().to_ascii_lowercase().as_str() {
            "" | "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            _ => return Err(TelemetryError::Format(shorten(log_format))),
        };
        Ok(Self { level, format })
    }
}

fn level(text: &str) -> Option<LevelFilter> {
    // `LevelFilter` takes numbers and "off" besides, which nobody means here.
    let named = ["error", "warn", "info", "debug", "trace"].contains(&text.to_ascii_lowercase().as_str());
    named.then(|| LevelFilter::from_str(text).ok()).flatten()
}

/// Whether standard error is the systemd journal, which stamps every line with the time itself
/// (systemd.exec(5), `$JOURNAL_STREAM`: device and inode of the stream).
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    nix::sys::stat::fstat(std::io::stderr())
        .is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Sends the log to standard error from here on.
///
/// # Errors
///
/// When a logger is there already.
pub fn init(config: LogConfig) -> Result<(), TelemetryError> {
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(config.level)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let done = match (config.format, is_journal()) {
        (LogFormat::Json, _) => builder.json().flatten_event(true).try_init(),
        (LogFormat::Text, true) => builder.without_time().try_init(),
        (LogFormat::Text, false) => builder.try_init(),
    };
    done.map_err(|error| TelemetryError::Twice(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(level: &str, format: &str) -> Result<LogConfig, TelemetryError> {
        LogConfig::from_args(&LogArgs {
            log_level: level.into(),
            log_format: format.into(),
        })
    }

    #[test]
    fn levels_and_formats() {
        for (level, filter) in [
            ("INFO", LevelFilter::INFO),
            ("warn", LevelFilter::WARN),
            ("Debug", LevelFilter::DEBUG),
            ("", LevelFilter::INFO),
            ("TRACE", LevelFilter::TRACE),
            ("ERROR", LevelFilter::ERROR),
        ] {
            assert_eq!(parse(level, "text").unwrap().level, filter, "{level}");
        }
        assert_eq!(parse("INFO", "JSON").unwrap().format, LogFormat::Json);
        assert_eq!(parse("INFO", "").unwrap().format, LogFormat::Text);
    }

    #[test]
    fn what_is_unknown_is_quoted() {
        for level in ["loud", "5", "off"] {
            assert!(
                parse(level, "text")
                    .unwrap_err()
                    .to_string()
                    .contains(&format!("\"{level}\""))
            );
        }
        assert!(parse("INFO", "xml").unwrap_err().to_string().contains("\"xml\""));
    }
}
