//! Why a message was not handled: what a handler returns instead of `Ok(())`.
//!
//! Owns the rule for `?`: any error becomes [`Failure::reject`] with the whole chain of its causes as the reason. An attempt is a
//! function of the message and of the state before it, so an error that was not expected would come again at the next attempt;
//! a dead letter shows it to the operator at once. Whoever knows better says so:
//! `.map_err(Failure::retry)?`.

use std::error::Error;
use std::fmt::Display;
use std::time::Duration;

use crate::bindings::pelton::consumer::types;

/// Why a message was not handled. Whatever the kind: nothing of the attempt remains, and other keys go on.
///
/// It is not an error itself, so that `?` can turn every error into one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// May succeed later; its key waits. Counts as one of the consumer's attempts. After the last of them its key is parked, with this message and all
    /// later ones, until it is released; or what else the manifest's `retry.on_exhausted` says.
    Retry {
        /// For the operator: why.
        reason: String,
        /// How long to wait; none: the consumer's backoff.
        after: Option<Duration>,
    },
    /// Will never succeed: the message becomes a dead letter at once, and its key goes on behind it.
    Reject {
        /// For the operator: why.
        reason: String,
    },
    /// Not this message's turn yet: it is set aside durably, and later messages of its key go on. It is looked at again as soon as another message of
    /// its key has been applied, or after a time. Does not count as an attempt; after the manifest's `park.longest_ms` it becomes a dead letter.
    Park {
        /// For the operator: what it waits for.
        reason: String,
        /// When to look again at the latest; none: the consumer's `park.delay_ms`.
        after: Option<Duration>,
    },
}

impl Failure {
    /// Try again after the consumer's backoff.
    pub fn retry(reason: impl Display) -> Self {
        Self::Retry { reason: reason.to_string(), after: None }
    }

    /// Try again after this time; the host keeps it within the consumer's shortest and longest delay.
    pub fn retry_after(reason: impl Display, after: Duration) -> Self {
        Self::Retry { reason: reason.to_string(), after: Some(after) }
    }

    /// Never try again: a dead letter.
    pub fn reject(reason: impl Display) -> Self {
        Self::Reject { reason: reason.to_string() }
    }

    /// Look again when another message of the key has been applied, or after the consumer's `park.delay_ms`.
    pub fn park(reason: impl Display) -> Self {
        Self::Park { reason: reason.to_string(), after: None }
    }

    /// Look again when another message of the key has been applied, or after this time.
    pub fn park_for(reason: impl Display, after: Duration) -> Self {
        Self::Park { reason: reason.to_string(), after: Some(after) }
    }

    pub(crate) fn into_wit(self) -> types::Failure {
        match self {
            Self::Retry { reason, after } => {
                types::Failure::Retry(types::RetryLater { reason, after_ms: after.map(millis) })
            }
            Self::Reject { reason } => types::Failure::Reject(reason),
            Self::Park { reason, after } => types::Failure::Park(types::NotYet { reason, after_ms: after.map(millis) }),
        }
    }
}

/// Rejects with the error's message and those of its causes.
impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut reason = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Many errors repeat their cause in their own message.
            if !reason.ends_with(&text) {
                reason.push_str(": ");
                reason.push_str(&text);
            }
            cause = error.source();
        }
        Self::Reject { reason }
    }
}

/// Whole milliseconds, rounded up so that a short wait does not become none.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the order can't be read")]
    struct Outer(#[source] std::num::ParseIntError);

    fn parse(text: &str) -> crate::Result<i32> {
        Ok(text.parse::<i32>().map_err(Outer)?)
    }

    #[test]
    fn an_error_rejects_with_the_chain_of_its_causes() {
        assert_eq!(parse("x"), Err(Failure::reject("the order can't be read: invalid digit found in string")));
    }

    #[test]
    fn a_cause_that_the_message_already_holds_is_not_repeated() {
        let error = std::io::Error::other("disk on fire");
        assert_eq!(Failure::from(error), Failure::reject("disk on fire"));
    }

    #[test]
    fn delays_are_whole_milliseconds_rounded_up() {
        for (duration, expected) in [
            (Duration::ZERO, 0),
            (Duration::from_nanos(1), 1),
            (Duration::from_millis(1500), 1500),
            (Duration::from_micros(1500), 2),
            (Duration::MAX, u64::MAX),
        ] {
            assert_eq!(millis(duration), expected, "{duration:?}");
        }
    }
}
