//! The core itself: takes inputs, keeps the books of all consumers, says what to do.
//!
//! The same inputs in the same order give the same actions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rustc_hash::FxHashMap;

use super::commit::{InCommit, OpenBatch};
use super::consumer::{Consumer, Phase};
use super::event::{Action, Input, KnownConsumer, LaneId, OutboxRow};
use super::lanes::Lanes;
use super::relay::{OrderKey, Relay};
use crate::breaks::{Break, Breaks};
use crate::cursor::Cursor;
use crate::ids::{ConsumerId, IdHash};
use crate::parked::{ParkLane, ParkedLane};
use crate::time::Now;

/// Limits and choices of the whole host.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Runs that may be out at once, however long they take: enough that no executor waits for the core.
    pub runs_max: usize,
    /// Runs that may be out at once while they are short: where each is a message or two, `runs_max` of them are done before more can be handed over.
    pub short_runs_max: usize,
    /// Threads that execute them.
    pub executors: usize,
    /// Messages of one run, at most.
    pub run_messages_max: usize,
    /// Events in flight to JetStream, at most.
    pub relay_in_flight_max: usize,
    /// Acknowledged rows wait this long for a commit that goes out anyway before they get one of their own, in milliseconds.
    pub published_flush_ms: u64,
    /// Decides the jitter of delays.
    pub jitter_seed: u64,
    /// Guarantees broken on purpose; none in normal builds.
    pub breaks: Breaks,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            runs_max: 8,
            short_runs_max: 64,
            executors: 2,
            run_messages_max: 256,
            relay_in_flight_max: 4_096,
            published_flush_ms: 1_000,
            jitter_seed: 0,
            breaks: Breaks::default(),
        }
    }
}

/// What the store remembers from before.
#[derive(Debug, Default)]
pub struct Recovered {
    /// All consumers that ever ran.
    pub consumers: Vec<KnownConsumer>,
    /// Events not known to be published, in the order of their rows.
    pub outbox: Vec<OutboxRow>,
    /// The first row that was never used.
    pub next_row: u64,
    /// Lanes with parked messages.
    pub parked: Vec<ParkedLane>,
    /// The first number of a parked message that was never used.
    pub next_park: u64,
    /// The first number of a consumer that was never used: that of one that was forgotten is not given again.
    pub next_consumer: u32,
}

/// Something to do at a certain time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Lane(LaneId),
    Relay(OrderKey),
    Flush,
    Parked(ConsumerId, ParkLane),
    Breaker(ConsumerId),
    Pace(ConsumerId),
}

/// The pure state machine of a host.
#[derive(Debug)]
pub struct Core {
    pub(super) settings: Settings,
    pub(super) now: Now,
    /// The first moment that it was told of.
    began: Option<Now>,
    pub(super) consumers: BTreeMap<ConsumerId, Consumer>,
    pub(super) lanes: Lanes,
    /// Consumers with ready lanes, by the executor time that they used: the first one's turn is next.
    pub(super) round: BTreeSet<(u64, ConsumerId)>,
    /// What the consumer had used whose turn it was last: who comes later begins there.
    pub(super) used_last: u64,
    pub(super) runs_out: usize,
    /// Message ids that a run is handling → its lane.
    pub(super) claims: FxHashMap<(ConsumerId, IdHash), LaneId>,
    /// Lanes whose head waits for such an id; each that is let on lets the next one on.
    pub(super) blocked: FxHashMap<(ConsumerId, IdHash), VecDeque<LaneId>>,
    pub(super) open: OpenBatch,
    pub(super) in_commit: Option<InCommit>,
    pub(super) relay: Relay,
    pub(super) next_row: u64,
    pub(super) next_park: u64,
    pub(super) next_ticket: u64,
    next_consumer: u32,
    pub(super) timers: BTreeSet<(u64, Timer)>,
    /// When acknowledged rows get a commit of their own if none goes out before.
    pub(super) flush_at_tick_ms: Option<u64>,
    pub(super) flush_due: bool,
    pub(super) overlay_full: bool,
    pub(super) disk_low: bool,
    pub(super) draining: bool,
    drained: bool,
    pub(super) actions: VecDeque<Action>,
}

