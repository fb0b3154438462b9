//! What one durable commit carries. The store encodes it as one record; nothing but the apply of such records changes what is stored.

use std::sync::Arc;

use crate::effects::{Event, WriteSet};
use crate::ids::{ConsumerId, IdHash, RowId, Version};
use crate::message::{DeadLetter, Message};
use crate::parked::{ParkPlace, Parked};

/// A stream, told apart from another of the same name by the time of its creation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StreamIdentity {
    /// The stream's name.
    pub name: Box<str>,
    /// When it was created: nanoseconds since 1970-01-01 UTC, as the broker says.
    pub created_ns: i64,
}

/// From here on the consumer reads this stream, and everything up to `floor` counts as settled. Replaces the cursor it had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The consumer.
    pub consumer: ConsumerId,
    /// Its name in manifests.
    pub name: Box<str>,
    /// What it reads.
    pub stream: StreamIdentity,
    /// The first sequence of interest, less one.
    pub floor: u64,
}

/// The newest message of a stream that was settled, and when the stream stored it: a stream that was set back and has grown again has another message there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Newest {
    /// Its sequence.
    pub sequence: u64,
    /// Milliseconds since 1970-01-01 UTC.
    pub published_at_ms: u64,
}

/// The stretch of a stream that a rewind brings again. What was settled in it before counts as never handled: the marks of ids from before are not looked
/// at, and its events have ids of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Again {
    /// How many rewinds there were.
    pub number: u32,
    /// It begins behind this sequence.
    pub after: u64,
    /// The highest sequence that was settled.
    pub until: u64,
}

impl Again {
    /// The number of the rewind that brings this message of the stream again; 0: none does.
    #[must_use]
    pub fn of(&self, message: &Message, stream: Option<&StreamIdentity>) -> u32 {
        let in_it = message.sequence > self.after && message.sequence <= self.until;
        if in_it && stream == Some(&*message.stream) { self.number } else { 0 }
    }
}

/// What became of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The handler returned ok, and these are its effects.
    Applied {
        /// The version that handled it.
        version: Version,
        /// The mark of its id, if it needs one.
        mark: Option<IdHash>,
        /// The key whose state it changed; none for state that the consumer's keys share.
        state_key: Option<Arc<str>>,
        /// The effects.
        writes: WriteSet,
        /// The outbox row of its first event; the others follow.
        first_row: RowId,
    },
    /// Its id was applied before.
    Duplicate,
    /// A newer version of its entity was applied before.
    Stale,
    /// It was given up.
    DeadLettered {
        /// What is kept of it.
        letter: Arc<DeadLetter>,
        /// The event that tells of it, if the consumer wants one, and its outbox row.
        copy: Option<(RowId, Arc<Event>)>,
    },
    /// It is held durably. Replaces the row of the same place if there is one.
    Parked(Arc<Parked>),
}

/// A delivery and its one outcome, or what became of a parked message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The consumer.
    pub consumer: ConsumerId,
    /// The message's sequence in its stream.
    pub sequence: u64,
    /// The row that it was released from: it was settled with its stream when it was parked, and the row goes unless the outcome parks it again.
    pub released: Option<ParkPlace>,
    /// What became of it.
    pub outcome: Outcome,
}

/// Why a consumer does not work although it could.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HoldBy {
    /// An operator paused it.
    Operator,
    /// Too many of its attempts failed.
    Breaker,
}

/// Since when and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Milliseconds since 1970-01-01 UTC.
    pub since_ms: u64,
    /// In words.
    pub reason: Box<str>,
}

/// A change that no delivery is behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// This dead letter is gone: dropped, or on its way to be handled again.
    RemoveDeadLetter {
        /// Whose it is.
        consumer: ConsumerId,
        /// Its sequence.
        sequence: u64,
        /// When its stream stored it; with the sequence it tells dead letters apart.
        published_at_ms: u64,
    },
    /// This message is parked now. Replaces the row of the same place if there is one.
    Park {
        /// Whose it is.
        consumer: ConsumerId,
        /// The row.
        row: Arc<Parked>,
    },
    /// This parked message is gone.
    RemoveParked {
        /// Whose it was.
        consumer: ConsumerId,
        /// Where it stood.
        place: ParkPlace,
    },
    /// The consumer is held, or is not any more.
    Hold {
        /// The consumer.
        consumer: ConsumerId,
        /// By whom.
        by: HoldBy,
        /// None: not any more.
        hold: Option<Hold>,
    },
    /// The cursor was moved.
    MoveCursor {
        /// The consumer.
        consumer: ConsumerId,
        /// Everything up to it counts as settled.
        after: u64,
        /// Backward: nothing above it does, and this is brought again. None: forward, what was settled above stays.
        again: Option<Again>,
    },
    /// State was changed.
    State {
        /// The consumer.
        consumer: ConsumerId,
        /// The ordering key whose state it is; none: what all keys share.
        key: Option<Arc<str>>,
        /// What was written; no events.
        writes: Arc<WriteSet>,
    },
    /// Nothing is left of the consumer but the events that it committed. Its number is never given again.
    Forget {
        /// The consumer.
        consumer: ConsumerId,
    },
}

/// The write sets, marks, dead letters and cursor movements of one durable commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// When it was closed: milliseconds since 1970-01-01 UTC.
    pub wall_ms: u64,
    /// Consumers that begin to read a stream; applied before all else.
    pub bindings: Vec<Binding>,
    /// Deliveries settled, those of one key in stream order.
    pub settlements: Vec<Settlement>,
    /// Per consumer: the sequence up to which everything is settled once this batch is durable.
    pub floors: Vec<(ConsumerId, u64)>,
    /// Per consumer: stretches above its floor, first and last sequence of each, in which nothing of it is unsettled once this batch is durable.
    /// They join settled sequences over those that are not this consumer's: else a consumer of every other message would
    /// have a range for each that it settles while a lower one waits.
    pub stretches: Vec<(ConsumerId, u64, u64)>,
    /// What operators and policies changed, in order; applied before the settlements.
    pub edits: Vec<Edit>,
    /// Per consumer: the newest message settled.
    pub newest: Vec<(ConsumerId, Newest)>,
    /// Outbox rows that JetStream has acknowledged.
    pub published: Vec<RowId>,
}

impl Batch {
    /// Whether there is nothing in it that a commit would be for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bindings.is_empty() && self.settlements.is_empty() && self.edits.is_empty() && self.published.is_empty()
    }
}
