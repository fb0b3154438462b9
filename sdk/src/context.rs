//! What the host tells about this attempt. The same message, state and context must give the same effects, so time comes from here
//! and not from a clock.

use std::fmt::Display;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use crate::calls::context as host;

/// A value of the manifest that the plug-in can't read.
#[derive(Debug, thiserror::Error)]
#[error("the manifest's [config] has {name} = \"{value}\", which this consumer can't read: {reason}")]
pub struct ConfigError {
    /// Its name in the manifest.
    pub name: String,
    /// What the manifest says.
    pub value: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The time of this attempt. Stands still during the attempt.
#[must_use]
pub fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(now_ms())
}

/// The time of this attempt in milliseconds since 1970-01-01 UTC.
#[must_use]
pub fn now_ms() -> u64 {
    host::now_ms()
}

/// 1 for the first attempt at this message; the same as [`Message::attempt`](crate::Message::attempt).
#[must_use]
pub fn attempt() -> u32 {
    host::attempt()
}

/// How long until the host ends this attempt.
#[must_use]
pub fn time_left() -> Duration {
    Duration::from_millis(host::time_left_ms())
}

/// The consumer's name.
#[must_use]
pub fn consumer() -> String {
    host::consumer()
}

/// The version of this plug-in: the sha256 digest of the component's bytes, in hex.
#[must_use]
pub fn version() -> String {
    host::version()
}

/// A value of the manifest's `[config]` table; none if there is no such name.
#[must_use]
pub fn config(name: &str) -> Option<String> {
    host::config(name)
}

/// A value of the manifest's `[config]` table as a number or whatever else can be read from text; none if there is no such name.
///
/// # Errors
/// If it is there and can't be read.
pub fn config_parsed<T>(name: &str) -> Result<Option<T>, ConfigError>
where
    T: FromStr,
    T::Err: Display,
{
    config(name).map(|value| parse(name, value)).transpose()
}

fn parse<T>(name: &str, value: String) -> Result<T, ConfigError>
where
    T: FromStr,
    T::Err: Display,
{
    match value.parse() {
        Ok(parsed) => Ok(parsed),
        Err(error) => {
            let error: T::Err = error;
            Err(ConfigError { name: name.to_owned(), value, reason: error.to_string() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_cannot_be_read_is_named() {
        assert_eq!(parse::<u32>("seats", "12".to_owned()).unwrap(), 12);
        let error = parse::<u32>("seats", "a dozen".to_owned()).unwrap_err().to_string();
        assert!(error.contains("seats = \"a dozen\"") && error.contains("invalid digit"), "{error}");
    }
}
