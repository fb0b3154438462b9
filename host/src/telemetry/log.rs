//! The host's log: where it goes, in what form, and what its levels mean.
//!
//! | level | meaning |
//! |---|---|
//! | error | something is lost, stops or never starts unless a person acts: a failed commit, a stream that went backwards, a refused manifest |
//! | warn | the host goes on, but not as it was told to: NATS is away, a message became a dead letter, a version was refused |
//! | info | changes that an operator wants to find later, a few a day: start, stop, a consumer deployed, a version swapped |
//! | debug | the course of things without the messages: commits, pulls, checkpoints, retries |
//! | trace | each message |
//!
//! Messages are lower-case fragments; what varies is in fields (`consumer`, `stream`, `sequence`, `version`, …). Lines go to standard
//! error, so that standard output holds only what a command was asked for.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// The environment variable whose filter wins over the configured one.
pub const FILTER_VARIABLE: &str = "PELTON_LOG";

/// The form of the log's lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people; in colour on a terminal, unless `NO_COLOR` is set.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why the log can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter of the environment variable is none.
    #[error("environment variable {FILTER_VARIABLE}: {0}")]
    Environment(InvalidFilter),
    /// The configured filter is none.
    #[error("log.filter: {0}")]
    Configured(InvalidFilter),
    /// Another log was set up in this process before.
    #[error("the log is set up already: {0}")]
    SetUpTwice(#[from] TryInitError),
}

/// A text that is no log filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{filter:?} is not a log filter: {reason}; write a level (error, warn, info, debug, trace, off) or target=level, with commas between"
)]
pub struct InvalidFilter {
    /// The text.
    pub filter: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Sets up the process's log. The filter in [`FILTER_VARIABLE`] wins over `filter`.
///
/// # Errors
/// If the filter that counts is none, or if a log was set up before.
pub fn init(filter: &str, format: Format) -> Result<(), TelemetryError> {
    let filter = match std::env::var(FILTER_VARIABLE) {
        Ok(text) if !text.is_empty() => parse_filter(&text).map_err(TelemetryError::Environment)?,
        _ => parse_filter(filter).map_err(TelemetryError::Configured)?,
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        Format::Text => {
            let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            lines.with_ansi(colours).finish().try_init()?;
        }
        Format::Json => lines.json().flatten_event(true).with_current_span(false).finish().try_init()?,
    }
    Ok(())
}

/// Whether it is a log filter.
///
/// # Errors
/// If it is not.
pub fn check_filter(filter: &str) -> Result<(), InvalidFilter> {
    parse_filter(filter).map(drop)
}

fn parse_filter(filter: &str) -> Result<EnvFilter, InvalidFilter> {
    let invalid = |reason: String| InvalidFilter { filter: filter.into(), reason };
    // A lone word that is no level counts as a target, so that `inof` would silence all else without a word.
    let parts: Vec<_> = filter.split(',').map(str::trim).collect();
    for part in &parts {
        let part = part.to_ascii_lowercase();
        let near = |level: &&&str| part != **level && strsim::jaro_winkler(&part, level) >= LIKENESS_MIN;
        if let Some(level) = ["error", "warn", "info", "debug", "trace", "off"].iter().find(near) {
            return Err(invalid(format!("did you mean {level:?}?")));
        }
    }
    // The parser takes no spaces around commas. Of two directives for a target the later one counts.
    EnvFilter::builder().parse(format!("{LIBRARIES},{}", parts.join(","))).map_err(|error| invalid(error.to_string()))
}

/// Libraries whose lines repeat what the host says itself: async-nats calls each end of a connection an error. A filter that names one of them has its way.
const LIBRARIES: &str = "async_nats=off,wasmtime_wasi=warn";

/// A word as much like a level as this is taken for a slip.
const LIKENESS_MIN: f64 = 0.85;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_levels_and_targets() {
        for filter in [
            "info",
            "INFO",
            "off",
            "warn,pelton=debug",
            "pelton::nats=trace, async_nats=error",
            "pelton",
            "[{consumer=x}]=debug",
        ] {
            assert_eq!(check_filter(filter), Ok(()), "{filter}");
        }
    }

    #[test]
    fn what_is_no_filter_is_named() {
        for (filter, reason) in [
            ("inof", "did you mean \"info\"?"),
            ("warning", "did you mean \"warn\"?"),
            ("pelton=loud", "error parsing level filter"),
            ("pelton=debug,tracee", "did you mean \"trace\"?"),
        ] {
            let error = check_filter(filter).unwrap_err();
            assert_eq!(error.filter, filter);
            assert!(error.reason.starts_with(reason), "{error}");
            assert!(error.to_string().contains(filter), "{error}");
        }
    }

    #[test]
    fn a_configured_filter_that_is_none_says_where_it_stands() {
        let error = TelemetryError::Configured(check_filter("inof").unwrap_err());
        assert!(error.to_string().starts_with("log.filter: \"inof\" is not a log filter"), "{error}");
    }
    #[test]
    fn a_process_has_one_log() {
        init("error", Format::Json).unwrap();
        tracing::error!(consumer = "orders", sequence = 7, "a line of the test");
        assert!(matches!(init("error", Format::Text), Err(TelemetryError::SetUpTwice(_))));
    }
}
