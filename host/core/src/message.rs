//! A message as the plug-in sees it, and what became of the attempts to handle it.

use std::sync::Arc;

use bytes::Bytes;

use crate::batch::StreamIdentity;
use crate::ids::{IdHash, Version};

/// Header names and values in the order in which they arrived.
pub type Headers = Vec<(Box<str>, Box<str>)>;

/// One message of one stream. Shared, never changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What the host deduplicates by.
    pub id: Box<str>,
    /// The mark that is kept when it was applied; none if the id is the stream sequence, which the cursor knows.
    pub mark: Option<IdHash>,
    /// The concrete subject.
    pub subject: Box<str>,
    /// The ordering key; none if the consumer has no key.
    pub key: Option<Arc<str>>,
    /// Headers, sorted by name; values of one name in the order in which they arrived.
    pub headers: Headers,
    /// Payload as it arrived.
    pub payload: Bytes,
    /// Its sequence in the stream.
    pub sequence: u64,
    /// When the stream stored it: milliseconds since 1970-01-01 UTC.
    pub published_at_ms: u64,
    /// The stream that it is from; a message may outlive it, parked or as a dead letter.
    pub stream: Arc<StreamIdentity>,
    /// The version of the entity that it is about, for a consumer that orders by it.
    pub entity_version: Option<u64>,
}

impl Message {
    /// The memory it is counted with, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        const FIXED: usize = 256;
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
        FIXED + self.payload.len() + self.subject.len() + self.id.len() + headers
    }

    /// The id of a message that has none of its own: where it is in its stream.
    #[must_use]
    pub fn id_by_sequence(&self) -> Box<str> {
        format!("{}:{}", self.stream.name, self.sequence).into()
    }

    /// The value of the first header of this name, in whatever case it is written.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_ref())
    }
}

/// Why an attempt did not become durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The plug-in asked to be called again.
    Retry {
        /// In the plug-in's words.
        reason: Box<str>,
        /// The delay that it asked for, in milliseconds.
        after_ms: Option<u64>,
    },
    /// The plug-in will never handle this message.
    Reject {
        /// In the plug-in's words.
        reason: Box<str>,
    },
    /// The plug-in says that it is not this message's turn.
    Park {
        /// In the plug-in's words.
        reason: Box<str>,
        /// When it asked to look again, in milliseconds from now.
        after_ms: Option<u64>,
    },
    /// The instance trapped: a panic, an `unreachable`, an exit, a stack overflow.
    Trap {
        /// The trap's message, with the innermost frames if there are any.
        reason: Box<str>,
    },
    /// The attempt ran past its time.
    Timeout {
        /// The limit, in milliseconds.
        limit_ms: u64,
    },
    /// The attempt passed a limit other than time.
    Limit {
        /// Which one, and its value.
        reason: Box<str>,
    },
}

impl Failure {
    /// The stable word for this kind of failure, in logs, metrics and dead letters.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Retry { .. } => "retry",
            Self::Reject { .. } => "reject",
            Self::Park { .. } => "park",
            Self::Trap { .. } => "trap",
            Self::Timeout { .. } => "timeout",
            Self::Limit { .. } => "limit",
        }
    }

    /// What happened, for the operator.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Retry { reason, .. }
            | Self::Reject { reason }
            | Self::Park { reason, .. }
            | Self::Trap { reason }
            | Self::Limit { reason } => reason.to_string(),
            Self::Timeout { limit_ms } => format!("ran past its limit of {limit_ms} ms"),
        }
    }
}

/// One failed attempt, as the history of a dead letter keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedAttempt {
    /// When it ended: milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// The version that failed.
    pub version: Version,
    /// How it failed.
    pub failure: Failure,
}

/// Why a message was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// It can't be handed to any plug-in: no key where one is required, not JSON where JSON was promised, …
    Unreadable(Box<str>),
    /// The plug-in rejected it.
    Rejected,
    /// Its attempts were used up.
    Exhausted,
    /// It was parked for longer than the consumer allows.
    ParkedTooLong,
    /// A version of its entity that comes before it never came.
    GapNeverFilled,
}

impl GivenUp {
    /// The stable word for it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "unreadable",
            Self::Rejected => "rejected",
            Self::Exhausted => "exhausted",
            Self::ParkedTooLong => "parked-too-long",
            Self::GapNeverFilled => "gap-never-filled",
        }
    }

    /// What there is to say about it beyond its kind; empty if the attempts say it.
    #[must_use]
    pub fn reason(&self) -> &str {
        if let Self::Unreadable(reason) = self { reason } else { "" }
    }
}

/// A message given up on, with its reason and history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The message, whole.
    pub message: Arc<Message>,
    /// Why it was given up.
    pub cause: GivenUp,
    /// The attempts in order; at most the last `HISTORY_MAX` of them.
    pub history: Vec<FailedAttempt>,
    /// How many attempts there were, also those that the history no longer holds.
    pub attempts: u32,
    /// When it was given up: milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
}

/// Attempts that a dead letter's history keeps.
pub const HISTORY_MAX: usize = 16;
