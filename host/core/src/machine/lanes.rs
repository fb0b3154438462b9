//! Lanes: the FIFO of each (consumer, ordering key). Owns the messages that are held; knows nothing of commits or of the broker.
//!
//! A lane exists while it holds messages. It is in exactly one state, and only a `Ready` one is in its consumer's ready queue.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::event::LaneId;
use crate::ids::{ConsumerId, IdHash};
use crate::message::{FailedAttempt, HISTORY_MAX, Message};
use crate::parked::{ParkCause, ParkPlace, Parked};
use crate::policy::Policy;
use crate::time::Now;

/// A message that waits in its lane, and what happened to it so far.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) message: Arc<Message>,
    /// When it came, on the clock of `tick_ms`; none once it was tried.
    pub(crate) came_tick_ms: Option<u64>,
    /// Calls of the handler so far.
    pub(crate) calls: u32,
    /// Those that count against the consumer's attempts.
    pub(crate) failures: u32,
    /// When the first of them ended, on the clock of `tick_ms`.
    pub(crate) failing_since_tick_ms: Option<u64>,
    pub(crate) history: VecDeque<FailedAttempt>,
    /// The parked row that it was brought back from: its delivery was settled when it was parked.
    pub(crate) released: Option<ParkPlace>,
    /// Why it was parked.
    pub(crate) cause: Option<ParkCause>,
    /// Until when it was to be parked: milliseconds since 1970-01-01 UTC.
    pub(crate) until_ms: Option<u64>,
    /// When it was first parked.
    pub(crate) parked_at_ms: Option<u64>,
    /// How often it was brought back after its attempts had been used up.
    pub(crate) releases: u32,
    /// It is handled although a version before its own is missing.
    pub(crate) gap_allowed: bool,
}

impl Waiting {
    /// A delivery.
    pub(crate) fn new(message: Arc<Message>, now: Now) -> Self {
        Self {
            message,
            came_tick_ms: Some(now.tick_ms),
            calls: 0,
            failures: 0,
            failing_since_tick_ms: None,
            history: VecDeque::new(),
            released: None,
            cause: None,
            until_ms: None,
            parked_at_ms: None,
            releases: 0,
            gap_allowed: false,
        }
    }

    /// A parked message that was brought back.
    pub(crate) fn released(row: &Parked, now: Now) -> Self {
        // Its retries go on, so the time that they may take began with the first of them that is known.
        let first = row.history.len().saturating_sub(row.failures as usize);
        let since_ms = row.history.get(first).map(|first| now.wall_ms.saturating_sub(first.at_ms));
        Self {
            failing_since_tick_ms: since_ms.map(|since_ms| now.tick_ms.saturating_sub(since_ms)),
            calls: row.attempts,
            failures: row.failures,
            history: row.history.iter().cloned().collect(),
            released: Some(row.place()),
            cause: Some(row.cause),
            until_ms: row.until_ms,
            parked_at_ms: Some(row.parked_at_ms),
            releases: row.releases.saturating_add(u32::from(row.cause == ParkCause::Exhausted)),
            ..Self::new(Arc::clone(&row.message), now)
        }
    }

    pub(crate) fn remember(&mut self, failed: FailedAttempt) {
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(failed);
    }
}

/// A part of a consumer's books.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

impl Load {
    /// What a message takes. One that was brought back is in the store, and not in the books.
    pub(crate) fn of(waiting: &Waiting) -> Self {
        match waiting.released {
            Some(_) => Self::default(),
            None => Self { messages: 1, bytes: waiting.message.weight() },
        }
    }

    pub(crate) fn add(&mut self, more: Self) {
        self.messages += more.messages;
        self.bytes += more.bytes;
    }

    pub(crate) fn remove(&mut self, less: Self) {
        self.messages -= less.messages;
        self.bytes -= less.bytes;
    }

    /// Whether it is the `part`th part of the books or more.
    pub(crate) fn is_part(self, part: usize, policy: &Policy) -> bool {
        self.messages * part >= policy.messages_held_max || self.bytes * part >= policy.bytes_held_max
    }
}

