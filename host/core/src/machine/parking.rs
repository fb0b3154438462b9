//! Parked messages at work: which keys are held, what waits aside, and how parked messages come back.
//!
//! The messages themselves are in the store; here is one small book for each lane that has any. What always holds:
//! - while a lane is *held*, all that comes of its key is parked behind what is parked already, so nothing of it is overtaken;
//! - messages come back in the order of their places, through the lane, by the same attempts, dedup and policies as any other;
//! - a parked message stays in the store until the outcome that removes it is durable: whatever is let go of here, is found there again.

mod release;

use std::sync::Arc;

use super::core::{Core, Timer};
use super::dispatch::OUTCOME_BYTES;
use super::event::{Action, LaneId};
use super::lanes::Waiting;
use crate::batch::{Outcome, Settlement};
use crate::ids::{ConsumerId, ParkId};
use crate::parked::{ParkCause, ParkLane, ParkPlace, Parked, ParkedLane};

/// Lanes of a consumer that are released at the same time, of those that were held and of the others: each has up to a quarter more than a fetch of
/// messages in memory. Keys in trouble take their places for long, so the others have places of their own.
pub(super) const RELEASING_MAX: usize = 32;
/// Messages of one fetch, at most.
const FETCH_ROWS_MAX: usize = 64;
/// A fetch ends once its messages take this much memory, in bytes: it is longer by less than one message.
const FETCH_BYTES_MAX: usize = 256 << 10;

/// What a lane's parked messages are doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ParkState {
    /// They wait for a time, an operator, a new version, or for another message of their key.
    Waiting,
    /// They wait until fewer lanes are being released.
    Queued,
    /// They are being brought back.
    Releasing(Releasing),
}

/// Which messages of a lane are handled although versions before them are missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pass {
    /// The first that comes too early: an operator wants it.
    first: bool,
    /// Those up to this place: the deadline of one that stands there passed, and nobody waits for it any longer.
    up_to: u64,
}

impl Pass {
    /// What either of them passes.
    fn and(self, other: Self) -> Self {
        Self { first: self.first || other.first, up_to: self.up_to.max(other.up_to) }
    }
}

/// What becomes of a message that comes before the one that it follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GapEnd {
    /// It waits.
    Waits,
    /// It is handled all the same.
    Passed,
    /// It is given up.
    GivenUp,
}

/// How far a release is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Releasing {
    /// The last place that was fetched.
    after: Option<(u64, ParkId)>,
    /// The fetch that is under way.
    ticket: Option<u64>,
    /// Messages that are in the lane's memory.
    in_lane: u64,
    /// Messages of the last fetch.
    page_rows: u64,
    /// Messages that were tried and set aside again.
    set_aside: u64,
    /// Messages were parked since the last fetch began: it may not have seen them.
    grown: bool,
    /// A message of the key was applied meanwhile: what was set aside may be ready now.
    again: bool,
    /// One of its messages held the key.
    was_held: bool,
    /// Which gaps are passed.
    pass: Pass,
    /// The lowest place of those that came too early and were set aside meanwhile.
    gap_left: Option<u64>,
    /// The last fetch found nothing behind what was fetched before.
    drained: bool,
}

/// The book of one lane that has parked messages.
#[derive(Clone, Debug)]
pub(crate) struct ParkBook {
    /// Parked messages, those being brought back included.
    pub(crate) rows: u64,
    /// Those of them that were set aside.
    pub(crate) aside: u64,
    /// All that comes is parked behind them.
    pub(crate) held: bool,
    /// Why, if one of them holds the key.
    pub(crate) cause: Option<ParkCause>,
    /// When they are released by themselves, on the clock of `tick_ms`.
    pub(crate) until_tick_ms: Option<u64>,
    /// The lowest place of those that wait for a version: while the key is not there, they need not be looked at.
    lowest_gap: u64,
    /// Which gaps the next release passes.
    pass: Pass,
    pub(crate) state: ParkState,
}

impl Default for ParkBook {
    fn default() -> Self {
        Self {
            rows: 0,
            aside: 0,
            held: false,
            cause: None,
            until_tick_ms: None,
            lowest_gap: u64::MAX,
            pass: Pass::default(),
            state: ParkState::Waiting,
        }
    }
}

