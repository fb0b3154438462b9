//! The limits of one attempt, and what passes them.

use std::fmt;

use super::ReadError;

/// Limits of one attempt. A limit that is passed ends the attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EffectLimits {
    /// Longest state key and business id, in bytes.
    pub state_key_bytes_max: usize,
    /// Longest state value, in bytes.
    pub state_value_bytes_max: usize,
    /// Sets, deletes and marks of one attempt.
    pub writes_max: usize,
    /// Keys and values written by one attempt, in bytes.
    pub write_bytes_max: usize,
    /// Entries read by one attempt, also those that are not there.
    pub reads_max: usize,
    /// Events of one attempt.
    pub events_max: usize,
    /// Payload of one event, in bytes.
    pub event_bytes_max: usize,
    /// Names and values of the headers of one event, in bytes.
    pub event_header_bytes_max: usize,
}

impl Default for EffectLimits {
    fn default() -> Self {
        Self {
            state_key_bytes_max: 512,
            state_value_bytes_max: 1 << 20,
            writes_max: 1_000,
            write_bytes_max: 4 << 20,
            reads_max: 10_000,
            events_max: 100,
            // With its headers it has to fit the broker's max_payload, 1 MiB by default, or it could never leave.
            event_bytes_max: 960 << 10,
            event_header_bytes_max: 16 << 10,
        }
    }
}

/// A limit that was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitPassed {
    /// The limit's name in the manifest.
    pub limit: &'static str,
    /// Its value.
    pub max: usize,
}

impl fmt::Display for LimitPassed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "passed limits.{} = {}", self.limit, self.max)
    }
}

/// A host call that ends the attempt.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// The plug-in passed a limit.
    #[error("{0}")]
    Limit(LimitPassed),
    /// The store failed; not the plug-in's fault.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// The limit of this name is not passed.
pub(super) fn within(limit: &'static str, value: usize, max: usize) -> Result<(), CallError> {
    if value > max { Err(CallError::Limit(LimitPassed { limit, max })) } else { Ok(()) }
}
