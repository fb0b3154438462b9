//! How an attempt ended, and what it left.

use std::time::Duration;

use serde::de::DeserializeOwned;

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The handler returned ok: its effects are kept.
    Applied,
    /// A message with this id was applied before: the handler was not called.
    Duplicate,
    /// The handler asked for another attempt.
    Retry {
        /// Why.
        reason: String,
        /// The delay that it asked for.
        after: Option<Duration>,
    },
    /// The handler will never handle it: a dead letter.
    Reject {
        /// Why.
        reason: String,
    },
    /// The handler says that it is not this message's turn.
    Park {
        /// Why.
        reason: String,
        /// When it asked to look again.
        after: Option<Duration>,
    },
    /// The handler panicked. The real host tries again, as with a retry.
    Trap {
        /// The panic's message.
        reason: String,
    },
    /// The handler passed a limit. The real host tries again, as with a retry.
    Limit {
        /// Which one, and its value.
        reason: String,
    },
}

impl Outcome {
    /// The word for it, as in the host's log, in `pelton invoke` and in `pelton test`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Duplicate => "duplicate",
            Self::Retry { .. } => "retry",
            Self::Reject { .. } => "reject",
            Self::Park { .. } => "park",
            Self::Trap { .. } => "trap",
            Self::Limit { .. } => "limit",
        }
    }

    /// Why the attempt failed; none if it did not.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Applied | Self::Duplicate => None,
            Self::Retry { reason, .. }
            | Self::Reject { reason }
            | Self::Park { reason, .. }
            | Self::Trap { reason }
            | Self::Limit { reason } => Some(reason),
        }
    }
}

/// One attempt, after its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// How it ended.
    pub outcome: Outcome,
    /// Its number, from 1.
    pub number: u32,
    /// The events that it emitted, in order; none unless it was applied.
    pub events: Vec<Event>,
    /// The business ids that it marked, in the order of their bytes; none unless it was applied.
    pub marks: Vec<String>,
    /// The lines that it logged; also a failed attempt's are kept.
    pub logs: Vec<Line>,
}

impl Attempt {
    /// Whether its effects are kept.
    #[must_use]
    pub fn is_applied(&self) -> bool {
        self.outcome == Outcome::Applied
    }

    /// Fails the test unless the attempt was applied; gives back its events.
    ///
    /// # Panics
    /// If it was not, with the reason.
    #[track_caller]
    pub fn applied(self) -> Vec<Event> {
        if !self.is_applied() {
            super::host::fail(&format!("the message was not applied: {:?}", self.outcome));
        }
        self.events
    }
}

/// An event as it would be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The `Nats-Msg-Id` under which it leaves.
    pub id: String,
    /// Where it goes.
    pub subject: String,
    /// Events of one key leave in order.
    pub key: Option<String>,
    /// All headers but `Nats-Msg-Id`: the host's own, then the handler's.
    pub headers: Vec<(String, String)>,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Event {
    /// The payload as JSON of a type.
    ///
    /// # Panics
    /// If it isn't.
    #[must_use]
    #[track_caller]
    pub fn json<T: DeserializeOwned>(&self) -> T {
        match serde_json::from_slice(&self.payload) {
            Ok(value) => value,
            Err(error) => super::host::fail(&format!("the payload of event {} is another JSON: {error}", self.id)),
        }
    }

    /// The value of the first header of this name, in whatever case it is written.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its level, in capital letters.
    pub level: &'static str,
    /// The text, with control characters escaped.
    pub text: String,
    /// The fields, `name=value` with spaces between.
    pub fields: String,
}
