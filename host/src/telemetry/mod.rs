//! What can be seen of a host from outside: its log, its metrics, and how fast its consumers are.
//!
//! The hot path only counts: atomic numbers that nobody waits for, without a lock and without memory of their own for each message. Everything else is worked
//! out when somebody asks.

mod exemplars;
mod family;
mod log;
pub mod meters;
mod printable;
pub mod recent;
pub mod scrape;
pub mod table;
pub mod traces;

pub use log::{FILTER_VARIABLE, Format, InvalidFilter, TelemetryError, check_filter, init};
pub use printable::printable;
