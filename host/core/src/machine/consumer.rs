//! One consumer's books: what is held, what is settled, how much may be pulled.
//!
//! A sequence is in exactly one place: not delivered yet (above `high`), held (in a lane, executing, or settled in the batch that is still open), or
//! in the cursor.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::breaker::Breaker;
use super::event::{LaneId, Start};
use super::lanes::Load;
use super::pace::Pace;
use super::parking::{ParkBook, RELEASING_MAX};
use super::probation::OnProbation;
use crate::batch::{Again, Hold, HoldBy, Newest, StreamIdentity};
use crate::cursor::Cursor;
use crate::histogram::Histogram;
use crate::message::Failure;
use crate::parked::ParkLane;
use crate::policy::Policy;

/// What a consumer is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Known from the store or from before; not running.
    Stopped,
    /// Waits for its subscription to stand at the cursor.
    Positioning,
    /// Its stream was replaced: ends what is under way, then is positioned anew.
    Rebinding,
    /// Was started before it had stopped: ends what is under way, then is positioned anew. Else what still runs could be handled twice: it is
    /// delivered, or brought back, once more.
    Restarting,
    /// Pulls and handles.
    Running,
    /// Ends what is under way.
    Stopping,
    /// Waits for an operator.
    Halted,
    /// An operator moves its cursor: ends what is under way, then waits until told to go on.
    Suspended,
}

/// What a consumer did since the host was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages applied.
    pub applied: u64,
    /// Messages skipped because their id was applied before.
    pub duplicates: u64,
    /// Deliveries dropped because the cursor or a lane had them.
    pub redelivered: u64,
    /// Failed attempts that are followed by another.
    pub retries: u64,
    /// Messages given up.
    pub dead_letters: u64,
    /// Messages parked.
    pub parked: u64,
    /// Parked messages that got their outcome.
    pub released: u64,
    /// Messages skipped because a newer version of their entity was applied before.
    pub stale: u64,
    /// Failed attempts, by kind.
    pub failures: Failures,
    /// Events acknowledged by JetStream.
    pub published: u64,
}

/// How often attempts failed, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// The plug-in asked for another attempt.
    pub retry: u64,
    /// The plug-in rejected the message.
    pub reject: u64,
    /// The plug-in said that it is not the message's turn.
    pub park: u64,
    /// The instance trapped.
    pub trap: u64,
    /// The attempt ran past its time.
    pub timeout: u64,
    /// The attempt passed another limit.
    pub limit: u64,
}

impl Failures {
    pub(crate) fn count(&mut self, failure: &Failure) {
        *match failure {
            Failure::Retry { .. } => &mut self.retry,
            Failure::Reject { .. } => &mut self.reject,
            Failure::Park { .. } => &mut self.park,
            Failure::Trap { .. } => &mut self.trap,
            Failure::Timeout { .. } => &mut self.timeout,
            Failure::Limit { .. } => &mut self.limit,
        } += 1;
    }
}

/// Lanes of one kind whose parked messages come back.
#[derive(Debug, Default)]
pub(crate) struct Releases {
    /// Those that wait for a place.
    pub(crate) queue: VecDeque<ParkLane>,
    /// How many places are taken.
    pub(crate) under_way: usize,
}

impl Releases {
    fn next(&mut self) -> Option<ParkLane> {
        if self.under_way < RELEASING_MAX { self.queue.pop_front() } else { None }
    }
}

