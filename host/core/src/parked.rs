//! Messages held durably out of their lanes, in order: what is kept of them, and where they stand.

use std::sync::Arc;

use crate::ids::{ConsumerId, ParkId};
use crate::message::{FailedAttempt, Message};

/// What parked messages stand behind each other for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ParkLane {
    /// Those of this ordering key, in order.
    Key(Arc<str>),
    /// A message without a key, for itself.
    Alone(ParkId),
}

/// Why a message is parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParkCause {
    /// Its attempts were used up; its key is held.
    Exhausted,
    /// It waits for its next attempt, and too much of its key came meanwhile to be kept in memory; its key is held.
    Retrying,
    /// The plug-in said that it is not its turn; its key goes on.
    Asked,
    /// A version of its entity that comes before it is missing; its key goes on.
    Gap {
        /// The version that is missing.
        expected: u64,
    },
    /// It came while its key was held, or while earlier ones of it were being released.
    Behind,
    /// An operator wants it to be handled again.
    Replayed,
}

impl ParkCause {
    /// The stable word for it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Retrying => "retrying",
            Self::Asked => "asked",
            Self::Gap { .. } => "gap",
            Self::Behind => "behind",
            Self::Replayed => "replayed",
        }
    }

    /// Whether all that comes of its key is parked behind it.
    #[must_use]
    pub fn holds_key(&self) -> bool {
        matches!(self, Self::Exhausted | Self::Retrying)
    }

    /// Whether it was set aside, and its key goes on without it.
    #[must_use]
    pub fn is_aside(&self) -> bool {
        matches!(self, Self::Asked | Self::Gap { .. })
    }
}

/// A parked message: one row of the store, replaced as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// Its number.
    pub id: ParkId,
    /// The message, whole.
    pub message: Arc<Message>,
    /// Why it is parked.
    pub cause: ParkCause,
    /// When it is looked at again by itself, in milliseconds since 1970-01-01 UTC; none: only when something else releases it.
    pub until_ms: Option<u64>,
    /// When it was first parked: milliseconds since 1970-01-01 UTC.
    pub parked_at_ms: u64,
    /// How often it was brought back after its attempts had been used up.
    pub releases: u32,
    /// Attempts in all.
    pub attempts: u32,
    /// Those that count against the attempts that it has until it is parked as exhausted.
    pub failures: u32,
    /// The last attempts; at most [`crate::message::HISTORY_MAX`] of them.
    pub history: Vec<FailedAttempt>,
}

impl Parked {
    /// Where it stands.
    #[must_use]
    pub fn place(&self) -> ParkPlace {
        let lane = self.message.key.clone().map_or(ParkLane::Alone(self.id), ParkLane::Key);
        ParkPlace { lane, order: self.message.entity_version.unwrap_or(self.id.0), id: self.id }
    }

    /// The memory it is counted with, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        const FIXED: usize = 128;
        let history: usize = self.history.iter().map(|attempt| 64 + attempt.failure.reason().len()).sum();
        FIXED + self.message.weight() + history
    }
}

/// Where a parked message stands among those of its consumer. Never changes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParkPlace {
    /// Its lane.
    pub lane: ParkLane,
    /// Its place in the lane: the version of its entity, or its number.
    pub order: u64,
    /// Its number.
    pub id: ParkId,
}

/// The parked messages of one lane, as a start finds them: enough to go on without reading the messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedLane {
    /// Whose they are.
    pub consumer: ConsumerId,
    /// The lane.
    pub lane: ParkLane,
    /// How many there are.
    pub rows: u64,
    /// The one that holds the key, if there is one: its cause, and when it is released.
    pub holding: Option<(ParkCause, Option<u64>)>,
    /// How many of them were set aside; the others stand behind something, or are to be handled at once.
    pub aside: u64,
    /// When the first of those that were set aside is looked at again.
    pub aside_until_ms: Option<u64>,
    /// The lowest place in the lane.
    pub lowest_order: u64,
}
