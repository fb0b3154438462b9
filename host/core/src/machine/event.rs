//! What can happen to the core, and what it can ask for. Both are closed: the shell knows no other words.

use std::sync::Arc;

use super::probation::Probation;
use crate::batch::{Again, Batch, Hold, HoldBy, Newest, StreamIdentity};
use crate::cursor::Cursor;
use crate::effects::{Event as Emitted, WriteSet};
use crate::ids::{ConsumerId, ParkId, RowId, Version};
use crate::message::{Failure, Message};
use crate::parked::{ParkLane, ParkPlace, Parked};
use crate::policy::Policy;

/// Where a consumer begins that has no cursor yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With the oldest message that the stream holds.
    #[default]
    All,
    /// With the first message published after the consumer was first started.
    New,
}

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// A consumer begins, or begins again after it was stopped.
    Start {
        /// Its number, from [`crate::Core::register`].
        consumer: ConsumerId,
        /// Its policies.
        policy: Box<Policy>,
        /// Where it begins if it has no cursor.
        start: Start,
    },
    /// A running consumer's policies changed.
    Change {
        /// The consumer.
        consumer: ConsumerId,
        /// Its policies from now on.
        policy: Box<Policy>,
    },
    /// Another version of the plug-in serves from now on.
    Swapped {
        /// The consumer.
        consumer: ConsumerId,
    },
    /// The version that serves from now on is new: it is watched, and there is one before it to go back to.
    Probation {
        /// The consumer.
        consumer: ConsumerId,
        /// The version, and for how long.
        probation: Probation,
    },
    /// The parked messages that [`Action::Fetch`] asked for, in order.
    Fetched {
        /// The consumer.
        consumer: ConsumerId,
        /// That of the action.
        lane: ParkLane,
        /// That of the action.
        ticket: u64,
        /// The messages; none if there are no more.
        rows: Vec<Arc<Parked>>,
    },
    /// A consumer is to stop: running attempts end, what they did is committed, then [`Action::Stopped`].
    Stop {
        /// The consumer.
        consumer: ConsumerId,
    },
    /// The subscription stands where [`Action::Position`] wanted it; nothing was pulled yet.
    Positioned {
        /// The consumer.
        consumer: ConsumerId,
        /// That of the action.
        generation: u64,
        /// The stream as it is now.
        stream: StreamIdentity,
        /// The stream's last sequence.
        last_sequence: u64,
    },
    /// Deliveries may have been lost on the way: the subscription has to be positioned again.
    Lost {
        /// The consumer.
        consumer: ConsumerId,
        /// The generation that came to an end.
        generation: u64,
    },
    /// Deliveries, in stream order and without a gap within a generation.
    Delivered {
        /// The consumer.
        consumer: ConsumerId,
        /// That of the last position.
        generation: u64,
        /// The messages.
        arrivals: Vec<Arrival>,
    },
    /// A pull is over.
    PullEnded {
        /// The consumer.
        consumer: ConsumerId,
        /// That of the pull.
        generation: u64,
        /// How many of its messages were not delivered.
        undelivered: u32,
    },
    /// A run is over, or was cut short between two of its messages.
    RunEnded {
        /// Its consumer.
        consumer: ConsumerId,
        /// Its lane.
        lane: LaneId,
        /// One result for each message that was handled, in order. Only the last may be a failure.
        results: Vec<JobResult>,
        /// How long it kept its executor busy, in microseconds.
        busy_us: u64,
    },
    /// The batch of the last [`Action::Commit`] is durable.
    Committed,
    /// JetStream has acknowledged these rows.
    Acknowledged(Vec<RowId>),
    /// JetStream did not take this row, or did not say.
    Refused(RowId),
    /// Whether what is executed and not yet folded into the view takes more memory than it may.
    OverlayFull(bool),
    /// Whether the disk of the store has less room than it must keep.
    DiskLow(bool),
    /// The host is to stop: nothing new is begun, and [`Action::Drained`] follows when nothing is under way.
    Drain,
    /// Time has passed.
    Tick,
}

/// A delivery, read.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The message.
    pub message: Arc<Message>,
    /// Why no plug-in can be given it, if so.
    pub unreadable: Option<Box<str>>,
}