impl ParkBook {
    /// One more message is parked.
    pub(crate) fn note_row(&mut self) {
        self.rows += 1;
        if let ParkState::Releasing(releasing) = &mut self.state {
            releasing.grown = true;
            releasing.drained = false;
        }
    }
}

impl Core {
    /// Takes the books of a start. Timers follow when the consumer begins.
    pub(super) fn recover_parked(&mut self, parked: Vec<ParkedLane>) {
        for ParkedLane { consumer, lane, rows, holding, aside, aside_until_ms, lowest_order } in parked {
            let Some(state) = self.consumers.get_mut(&consumer) else { continue };
            let book = ParkBook {
                rows,
                aside,
                held: rows > aside,
                cause: holding.map(|(cause, _)| cause),
                lowest_gap: lowest_order,
                ..ParkBook::default()
            };
            state.parked_rows += rows;
            state.parked.insert(lane.clone(), book);
            state.recovered_untils.push((lane, holding.map_or(aside_until_ms, |(_, until)| until)));
        }
    }

    /// The consumer begins: what is parked gets its timers, and what nothing holds any more is brought back.
    pub(super) fn begin_parked(&mut self, consumer: ConsumerId) {
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        let untils = std::mem::take(&mut state.recovered_untils);
        let delay_ms = state.policy.release.delay_ms(0);
        let orphans: Vec<_> = state
            .parked
            .iter()
            .filter(|(_, book)| book.state == ParkState::Waiting && book.held && book.cause.is_none())
            .map(|(lane, _)| lane.clone())
            .collect();
        for (lane, until_ms) in untils {
            self.wake_parked_at(consumer, &lane, until_ms);
        }
        for lane in orphans {
            self.request_release(consumer, lane, false);
        }
        if let Some(delay_ms) = delay_ms {
            self.wake_held_without_time(consumer, delay_ms);
        }
    }

    /// Whether what comes of this key has to be parked.
    pub(super) fn is_held(&self, consumer: ConsumerId, key: &Arc<str>) -> bool {
        let Some(state) = self.consumers.get(&consumer) else { return false };
        // No look-up, and no copy of the key, where nothing is parked.
        !state.parked.is_empty() && state.parked.get(&ParkLane::Key(Arc::clone(key))).is_some_and(|book| book.held)
    }

    /// Parks a message that stands behind others of its lane.
    pub(super) fn park_behind(&mut self, consumer: ConsumerId, waiting: Waiting) {
        self.park(consumer, waiting, ParkCause::Behind, None);
    }

    /// Parks a message and holds its key: what is left in its lane is parked behind it. The lane must not run.
    pub(super) fn hold_key(
        &mut self,
        consumer: ConsumerId,
        lane_id: LaneId,
        head: Waiting,
        cause: ParkCause,
        delay_ms: Option<u64>,
    ) {
        let rest = self.lanes.get_mut(lane_id).map(|lane| std::mem::take(&mut lane.queue)).unwrap_or_default();
        let until_ms = delay_ms.map(|delay| self.wall_ms().saturating_add(delay));
        let lane = self.park(consumer, head, cause, until_ms);
        self.end_release(consumer, &lane);
        self.change_book(consumer, &lane, |book| {
            book.held = true;
            book.cause = Some(cause);
            book.pass = Pass::default();
        });
        for waiting in rest {
            // What was brought back and not handled is still where it was.
            if waiting.released.is_none() {
                self.park_behind(consumer, waiting);
            }
        }
        self.wake_parked_at(consumer, &lane, until_ms);
        self.drop_lane(lane_id);
    }

