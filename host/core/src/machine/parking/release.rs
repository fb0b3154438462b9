//! The way back: parked messages are fetched in pages, in order, and put into their lane in front of what was not parked. Those that come too early
//! there go behind what they follow.

use std::sync::Arc;

use super::{FETCH_BYTES_MAX, FETCH_ROWS_MAX, GapEnd, ParkState, Releasing};
use crate::ids::ConsumerId;
use crate::machine::breaker::BreakerState;
use crate::machine::consumer::Phase;
use crate::machine::core::Core;
use crate::machine::event::{Action, Fetch, LaneId};
use crate::machine::lanes::{Lane, LaneState, Waiting};
use crate::parked::{ParkLane, ParkPlace, Parked};
use crate::policy::OnGap;

impl Core {
    /// Brings a lane's parked messages back as soon as there is room.
    pub(in crate::machine) fn request_release(&mut self, consumer: ConsumerId, lane: ParkLane, pass_first: bool) {
        self.cancel_wake(consumer, &lane);
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        let Some(book) = state.parked.get_mut(&lane) else { return };
        book.pass.first |= pass_first;
        let is_held = book.cause.is_some();
        match &mut book.state {
            ParkState::Waiting => {
                book.state = ParkState::Queued;
                state.releases_of(is_held).queue.push_back(lane);
            }
            ParkState::Queued => {}
            ParkState::Releasing(releasing) => releasing.again = true,
        }
    }

    /// What becomes of a message that was brought back and still comes too early. A gap is passed in front of the lowest message only: whatever
    /// stands before a message that is handled would be stale.
    pub(in crate::machine) fn end_of_gap(
        &mut self,
        consumer: ConsumerId,
        place: &ParkPlace,
        is_overdue: bool,
        was_tried: bool,
        on_gap: OnGap,
    ) -> GapEnd {
        let book = self.consumers.get_mut(&consumer).and_then(|state| state.parked.get_mut(&place.lane));
        let Some((pass, ParkState::Releasing(releasing))) = book.map(|book| (&mut book.pass, &mut book.state)) else {
            return GapEnd::Waits;
        };
        let is_lowest = releasing.gap_left.is_none_or(|lowest| lowest > place.order);
        if std::mem::take(&mut releasing.pass.first) || (was_tried && is_lowest) {
            return GapEnd::Passed;
        }
        match on_gap {
            OnGap::DeadLetter if is_overdue => return GapEnd::GivenUp,
            OnGap::GoOn if is_overdue || place.order <= releasing.pass.up_to => {
                if is_lowest {
                    return GapEnd::Passed;
                }
                pass.up_to = pass.up_to.max(place.order);
                releasing.again = true;
            }
            OnGap::GoOn | OnGap::DeadLetter => {}
        }
        GapEnd::Waits
    }

    pub(in crate::machine) fn parked_time_is_over(&mut self, consumer: ConsumerId, lane: ParkLane) {
        if let Some(book) = self.consumers.get_mut(&consumer).and_then(|state| state.parked.get_mut(&lane)) {
            book.until_tick_ms = None;
            self.request_release(consumer, lane, false);
        }
    }

    /// Begins releases while there is room for them.
    pub(in crate::machine) fn release(&mut self) {
        if self.draining || !self.has_room() || self.open.is_full() {
            return;
        }
        let (mut begun, mut later) = (Vec::new(), Vec::new());
        for (consumer, state) in &mut self.consumers {
            if !matches!(state.phase, Phase::Running | Phase::Positioning)
                || state.is_paused()
                || matches!(state.breaker.state, BreakerState::Open { .. })
            {
                continue;
            }
            while let Some(lane) = state.next_release() {
                let Some(book) = state.parked.get_mut(&lane).filter(|book| book.state == ParkState::Queued) else {
                    continue;
                };
                if state.policy.versions.is_some()
                    && book.rows == book.aside
                    && let ParkLane::Key(key) = &lane
                    && let Some(until_tick_ms) = state.by_key.get(key).and_then(|id| self.lanes.get(*id)?.rests_until())
                {
                    book.state = ParkState::Waiting;
                    later.push((*consumer, lane, until_tick_ms));
                    continue;
                }
                book.lowest_gap = u64::MAX;
                let (pass, was_held) = (std::mem::take(&mut book.pass), book.cause.is_some());
                book.state = ParkState::Releasing(Releasing { pass, was_held, ..Releasing::default() });
                state.releases_of(was_held).under_way += 1;
                begun.push((*consumer, lane));
            }
        }
        for (consumer, lane, until_tick_ms) in later {
            let until_ms = self.wall_ms().saturating_add(until_tick_ms.saturating_sub(self.now.tick_ms));
            self.wake_parked_at(consumer, &lane, Some(until_ms));
        }
        for (consumer, lane) in begun {
            self.go_on_releasing(consumer, &lane);
        }
    }

    /// A lane waits for its head's next attempt. By version, all that was set aside follows the head, and is let go of until then: else keys in trouble
    /// would take the places in which others come back.
    pub(in crate::machine) fn give_way(&mut self, id: LaneId) {
        let Some(Lane { consumer, key: Some(key), queue, .. }) = self.lanes.get_mut(id) else { return };
        let (consumer, parked) = (*consumer, ParkLane::Key(Arc::clone(key)));
        let head_came_back = queue.front().is_some_and(|head| head.released.is_some());
        let Some(state) = self.consumers.get_mut(&consumer).filter(|state| state.policy.versions.is_some()) else {
            return;
        };
        let Some(book) = state.parked.get_mut(&parked).filter(|book| book.rows == book.aside) else { return };
        let ParkState::Releasing(releasing) = &book.state else { return };
        if head_came_back {
            return;
        }
        book.pass = book.pass.and(releasing.pass);
        queue.retain(|waiting| waiting.released.is_none());
        self.end_release(consumer, &parked);
        self.request_release(consumer, parked, false);
    }