/// What became of one message of a run.
#[derive(Debug)]
pub enum JobResult {
    /// The handler returned ok.
    Applied {
        /// The version that handled it.
        version: Version,
        /// Its effects, which later attempts of the key can see already.
        writes: WriteSet,
    },
    /// Its id is among the processed ones; the handler was not called.
    Duplicate,
    /// A version of its entity that is not older was applied before; the handler was not called.
    Stale,
    /// A version of its entity that comes before it is missing; the handler was not called.
    Gap {
        /// The version that would be next.
        expected: u64,
    },
    /// The attempt failed and left nothing.
    Failed {
        /// The version that failed.
        version: Version,
        /// How.
        failure: Failure,
    },
}

/// A lane, by its place in the core. Places are used again when a lane has become empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub(crate) usize);

/// Messages at the head of one lane, to be handled one after the other by one thread, up to the first failure.
#[derive(Debug)]
pub struct Run {
    /// The consumer.
    pub consumer: ConsumerId,
    /// The lane; goes back in [`Input::RunEnded`].
    pub lane: LaneId,
    /// In stream order, at least one.
    pub jobs: Vec<Job>,
    /// It was handed over because those before it are believed to be short. Where they are not, it comes back untouched: other consumers may need the thread more.
    pub ahead: bool,
}

/// One attempt to make.
#[derive(Debug)]
pub struct Job {
    /// The message.
    pub message: Arc<Message>,
    /// From 1; one that was parked has the number that it had.
    pub attempt: u32,
    /// Whether its id is looked up among the processed ones.
    pub dedup: bool,
    /// The number of the rewind that brings it again: then only what was handled since counts as processed. 0: none does.
    pub again: u32,
    /// Whether its entity's version has to be the next one; none: it is not ordered by version.
    pub versions: Option<VersionRule>,
    /// How long it was held before this run began, in milliseconds; none: it was tried before, and waited for its next attempt.
    pub waited_ms: Option<u64>,
}

/// How an executor checks a message's entity version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionRule {
    /// The first version of an entity, if it is known.
    pub first: Option<u64>,
    /// Whether it is handled although one before it is missing.
    pub gap_allowed: bool,
}

/// What there is to do with a message by the version of its entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is next.
    Now,
    /// It, or a newer one, was applied before.
    Stale,
    /// One before it is missing.
    Gap {
        /// The version that would be next.
        expected: u64,
    },
}

impl VersionRule {
    /// Judges a message of this version, when `known` is the last one that was applied.
    #[must_use]
    pub fn judge(&self, version: u64, known: Option<u64>) -> Turn {
        let expected = known.map_or(self.first, |known| known.checked_add(1));
        match expected {
            _ if known.is_some_and(|known| version <= known) => Turn::Stale,
            Some(expected) if version > expected && !self.gap_allowed => Turn::Gap { expected },
            _ => Turn::Now,
        }
    }
}

/// Parked messages to read, in order.
#[derive(Debug)]
pub struct Fetch {
    /// The consumer.
    pub consumer: ConsumerId,
    /// The lane.
    pub lane: ParkLane,
    /// Goes back in [`Input::Fetched`].
    pub ticket: u64,
    /// Only those behind this place; none: from the first one.
    pub after: Option<(u64, ParkId)>,
    /// How many, at most.
    pub rows_max: usize,
    /// It may end once they take this much memory, in bytes.
    pub bytes_max: usize,
}