    /// Sets a message aside; its key goes on without it.
    pub(super) fn set_aside(&mut self, consumer: ConsumerId, mut waiting: Waiting, cause: ParkCause, delay_ms: u64) {
        let known_gap = matches!((cause, &waiting.cause), (ParkCause::Gap { .. }, Some(ParkCause::Gap { .. })));
        if known_gap
            && let Some(until_ms) = waiting.until_ms
            && let Some(place) = waiting.released.clone()
        {
            // Nothing changed for it: it stays as it is. Before its consumer has worked for long enough, no time makes it overdue.
            let early_ms = delay_ms.saturating_sub(self.worked_ms(consumer).unwrap_or(0));
            let until_ms = until_ms.max(self.wall_ms().saturating_add(early_ms));
            self.back_aside(consumer, &place, cause, Some(until_ms));
            return;
        }
        if cause == ParkCause::Asked && waiting.cause != Some(cause) {
            waiting.parked_at_ms = None;
        }
        let until_ms = Some(self.wall_ms().saturating_add(delay_ms));
        let released = waiting.released.clone();
        let place = self.park_at(consumer, waiting, cause, until_ms);
        self.change_book(consumer, &place.lane, |book| {
            book.aside += 1;
            if released.is_none() {
                note_aside(book, &place, cause);
            }
        });
        if released.is_some() {
            self.back_aside(consumer, &place, cause, until_ms);
        } else {
            self.wake_parked_by(consumer, &place.lane, until_ms);
        }
    }

    /// A message that was brought back is set aside again.
    fn back_aside(&mut self, consumer: ConsumerId, place: &ParkPlace, cause: ParkCause, until_ms: Option<u64>) {
        self.change_book(consumer, &place.lane, |book| {
            note_aside(book, place, cause);
            if let ParkState::Releasing(releasing) = &mut book.state {
                releasing.in_lane = releasing.in_lane.saturating_sub(1);
                releasing.set_aside += 1;
            }
        });
        self.wake_parked_by(consumer, &place.lane, until_ms);
        self.go_on_releasing(consumer, &place.lane);
    }

    fn park(&mut self, consumer: ConsumerId, waiting: Waiting, cause: ParkCause, until_ms: Option<u64>) -> ParkLane {
        self.park_at(consumer, waiting, cause, until_ms).lane
    }

    /// Writes the row of a message: a new one, or the one that it was brought back from.
    fn park_at(
        &mut self,
        consumer: ConsumerId,
        waiting: Waiting,
        cause: ParkCause,
        until_ms: Option<u64>,
    ) -> ParkPlace {
        let now_ms = self.now.wall_ms;
        let Waiting { message, calls, failures, history, released, parked_at_ms, releases, cause: before, .. } =
            waiting;
        let id = released.as_ref().map_or_else(|| self.next_park_id(), |place| place.id);
        let row = Arc::new(Parked {
            id,
            cause,
            until_ms,
            parked_at_ms: parked_at_ms.unwrap_or(now_ms),
            releases,
            attempts: calls,
            // Whoever is released later begins anew; whoever only waits for the next attempt does not.
            failures: if cause == ParkCause::Exhausted { 0 } else { failures },
            history: history.into(),
            message,
        });
        let place = row.place();
        let was_aside = before.is_some_and(|before| before.is_aside());
        if let Some(state) = self.consumers.get_mut(&consumer) {
            let book = state.parked.entry(place.lane.clone()).or_default();
            if released.is_none() {
                book.note_row();
                state.parked_rows += 1;
                state.counters.parked += 1;
            } else if was_aside {
                book.aside = book.aside.saturating_sub(1);
            }
        }
        if released.is_some() {
            self.committing_released(consumer);
        }
        let (sequence, published_at_ms) = (row.message.sequence, row.message.published_at_ms);
        let bytes = OUTCOME_BYTES + row.weight();
        let outcome = Outcome::Parked(Arc::clone(&row));
        self.open.push(Settlement { consumer, sequence, released, outcome }, published_at_ms, bytes);
        self.actions.push_back(Action::Parked { consumer, row });
        place
    }

    /// A message that was parked has an outcome that is not durable yet.
    pub(super) fn committing_released(&mut self, consumer: ConsumerId) {
        if let Some(state) = self.consumers.get_mut(&consumer) {
            state.committing_released += 1;
        }
    }

    pub(super) fn next_park_id(&mut self) -> ParkId {
        let id = ParkId(self.next_park);
        self.next_park += 1;
        id
    }