/// One consumer.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) name: Box<str>,
    pub(crate) phase: Phase,
    pub(crate) policy: Policy,
    pub(crate) start: Start,
    pub(crate) generation: u64,
    pub(crate) stream: Option<StreamIdentity>,
    /// Settled, also by outcomes that are still being committed.
    pub(crate) cursor: Cursor,
    /// Everything up to it is durably settled.
    pub(crate) durable_floor: u64,
    /// The newest message settled.
    pub(crate) newest: Option<Newest>,
    /// What a rewind brings again.
    pub(crate) again: Again,
    /// Sequence → bytes of each message that is held.
    held: BTreeMap<u64, usize>,
    held_bytes: usize,
    /// Outcomes of messages that were parked, in the open batch or being committed.
    pub(crate) committing_released: usize,
    /// Settled in the batch that is being committed.
    pub(crate) committing: usize,
    pub(crate) committing_bytes: usize,
    /// The highest sequence delivered: everything up to it was delivered, or is not of this consumer's subjects.
    high: u64,
    /// Messages pulled for and not delivered yet.
    pub(crate) requested: usize,
    pub(crate) ready: VecDeque<LaneId>,
    /// Whether it stands in the core's round of consumers with ready lanes.
    pub(crate) in_round: bool,
    pub(crate) running: usize,
    pub(crate) by_key: FxHashMap<Arc<str>, LaneId>,
    pub(crate) waiting_retry: usize,
    /// What the lanes take that wait for another attempt.
    pub(crate) retrying: Load,
    pub(crate) outbox_rows: usize,
    /// From a message's publication until its effects were durable, in milliseconds, since the host was started.
    pub(crate) end_to_end_ms: Histogram,
    pub(crate) counters: Counters,
    /// The lanes that have parked messages.
    pub(crate) parked: FxHashMap<ParkLane, ParkBook>,
    pub(crate) parked_rows: u64,
    /// The releases of lanes that one of their messages holds.
    pub(crate) held_releases: Releases,
    /// Those of the others.
    pub(crate) releases: Releases,
    /// What a start found and no timer was set for yet.
    pub(crate) recovered_untils: Vec<(ParkLane, Option<u64>)>,
    /// Who keeps it from working.
    pub(crate) holds: BTreeMap<HoldBy, Hold>,
    pub(crate) breaker: Breaker,
    /// The version that is watched; none: none is.
    pub(crate) probation: Option<OnProbation>,
    pub(crate) pace: Pace,
    /// Since when it reads and handles without a pause, on the clock of `tick_ms`. Time during which it could not is nobody's fault: deadlines are
    /// measured from here, if they began before.
    pub(crate) working_since_tick_ms: u64,
    /// When its pace allows the next attempt, if there is a timer for that.
    pub(crate) paced_until_tick_ms: Option<u64>,
}

impl Consumer {
    pub(crate) fn new(name: Box<str>, stream: Option<StreamIdentity>, cursor: Cursor) -> Self {
        Self {
            name,
            phase: Phase::Stopped,
            policy: Policy::default(),
            start: Start::All,
            generation: 0,
            stream,
            high: cursor.floor(),
            durable_floor: cursor.floor(),
            cursor,
            newest: None,
            again: Again::default(),
            held: BTreeMap::new(),
            held_bytes: 0,
            committing_released: 0,
            committing: 0,
            committing_bytes: 0,
            requested: 0,
            ready: VecDeque::new(),
            in_round: false,
            running: 0,
            by_key: FxHashMap::default(),
            waiting_retry: 0,
            retrying: Load::default(),
            outbox_rows: 0,
            end_to_end_ms: Histogram::default(),
            counters: Counters::default(),
            parked: FxHashMap::default(),
            parked_rows: 0,
            held_releases: Releases::default(),
            releases: Releases::default(),
            recovered_untils: Vec::new(),
            holds: BTreeMap::new(),
            breaker: Breaker::default(),
            probation: None,
            pace: Pace::default(),
            working_since_tick_ms: 0,
            paced_until_tick_ms: None,
        }
    }

    /// Begins to read another stream, after `floor`.
    pub(crate) fn bind(&mut self, stream: StreamIdentity, floor: u64) {
        self.stream = Some(stream);
        self.cursor = Cursor::at(floor);
        self.high = floor;
        self.durable_floor = floor;
        self.newest = None;
        // The number goes on: marks of another stream's messages must not be met again under it.
        self.again = Again { number: self.again.number, ..Again::default() };
    }

    /// The cursor was moved, while nothing is held: what is delivered next follows on it.
    pub(crate) fn stand_at_cursor(&mut self) {
        self.high = self.cursor.floor();
        self.durable_floor = self.cursor.floor();
    }

    /// Settled ranges above the floor, the first `most` of them.
    pub(crate) fn ranges(&self, most: usize) -> Vec<(u64, u64)> {
        self.cursor.ranges().take(most).collect()
    }

    /// A delivery came. Within a generation they come in order and without a gap, so whatever lies before it was delivered or is not
    /// this consumer's.
    pub(crate) fn delivered(&mut self, sequence: u64) {
        self.high = self.high.max(sequence);
    }

    /// Takes a delivery into the books. False if it is held already.
    pub(crate) fn hold(&mut self, sequence: u64, bytes: usize) -> bool {
        let Entry::Vacant(place) = self.held.entry(sequence) else { return false };
        place.insert(bytes);
        self.held_bytes += bytes;
        true
    }

