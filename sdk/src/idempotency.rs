//! Business ids that must have an effect once, besides the host's own check of the message id: a request id inside the payload
//! that two different messages carry, for example.
//!
//! Scoped like [`state`](crate::state). A mark is an effect: an attempt that fails leaves none.

use std::time::Duration;

use crate::calls::idempotency as host;
use crate::failure::millis;

/// Whether an id was marked by an earlier message, or by this attempt.
#[must_use]
pub fn seen(id: &str) -> bool {
    host::seen(id)
}

/// Marks an id of up to 512 bytes for the host's `processed_ids_hours`, a day by default.
pub fn mark(id: &str) {
    host::mark(id, None);
}

/// Marks an id for this long from [`context::now`](crate::context::now).
pub fn mark_for(id: &str, time_to_live: Duration) {
    host::mark(id, Some(millis(time_to_live)));
}

/// Marks an id unless it was seen before, and tells whether this is the first time.
///
/// ```no_run
/// # use pelton_sdk::{Message, idempotency};
/// # fn handle(message: Message) -> pelton_sdk::Result {
/// if !idempotency::first("request-17") {
///     return Ok(()); // the same request in another message: it had its effect
/// }
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn first(id: &str) -> bool {
    let first = !seen(id);
    if first {
        mark(id);
    }
    first
}
