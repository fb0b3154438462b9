//! What can happen to the core, and what it can ask for. Both are closed: the shell knows no other words.

use std::sync::Arc;

use crate::batch::{Batch, StreamIdentity};
use crate::cursor::Cursor;
use crate::effects::{Event as Emitted, WriteSet};
use crate::ids::{ConsumerId, RowId, Version};
use crate::message::{Failure, Message};
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
        policy: Policy,
        /// Where it begins if it has no cursor.
        start: Start,
    },
    /// A running consumer's policies changed.
    Change {
        /// The consumer.
        consumer: ConsumerId,
        /// Its policies from now on.
        policy: Policy,
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
    },
    /// The batch of the last [`Action::Commit`] is durable.
    Committed,
    /// JetStream has acknowledged these rows.
    Acknowledged(Vec<RowId>),
    /// JetStream did not take this row, or did not say.
    Refused(RowId),
    /// Whether what is executed and not yet folded into the view takes more memory than it may.
    OverlayFull(bool),
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
}
