//! How much an attempt may do.

/// Limits of one attempt, under their names in the manifest's `[limits]`. Passing one ends the attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// What [`crate::context::time_left`] tells, in milliseconds. Nothing ends an attempt that takes longer here.
    pub timeout_ms: u64,
    /// Longest state key and business id, in bytes.
    pub state_key_bytes_max: usize,
    /// Longest state value, in bytes.
    pub state_value_bytes_max: usize,
    /// Sets, deletes and marks.
    pub writes_max: usize,
    /// Keys and values written, in bytes.
    pub write_bytes_max: usize,
    /// Entries read, also those that are not there.
    pub reads_max: usize,
    /// Events.
    pub events_max: usize,
    /// Payload of one event, in bytes.
    pub event_bytes_max: usize,
    /// Names and values of the headers of one event, in bytes.
    pub event_header_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout_ms: 1_000,
            state_key_bytes_max: 512,
            state_value_bytes_max: 1 << 20,
            writes_max: 1_000,
            write_bytes_max: 4 << 20,
            reads_max: 10_000,
            events_max: 100,
            event_bytes_max: 960 << 10,
            event_header_bytes_max: 16 << 10,
        }
    }
}

/// A limit that was passed: what a call unwinds with, because it does not return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LimitPassed {
    pub(crate) limit: &'static str,
    pub(crate) max: usize,
}

/// # Errors
/// If the value is above.
pub(crate) fn within(limit: &'static str, value: usize, max: usize) -> Result<(), LimitPassed> {
    if value > max { Err(LimitPassed { limit, max }) } else { Ok(()) }
}