/// Something to do.
#[derive(Debug)]
pub enum Action {
    /// Bring the subscription to the first message after `after`, then say [`Input::Positioned`].
    Position {
        /// The consumer.
        consumer: ConsumerId,
        /// Marks all that follows from it.
        generation: u64,
        /// Everything up to this sequence is settled.
        after: u64,
        /// The newest message that was settled, and its stream: if that has another message there, it went backwards.
        newest: Option<(StreamIdentity, Newest)>,
    },
    /// Fetch up to this many messages.
    Pull {
        /// The consumer.
        consumer: ConsumerId,
        /// That of the last position.
        generation: u64,
        /// How many.
        messages: u32,
    },
    /// Execute.
    Execute(Run),
    /// Read parked messages; then [`Input::Fetched`].
    Fetch(Fetch),
    /// A message is parked, or its row was replaced; becomes durable with a later commit. Whoever reads parked messages has to see it at once.
    Parked {
        /// The consumer.
        consumer: ConsumerId,
        /// The row.
        row: Arc<Parked>,
    },
    /// A message is parked no more; becomes durable with a later commit. Whoever reads parked messages may not see it any more.
    Unparked {
        /// The consumer.
        consumer: ConsumerId,
        /// Where it stood.
        place: ParkPlace,
    },
    /// A dead letter is gone; becomes durable with a later commit. Whoever reads dead letters may not see it any more.
    DeadLetterRemoved {
        /// The consumer.
        consumer: ConsumerId,
        /// Its sequence.
        sequence: u64,
        /// When its stream stored it.
        published_at_ms: u64,
    },
    /// An operator changed state; becomes durable with a later commit. Whoever reads state has to see it at once.
    StateEdited {
        /// The consumer.
        consumer: ConsumerId,
        /// The ordering key whose state it is; none: what all keys share.
        key: Option<Arc<str>>,
        /// What was written.
        writes: Arc<WriteSet>,
    },
    /// The consumer was paused, by an operator or by its breaker, or goes on.
    Held {
        /// The consumer.
        consumer: ConsumerId,
        /// By whom.
        by: HoldBy,
        /// None: it goes on.
        hold: Option<Hold>,
    },
    /// The version failed in its probation: bring back the one before it, then say [`Input::Swapped`].
    RollBack {
        /// The consumer.
        consumer: ConsumerId,
        /// The version that failed.
        version: Version,
        /// How, in words.
        reason: Box<str>,
    },
    /// Make durable; then [`Input::Committed`]. No other commit is asked for meanwhile.
    Commit(Arc<Batch>),
    /// These deliveries are durably settled: tell JetStream.
    Settle {
        /// The consumer.
        consumer: ConsumerId,
        /// Everything up to it is settled.
        floor: u64,
        /// What was settled since the last time, in no particular order.
        sequences: Vec<u64>,
    },
    /// Publish; then [`Input::Acknowledged`] or [`Input::Refused`].
    Publish {
        /// Its row.
        row: RowId,
        /// What to publish, under its own id.
        event: Arc<Emitted>,
    },
    /// The consumer has stopped; nothing of it is under way.
    Stopped {
        /// The consumer.
        consumer: ConsumerId,
    },
    /// The consumer can't go on without an operator.
    Halted {
        /// The consumer.
        consumer: ConsumerId,
        /// Why.
        reason: HaltReason,
    },
    /// A consumer reads a stream that it has no cursor for.
    Bound {
        /// The consumer.
        consumer: ConsumerId,
        /// The stream.
        stream: StreamIdentity,
        /// The stream of this name that it read before, which is gone.
        replaced: Option<StreamIdentity>,
        /// Where it begins: after this sequence.
        after: u64,
    },
    /// Nothing is under way any more.
    Drained,
    /// A message was given up; becomes durable with a later commit.
    DeadLettered {
        /// The consumer.
        consumer: ConsumerId,
        /// The dead letter.
        letter: Arc<crate::message::DeadLetter>,
    },
}

/// Why a consumer was stopped by the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HaltReason {
    /// The attempts of a message are used up, and the consumer's policy is to halt then.
    Exhausted {
        /// The message's sequence.
        sequence: u64,
        /// Its ordering key.
        key: Option<Arc<str>>,
        /// How many attempts there were.
        attempts: u32,
        /// How the last one failed.
        failure: Failure,
    },
    /// The stream has lost messages that were settled; going on would skip those that take their sequences.
    StreamWentBackwards {
        /// The stream.
        stream: Box<str>,
        /// Its last sequence now.
        last_sequence: u64,
        /// The highest sequence that was known of it, which is gone.
        floor: u64,
    },
}

/// What the store remembers of a consumer.
#[derive(Clone, Debug)]
pub struct KnownConsumer {
    /// Its number.
    pub id: ConsumerId,
    /// Its name.
    pub name: Box<str>,
    /// The stream that its cursor belongs to.
    pub stream: StreamIdentity,
    /// How far it is.
    pub cursor: Cursor,
    /// By whom it is held, since when and why.
    pub holds: Vec<(HoldBy, Hold)>,
    /// The newest message that was settled; none: none was.
    pub newest: Option<Newest>,
    /// What a rewind brings again.
    pub again: Again,
}

/// An event that was committed and is not known to be published.
#[derive(Clone, Debug)]
pub struct OutboxRow {
    /// Its row.
    pub row: RowId,
    /// The consumer that emitted it.
    pub consumer: ConsumerId,
    /// The event.
    pub event: Arc<Emitted>,
    /// When it was committed: milliseconds since 1970-01-01 UTC.
    pub since_ms: u64,
}