/// What a lane is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LaneState {
    /// Waits for an executor.
    Ready,
    /// A run of its first `jobs` messages is out, with these claims on message ids. Whose state it changes, and what it was charged with, was decided when it began.
    Running { jobs: usize, claims: Vec<IdHash>, shared_state: bool, charge: u64 },
    /// Waits for its head's next attempt, and takes so much of its consumer's books meanwhile.
    Backoff { until_tick_ms: u64, load: Load },
    /// Its head's id is being handled in another lane.
    Blocked,
}

/// The FIFO of one (consumer, ordering key).
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) consumer: ConsumerId,
    pub(crate) key: Option<Arc<str>>,
    pub(crate) queue: VecDeque<Waiting>,
    pub(crate) state: LaneState,
}

impl Lane {
    /// When its head's next attempt is, if it waits for that: on the clock of `tick_ms`.
    pub(crate) fn rests_until(&self) -> Option<u64> {
        if let LaneState::Backoff { until_tick_ms, .. } = self.state { Some(until_tick_ms) } else { None }
    }

    /// Puts back messages from its head that are to be tried again, in their order: behind those that the first of them follows, unless that may pass
    /// them.
    pub(crate) fn put_back(&mut self, mut again: Vec<Waiting>) {
        let Some(first) = again.first() else { return };
        let version = first.message.entity_version;
        let follows = |other: &Waiting| other.message.entity_version.is_some_and(|other| Some(other) < version);
        let behind = if first.gap_allowed { None } else { self.queue.iter().rposition(follows) };
        let mut at = behind.map_or(0, |last| last + 1);
        // Those that were brought back with it stand in their order, so they come too early as well: none needs a turn to find that out.
        while at > 0
            && let Some(next) = self.queue.pop_front_if(|next| next.released.is_some() && !follows(next))
        {
            again.push(next);
            at -= 1;
        }
        let rest = self.queue.split_off(at);
        self.queue.extend(again);
        self.queue.extend(rest);
    }
}

/// All lanes of the host.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    places: Vec<Option<Lane>>,
    free: Vec<usize>,
    /// How many each consumer has.
    counts: BTreeMap<ConsumerId, usize>,
}

impl Lanes {
    pub(crate) fn insert(&mut self, lane: Lane) -> LaneId {
        *self.counts.entry(lane.consumer).or_default() += 1;
        if let Some(place) = self.free.pop()
            && let Some(slot) = self.places.get_mut(place)
        {
            *slot = Some(lane);
            return LaneId(place);
        }
        self.places.push(Some(lane));
        LaneId(self.places.len() - 1)
    }

    pub(crate) fn get(&self, id: LaneId) -> Option<&Lane> {
        self.places.get(id.0).and_then(Option::as_ref)
    }

    pub(crate) fn get_mut(&mut self, id: LaneId) -> Option<&mut Lane> {
        self.places.get_mut(id.0).and_then(Option::as_mut)
    }

    pub(crate) fn remove(&mut self, id: LaneId) -> Option<Lane> {
        let lane = self.places.get_mut(id.0).and_then(Option::take);
        if let Some(lane) = &lane {
            self.free.push(id.0);
            if let Some(count) = self.counts.get_mut(&lane.consumer) {
                *count -= 1;
            }
        }
        lane
    }

    /// How many the consumer has.
    pub(crate) fn count(&self, consumer: ConsumerId) -> usize {
        self.counts.get(&consumer).copied().unwrap_or_default()
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.free.len() == self.places.len()
    }

    /// The places of a consumer's lanes, in order. Walks all lanes: for stops, not for messages.
    pub(crate) fn of(&self, consumer: ConsumerId) -> Vec<LaneId> {
        let own = |(_, lane): &(usize, &Option<Lane>)| lane.as_ref().is_some_and(|lane| lane.consumer == consumer);
        self.places.iter().enumerate().filter(own).map(|(place, _)| LaneId(place)).collect()
    }
}