    /// A message that was brought back has its outcome, and is parked no more.
    pub(super) fn unparked(&mut self, consumer: ConsumerId, place: ParkPlace, cause: Option<ParkCause>) {
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        state.parked_rows = state.parked_rows.saturating_sub(1);
        state.counters.released += 1;
        if let Some(book) = state.parked.get_mut(&place.lane) {
            book.rows = book.rows.saturating_sub(1);
            book.aside = book.aside.saturating_sub(u64::from(cause.is_some_and(|cause| cause.is_aside())));
            if cause.is_some_and(|cause| cause.holds_key()) {
                book.cause = None;
            }
            if let ParkState::Releasing(releasing) = &mut book.state {
                releasing.in_lane = releasing.in_lane.saturating_sub(1);
            }
        }
        let lane = place.lane.clone();
        self.actions.push_back(Action::Unparked { consumer, place });
        self.go_on_releasing(consumer, &lane);
    }

    /// Another message of a key was applied: what was set aside of it may be ready now.
    pub(super) fn key_went_on(&mut self, consumer: ConsumerId, key: &Arc<str>, version: Option<u64>) {
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        if state.parked.is_empty() {
            return;
        }
        let lane = ParkLane::Key(Arc::clone(key));
        let Some(book) = state.parked.get_mut(&lane) else { return };
        let ready = version.is_none_or(|version| book.lowest_gap <= version.saturating_add(1));
        if book.aside == 0 || !ready {
            return;
        }
        match &mut book.state {
            ParkState::Releasing(releasing) => releasing.again = true,
            ParkState::Waiting if !book.held => self.request_release(consumer, lane, false),
            ParkState::Waiting | ParkState::Queued => {}
        }
    }

    fn change_book(&mut self, consumer: ConsumerId, lane: &ParkLane, change: impl FnOnce(&mut ParkBook)) {
        if let Some(book) = self.consumers.get_mut(&consumer).and_then(|state| state.parked.get_mut(lane)) {
            change(book);
        }
    }

    /// Replaces the time at which a lane is released by itself.
    pub(super) fn wake_parked_at(&mut self, consumer: ConsumerId, lane: &ParkLane, until_ms: Option<u64>) {
        self.cancel_wake(consumer, lane);
        let Some(until_ms) = until_ms else { return };
        let delay_ms = until_ms.saturating_sub(self.wall_ms());
        let tick_ms = self.at(delay_ms, Timer::Parked(consumer, lane.clone()));
        self.change_book(consumer, lane, |book| book.until_tick_ms = Some(tick_ms));
    }

    /// Brings that time forward if need be.
    fn wake_parked_by(&mut self, consumer: ConsumerId, lane: &ParkLane, until_ms: Option<u64>) {
        let delay_ms = until_ms.map(|until| until.saturating_sub(self.wall_ms()));
        let known = self.consumers.get(&consumer).and_then(|state| state.parked.get(lane)?.until_tick_ms);
        let wanted = delay_ms.map(|delay| self.now.tick_ms.saturating_add(delay));
        if wanted.is_some_and(|wanted| known.is_none_or(|known| wanted < known)) {
            self.wake_parked_at(consumer, lane, until_ms);
        }
    }

    pub(super) fn cancel_wake(&mut self, consumer: ConsumerId, lane: &ParkLane) {
        let Some(book) = self.consumers.get_mut(&consumer).and_then(|state| state.parked.get_mut(lane)) else { return };
        if let Some(tick_ms) = book.until_tick_ms.take() {
            self.timers.remove(&(tick_ms, Timer::Parked(consumer, lane.clone())));
        }
    }
}

/// A message of the lane was set aside, again or for the first time.
fn note_aside(book: &mut ParkBook, place: &ParkPlace, cause: ParkCause) {
    if let ParkCause::Gap { .. } = cause {
        book.lowest_gap = book.lowest_gap.min(place.order);
        if let ParkState::Releasing(releasing) = &mut book.state {
            releasing.gap_left = Some(releasing.gap_left.map_or(place.order, |lowest| lowest.min(place.order)));
        }
    } else {
        // It says not what it waits for: any message of its key may be it.
        book.lowest_gap = 0;
    }
}