    /// Moves a held delivery into the cursor, as its outcome goes into a batch. Gives back its bytes.
    pub(crate) fn settle(&mut self, sequence: u64) -> usize {
        self.cursor.settle(sequence);
        let Some(bytes) = self.held.remove(&sequence) else { return 0 };
        self.held_bytes -= bytes;
        self.committing += 1;
        self.committing_bytes += bytes;
        bytes
    }

    /// Lets go of a delivery without an outcome: the next position delivers it again, so the floor stays below it.
    pub(crate) fn let_go(&mut self, sequence: u64) {
        if let Some(bytes) = self.held.remove(&sequence) {
            self.held_bytes -= bytes;
            self.high = self.high.min(sequence - 1);
        }
    }

    /// Whether nothing of it is held, executing or being committed.
    pub(crate) fn is_quiet(&self) -> bool {
        self.running == 0 && self.held.is_empty() && self.committing == 0 && self.committing_released == 0
    }

    /// The sequence up to which everything is settled or was never this consumer's; raises the cursor to it.
    pub(crate) fn close_floor(&mut self) -> u64 {
        let floor = self.held.keys().next().map_or(self.high, |lowest| self.high.min(lowest - 1));
        self.cursor.raise_floor(floor);
        self.cursor.floor()
    }

    /// The stretch around a settled sequence in which nothing is held, if it was not settled as a whole; settles it. Above `high` nothing is known of
    /// what lies between.
    pub(crate) fn join_around(&mut self, sequence: u64) -> Option<(u64, u64)> {
        let floor = self.cursor.floor();
        if sequence <= floor {
            return None;
        }
        let below = self.held.range(..sequence).next_back().map_or(floor, |(held, _)| (*held).max(floor));
        let above = self.held.range(sequence..).next().map_or(self.high, |(held, _)| self.high.min(held - 1));
        if self.cursor.contains_range(below + 1, above) {
            return None;
        }
        self.cursor.settle_range(below + 1, above);
        Some((below + 1, above))
    }

    /// When nothing is held or being committed, all that was delivered is durably settled, and the floor rises to it. No outcome may come that
    /// carries it: the next start finds it out again in the same way.
    pub(crate) fn rise_if_idle(&mut self) {
        if self.held.is_empty() && self.committing == 0 {
            self.durable_floor = self.close_floor();
        }
    }

    /// The highest sequence that was settled or is in hand: the stream must still reach to it, or another message will take it.
    pub(crate) fn highest_known(&self) -> u64 {
        let held = self.held.keys().next_back().copied().unwrap_or(0);
        self.high.max(held).max(self.cursor.highest())
    }

    /// Messages held and not yet durably settled.
    pub(crate) fn in_hand(&self) -> usize {
        self.held.len() + self.committing
    }

    /// How many messages to pull now; 0 if there is no need or no room.
    pub(crate) fn pull_size(&self) -> usize {
        /// Smaller pulls than this cost more than they bring, unless none is out.
        const STEP: usize = 1_000;
        /// Keys, and messages without a key, that may have parked messages: each has a book in memory, of some hundred bytes.
        const PARKED_LANES_MAX: usize = 100_000;
        let policy = &self.policy;
        if self.phase != Phase::Running
            || self.held_bytes + self.committing_bytes >= policy.bytes_held_max
            || self.outbox_rows >= policy.outbox_rows_max
            || self.parked_rows >= policy.release.rows_max
            || self.parked.len() >= PARKED_LANES_MAX
            || self.is_paused()
        {
            return 0;
        }
        let room = policy.messages_held_max.saturating_sub(self.in_hand() + self.requested);
        let step = STEP.min(policy.messages_held_max / 4).max(1);
        if room >= step || (self.requested == 0 && room > 0) { room } else { 0 }
    }

    /// The releases of lanes of this kind.
    pub(crate) fn releases_of(&mut self, was_held: bool) -> &mut Releases {
        if was_held { &mut self.held_releases } else { &mut self.releases }
    }

    /// The next lane to be released, if there is a place for it.
    pub(crate) fn next_release(&mut self) -> Option<ParkLane> {
        self.releases.next().or_else(|| self.held_releases.next())
    }

    /// Whether an operator paused it.
    pub(crate) fn is_paused(&self) -> bool {
        self.holds.contains_key(&HoldBy::Operator)
    }

    /// Whether it may use an executor at all: nobody paused it, its breaker lets it, and its pace does.
    pub(crate) fn could_begin(&self) -> bool {
        !self.is_paused() && self.breaker.allowed() > 0 && self.paced_until_tick_ms.is_none()
    }

    pub(crate) fn high(&self) -> u64 {
        self.high
    }

    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }
}