    /// Fetches more of a lane that is being released, or ends its release.
    pub(super) fn go_on_releasing(&mut self, consumer: ConsumerId, lane: &ParkLane) {
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        let Some(book) = state.parked.get_mut(lane) else { return };
        let (rows, aside_left) = (book.rows, book.aside);
        let ParkState::Releasing(releasing) = &mut book.state else {
            self.forget_if_empty(consumer, lane);
            return;
        };
        let all_in_lane = rows == releasing.in_lane + releasing.set_aside;
        if all_in_lane {
            book.held = false;
        }
        if all_in_lane || releasing.drained {
            // Not all, and nothing behind: what came meanwhile stands in front of what was fetched.
            let again = (releasing.again && aside_left > 0) || rows > aside_left;
            if releasing.in_lane == 0 {
                self.end_release(consumer, lane);
                if again {
                    self.request_release(consumer, lane.clone(), false);
                }
            }
            return;
        }
        // A page of large messages is a short one, so what is left of it says how much memory the lane takes.
        if releasing.ticket.is_some() || releasing.in_lane > releasing.page_rows / 4 {
            return;
        }
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        releasing.ticket = Some(ticket);
        releasing.grown = false;
        let after = releasing.after;
        self.actions.push_back(Action::Fetch(Fetch {
            consumer,
            lane: lane.clone(),
            ticket,
            after,
            rows_max: FETCH_ROWS_MAX,
            bytes_max: FETCH_BYTES_MAX,
        }));
    }

    /// The messages of a fetch go into their lane, in front of what was not parked.
    pub(in crate::machine) fn fetched(
        &mut self,
        consumer: ConsumerId,
        lane: &ParkLane,
        ticket: u64,
        rows: Vec<Arc<Parked>>,
    ) {
        let Some(book) = self.consumers.get_mut(&consumer).and_then(|state| state.parked.get_mut(lane)) else { return };
        let ParkState::Releasing(releasing) = &mut book.state else { return };
        if releasing.ticket != Some(ticket) {
            return;
        }
        releasing.ticket = None;
        let Some(last) = rows.last() else {
            // Whatever was there is in the lane, unless it came while the store was being read.
            releasing.drained = !releasing.grown;
            self.go_on_releasing(consumer, lane);
            return;
        };
        let place = last.place();
        releasing.after = Some((place.order, place.id));
        releasing.page_rows = rows.len() as u64;
        releasing.in_lane += releasing.page_rows;
        self.put_in_front(consumer, rows.iter().map(|row| Waiting::released(row, self.now)).collect());
        self.go_on_releasing(consumer, lane);
    }

    pub(super) fn put_in_front(&mut self, consumer: ConsumerId, rows: Vec<Waiting>) {
        let Some(first) = rows.first() else { return };
        let key = first.message.key.clone();
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        let known = key.as_ref().and_then(|key| state.by_key.get(key)).copied();
        if let Some(lane) = known.and_then(|id| self.lanes.get_mut(id)) {
            let running = if let LaneState::Running { jobs, .. } = lane.state { jobs } else { 0 };
            // Behind those that were brought back before, also where one that was not parked runs in front of them.
            let released = lane.queue.iter().rposition(|waiting| waiting.released.is_some()).map_or(0, |last| last + 1);
            let at = released.max(running);
            let behind = lane.queue.split_off(at.min(lane.queue.len()));
            lane.queue.extend(rows);
            lane.queue.extend(behind);
            return;
        }
        let lane = Lane { consumer, key: key.clone(), queue: rows.into(), state: LaneState::Ready };
        let id = self.lanes.insert(lane);
        if let Some(key) = key {
            state.by_key.insert(key, id);
        }
        self.make_ready(id);
    }

    /// A lane's release is over, whether all of it came back or not.
    pub(in crate::machine) fn end_release(&mut self, consumer: ConsumerId, lane: &ParkLane) {
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        let Some(book) = state.parked.get_mut(lane) else { return };
        if let ParkState::Releasing(releasing) = std::mem::replace(&mut book.state, ParkState::Waiting) {
            book.cause = None;
            book.held = book.rows > book.aside;
            state.releases_of(releasing.was_held).under_way -= 1;
        }
        self.forget_if_empty(consumer, lane);
    }

    pub(super) fn forget_if_empty(&mut self, consumer: ConsumerId, lane: &ParkLane) {
        let book = self.consumers.get(&consumer).and_then(|state| state.parked.get(lane));
        if book.is_some_and(|book| book.rows == 0) {
            self.cancel_wake(consumer, lane);
            if let Some(state) = self.consumers.get_mut(&consumer) {
                state.parked.remove(lane);
            }
        }
    }

    /// The consumer stops: what was brought back and not handled is let go of, and is brought back when it starts again.
    pub(in crate::machine) fn stop_releasing(&mut self, consumer: ConsumerId) {
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        (state.releases, state.held_releases) = Default::default();
        let mut again = Vec::new();
        for (lane, book) in &mut state.parked {
            if book.state != ParkState::Waiting {
                book.state = ParkState::Waiting;
                book.held = book.rows > book.aside;
                again.push(lane.clone());
            }
        }
        // Their order in the queue decides what happens next, so it may not depend on the order of a hash map.
        again.sort();
        for lane in again {
            self.request_release(consumer, lane, false);
        }
    }
}
