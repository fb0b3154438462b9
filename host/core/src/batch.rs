//! What one durable commit carries. The store encodes it as one record; nothing but the apply of such records changes what is stored.

use std::sync::Arc;

use crate::effects::WriteSet;
use crate::ids::{ConsumerId, IdHash, RowId, Version};
use crate::message::DeadLetter;

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
    /// It was given up.
    DeadLettered(Arc<DeadLetter>),
}

/// A delivery and its one outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The consumer.
    pub consumer: ConsumerId,
    /// The delivery's sequence in the consumer's stream.
    pub sequence: u64,
    /// What became of it.
    pub outcome: Outcome,
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
    /// Outbox rows that JetStream has acknowledged.
    pub published: Vec<RowId>,
}

impl Batch {
    /// Whether there is nothing in it that a commit would be for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bindings.is_empty() && self.settlements.is_empty() && self.published.is_empty()
    }
}
