//! The host's log. Lines carry the consumer, its version, the message's id and its key, so a line need only say what happened.
//!
//! Logging is no effect: the lines of a failed attempt stay. Past 64 lines or 64 KiB per attempt the rest is dropped and counted,
//! and so is what all attempts of a consumer write past `[limits] log_lines_per_second` of its manifest.
//!
//! ```no_run
//! use pelton_sdk::log;
//!
//! log::info("seats reserved", &[("show", &"hamlet"), ("seats", &3)]);
//! ```

use std::fmt::Display;

use crate::calls::log as host;

/// A field's name and value.
pub type Field<'a> = (&'a str, &'a dyn Display);

/// Steps within an attempt.
pub fn trace(message: &str, fields: &[Field<'_>]) {
    write(host::Level::Trace, message, fields);
}

/// What helps to find a mistake in the plug-in.
pub fn debug(message: &str, fields: &[Field<'_>]) {
    write(host::Level::Debug, message, fields);
}

/// What the operator may want to know.
pub fn info(message: &str, fields: &[Field<'_>]) {
    write(host::Level::Info, message, fields);
}

/// What the operator should look at.
pub fn warn(message: &str, fields: &[Field<'_>]) {
    write(host::Level::Warn, message, fields);
}

/// What the operator must mend.
pub fn error(message: &str, fields: &[Field<'_>]) {
    write(host::Level::Error, message, fields);
}

fn write(level: host::Level, message: &str, fields: &[Field<'_>]) {
    let fields: Vec<(String, String)> =
        fields.iter().map(|(name, value)| ((*name).to_owned(), value.to_string())).collect();
    host::log(level, message, &fields);
}