impl Core {
    /// A core that goes on where the store ends.
    #[must_use]
    pub fn new(settings: Settings, recovered: Recovered) -> Self {
        let mut core = Self {
            settings,
            now: Now::default(),
            began: None,
            consumers: BTreeMap::new(),
            lanes: Lanes::default(),
            round: BTreeSet::new(),
            used_last: 0,
            runs_out: 0,
            claims: FxHashMap::default(),
            blocked: FxHashMap::default(),
            open: OpenBatch::default(),
            in_commit: None,
            relay: Relay::new(settings.relay_in_flight_max),
            next_row: recovered.next_row,
            next_park: recovered.next_park,
            next_ticket: 0,
            next_consumer: recovered.next_consumer,
            timers: BTreeSet::new(),
            flush_at_tick_ms: None,
            flush_due: false,
            overlay_full: false,
            disk_low: false,
            draining: false,
            drained: false,
            actions: VecDeque::new(),
        };
        for KnownConsumer { id, name, stream, cursor, holds, newest, again } in recovered.consumers {
            let mut consumer = Consumer::new(name, Some(stream), cursor);
            consumer.holds = holds.into_iter().collect();
            consumer.newest = newest;
            consumer.again = again;
            core.consumers.insert(id, consumer);
        }
        if !settings.breaks.has(Break::ForgetParkedOnCrash) {
            core.recover_parked(recovered.parked);
        }
        for row in recovered.outbox {
            if let Some(consumer) = core.consumers.get_mut(&row.consumer) {
                consumer.outbox_rows += 1;
            }
            core.relay.push(row);
        }
        core
    }

    /// The number of the consumer of this name; a new one for a new name.
    pub fn register(&mut self, name: &str) -> ConsumerId {
        if let Some((id, _)) = self.consumers.iter().find(|(_, consumer)| consumer.name.as_ref() == name) {
            return *id;
        }
        let above_all = self.consumers.keys().next_back().map_or(1, |last| last.0 + 1);
        let id = ConsumerId(above_all.max(self.next_consumer));
        self.next_consumer = id.0 + 1;
        self.consumers.insert(id, Consumer::new(name.into(), None, Cursor::default()));
        id
    }

    /// Takes what happened. What is to be done about it comes out of [`Core::poll_action`].
    pub fn handle(&mut self, now: Now, input: Input) {
        self.tell_time(now);
        match input {
            Input::Start { consumer, policy, start } => {
                if let Some(state) = self.consumers.get_mut(&consumer) {
                    state.start = start;
                    self.change_policy(consumer, *policy);
                    self.begin_parked(consumer);
                    self.begin(consumer);
                }
            }
            Input::Change { consumer, policy } => self.change_policy(consumer, *policy),
            Input::Swapped { consumer } => self.swapped(consumer),
            Input::Probation { consumer, probation } => self.begin_probation(consumer, probation),
            Input::Fetched { consumer, lane, ticket, rows } => self.fetched(consumer, &lane, ticket, rows),
            Input::Stop { consumer } => self.stop(consumer, Phase::Stopping),
            Input::Positioned { consumer, generation, stream, last_sequence } => {
                self.positioned(consumer, generation, stream, last_sequence);
            }
            Input::Lost { consumer, generation } => {
                if self.is_current(consumer, generation) {
                    self.position(consumer);
                }
            }
            Input::Delivered { consumer, generation, arrivals } => self.delivered(consumer, generation, arrivals),
            Input::PullEnded { consumer, generation, undelivered } => {
                if let Some(state) = self.consumers.get_mut(&consumer)
                    && state.generation == generation
                {
                    state.requested = state.requested.saturating_sub(undelivered as usize);
                }
            }
            Input::RunEnded { consumer, lane, results, busy_us } => self.run_ended(consumer, lane, results, busy_us),
            Input::Committed => self.committed(),
            Input::Acknowledged(rows) => rows.into_iter().for_each(|row| self.acknowledged(row)),
            Input::Refused(row) => {
                let answered = self.relay.refused(row);
                self.retry_later(answered);
            }
            Input::OverlayFull(full) => self.overlay_full = full,
            Input::DiskLow(low) => self.disk_low = low,
            Input::Drain => self.drain(),
            Input::Tick => {}
        }
    }

    /// The next thing to do. Call it until there is none after each [`Core::handle`].
    pub fn poll_action(&mut self) -> Option<Action> {
        if self.actions.is_empty() {
            self.fire_timers();
            self.release();
            self.dispatch();
            self.publish();
            self.pull();
            self.close_batch();
            self.check_quiet();
        }
        self.actions.pop_front()
    }

    /// When [`Input::Tick`] is wanted, on the clock of `tick_ms`; none: not before something happens.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<u64> {
        self.timers.first().map(|(tick_ms, _)| *tick_ms)
    }

    pub(super) fn tell_time(&mut self, now: Now) {
        self.now = now;
        self.began.get_or_insert(now);
    }

    /// The wall clock's time as far as it can be trusted: never further ahead of the first moment than the clock that can't be set says. A wall clock that
    /// jumps ahead lets nothing end early.
    pub(super) fn wall_ms(&self) -> u64 {
        let Now { tick_ms, wall_ms } = self.now;
        let began = self.began.unwrap_or(self.now);
        wall_ms.min(began.wall_ms.saturating_add(tick_ms.saturating_sub(began.tick_ms)))
    }

    /// For how long the consumer has read and handled without a pause; none: it does not.
    pub(super) fn worked_ms(&self, consumer: ConsumerId) -> Option<u64> {
        let state =
            self.consumers.get(&consumer).filter(|state| state.phase == Phase::Running && !state.is_paused())?;
        Some(self.now.tick_ms.saturating_sub(state.working_since_tick_ms))
    }

    pub(super) fn at(&mut self, delay_ms: u64, timer: Timer) -> u64 {
        let tick_ms = self.now.tick_ms.saturating_add(delay_ms);
        self.timers.insert((tick_ms, timer));
        tick_ms
    }

    fn fire_timers(&mut self) {
        while let Some((tick_ms, _)) = self.timers.first()
            && *tick_ms <= self.now.tick_ms
        {
            let Some((tick_ms, timer)) = self.timers.pop_first() else { return };
            match timer {
                Timer::Lane(lane) => self.backoff_over(lane, tick_ms),
                Timer::Flush => {
                    self.flush_at_tick_ms = None;
                    self.flush_due = true;
                }
                // A host that drains leaves what is in trouble to the next start: it would wait for answers without end.
                Timer::Relay(key) if !self.draining => self.relay.delay_over(key),
                Timer::Relay(_) => {}
                Timer::Parked(consumer, lane) => self.parked_time_is_over(consumer, lane),
                Timer::Breaker(consumer) => self.breaker_time_is_over(consumer),
                Timer::Pace(consumer) => self.pace_time_is_over(consumer),
            }
        }
    }

    /// Whether there is room for the effects of more attempts, in memory and on the disk. What was begun is committed and folded without asking.
    pub(super) fn has_room(&self) -> bool {
        !self.overlay_full && !self.disk_low
    }

    fn drain(&mut self) {
        self.draining = true;
        self.relay.leave_trouble();
        let running: Vec<_> = self.consumers.keys().copied().collect();
        for consumer in running {
            if self.consumers.get(&consumer).is_some_and(|state| state.phase != Phase::Stopped) {
                self.stop(consumer, Phase::Stopping);
            }
        }
    }

    /// Finishes what waited for a consumer, or for the host, to have nothing under way.
    fn check_quiet(&mut self) {
        let mut again = Vec::new();
        for (consumer, state) in &mut self.consumers {
            match state.phase {
                Phase::Stopping if state.is_quiet() => {
                    state.phase = Phase::Stopped;
                    self.actions.push_back(Action::Stopped { consumer: *consumer });
                }
                Phase::Rebinding | Phase::Restarting if state.is_quiet() => again.push(*consumer),
                _ => {}
            }
        }
        again.into_iter().for_each(|consumer| self.position(consumer));
        if self.draining
            && !self.drained
            && self.actions.is_empty()
            && self.consumers.values().all(Consumer::is_quiet)
            && self.open.is_empty()
            && self.in_commit.is_none()
            && self.relay.in_flight() + self.relay.queued() == 0
        {
            self.drained = true;
            self.actions.push_back(Action::Drained);
        }
    }
}
