//! Lanes at work: which lane goes to an executor next, and what follows from what came back.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use super::consumer::Phase;
use super::core::{Core, Settings, Timer};
use super::event::{Action, Arrival, Job, JobResult, LaneId, Run, VersionRule};
use super::lanes::{Lane, LaneState, Load, Waiting};
use crate::breaks::Break;
use crate::ids::{ConsumerId, IdHash};
use crate::message::{GivenUp, Message};
use crate::parked::ParkCause;
use crate::policy::VersionPolicy;

/// What is counted for an outcome that has no effects, in bytes.
pub(super) const OUTCOME_BYTES: usize = 64;

impl Core {
    /// Puts a held delivery into its lane, or gives it up at once if nobody can read it.
    pub(super) fn enqueue(&mut self, consumer: ConsumerId, arrival: Arrival) {
        let Arrival { message, unreadable } = arrival;
        let waiting = Waiting::new(message, self.now);
        if let Some(why) = unreadable {
            self.give_up(consumer, waiting, GivenUp::Unreadable(why));
            return;
        }
        let gated = !self.settings.breaks.has(Break::NoKeyGate);
        let key = waiting.message.key.clone().filter(|_| gated);
        let overtakes = self.settings.breaks.has(Break::OvertakeParked);
        if !overtakes && key.as_ref().is_some_and(|key| self.is_held(consumer, key)) {
            self.park_behind(consumer, waiting);
            return;
        }
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        let known = key.as_ref().and_then(|key| state.by_key.get(key)).copied();
        if let Some((id, lane)) = known.and_then(|id| Some((id, self.lanes.get_mut(id)?))) {
            // Deliveries come in stream order, so its place is nearly always the end, and the last one alone is looked at; a redelivered one still takes its
            // own place, behind what runs.
            let running = if let LaneState::Running { jobs, .. } = lane.state { jobs } else { 0 };
            let is_before =
                |other: &Waiting| other.released.is_some() || other.message.sequence < waiting.message.sequence;
            let at = lane.queue.iter().rposition(is_before).map_or(0, |last| last + 1);
            if let LaneState::Backoff { load, .. } = &mut lane.state {
                let more = Load::of(&waiting);
                load.add(more);
                state.retrying.add(more);
            }
            lane.queue.insert(at.max(running), waiting);
            self.spill(id);
            return;
        }
        let lane = Lane { consumer, key: key.clone(), queue: VecDeque::from([waiting]), state: LaneState::Ready };
        let id = self.lanes.insert(lane);
        if let Some(key) = key {
            state.by_key.insert(key, id);
        }
        self.make_ready(id);
    }

    /// Keys that wait for their next attempt may not fill their consumer's memory, or nothing would be pulled for the others: one that has much of it,
    /// or comes when together they have, is parked until then.
    fn spill(&mut self, id: LaneId) {
        /// The part of its consumer's books that one may take, and that all may.
        const PART_OF_ONE: usize = 4;
        const PART_OF_ALL: usize = 2;
        let Some(lane) = self.lanes.get(id) else { return };
        let LaneState::Backoff { until_tick_ms, load } = lane.state else { return };
        let consumer = lane.consumer;
        let Some(state) = self.consumers.get(&consumer) else { return };
        if !load.is_part(PART_OF_ONE, &state.policy) && !state.retrying.is_part(PART_OF_ALL, &state.policy) {
            return;
        }
        let delay_ms = until_tick_ms.saturating_sub(self.now.tick_ms);
        self.end_backoff(id);
        if let Some(head) = self.lanes.get_mut(id).and_then(|lane| lane.queue.pop_front()) {
            self.hold_key(consumer, id, head, ParkCause::Retrying, Some(delay_ms));
        }
    }

    /// The lane waits no longer; what comes of it is the caller's to say.
    fn end_backoff(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(id) else { return };
        let LaneState::Backoff { until_tick_ms, load } = lane.state else { return };
        lane.state = LaneState::Ready;
        if let Some(state) = self.consumers.get_mut(&lane.consumer) {
            state.waiting_retry -= 1;
            state.retrying.remove(load);
        }
        self.timers.remove(&(until_tick_ms, Timer::Lane(id)));
    }

    /// Hands runs to the executors while there are lanes that are ready and places that are free. Whoever used the executors least goes first.
    pub(super) fn dispatch(&mut self) {
        // What runs leaves effects in memory until they are committed and folded: where that does not keep up, nothing more is begun.
        if self.draining || !self.has_room() || self.open.is_full() {
            return;
        }
        let mut passed_over = None;
        let Settings { runs_max, short_runs_max, executors, .. } = self.settings;
        while self.runs_out < runs_max.max(short_runs_max) {
            let turn = match passed_over {
                None => self.round.first().copied(),
                Some(last) => self.round.range((Bound::Excluded(last), Bound::Unbounded)).next().copied(),
            };
            let Some((used, consumer)) = turn else { return };
            let attempts = self.attempts_allowed(consumer);
            if attempts == 0 {
                passed_over = turn;
                self.lose_credit(used, consumer);
                continue;
            }
            let Some(state) = self.consumers.get_mut(&consumer) else { continue };
            // Nobody else may go in its stead: whoever has short runs would keep all places taken.
            if self.runs_out >= runs_max.saturating_add(state.pace.ahead_max(executors)) {
                return;
            }
            self.used_last = self.used_last.max(used);
            self.round.remove(&(used, consumer));
            state.in_round = false;
            if let Some(lane) = state.ready.pop_front() {
                self.execute(consumer, lane, attempts);
            }
            self.join_round(consumer);
        }
    }

    /// Whoever may not begin now has no claim to the time that it does not use.
    fn lose_credit(&mut self, used: u64, consumer: ConsumerId) {
        let used_last = self.used_last;
        if used < used_last && self.round.remove(&(used, consumer)) {
            self.round.insert((used_last, consumer));
            if let Some(state) = self.consumers.get_mut(&consumer) {
                state.pace.catch_up(used_last);
            }
        }
    }

    /// A consumer with ready lanes stands in the round, at the place that its use of the executors gives it.
    fn join_round(&mut self, consumer: ConsumerId) {
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        if !state.ready.is_empty() && !state.in_round {
            state.in_round = true;
            self.round.insert((state.pace.used, consumer));
        }
    }

    fn leave_round(&mut self, consumer: ConsumerId) {
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        if std::mem::take(&mut state.in_round) {
            self.round.remove(&(state.pace.used, consumer));
        }
    }

    fn execute(&mut self, consumer: ConsumerId, id: LaneId, attempts_max: usize) {
        let Some(lane) = self.lanes.get_mut(id) else { return };
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        let versions = state.policy.versions;
        let dedup = !self.settings.breaks.has(Break::NoDedup);
        let (rewound, stream) = (state.again, state.stream.clone());
        let again = |message: &Message| rewound.of(message, stream.as_ref());
        let jobs_max = self.settings.run_messages_max.min(attempts_max);
        let mut claims: Vec<IdHash> = Vec::new();
        let mut jobs = Vec::with_capacity(lane.queue.len().min(jobs_max));
        for waiting in lane.queue.iter().take(jobs_max) {
            if let Some(mark) = waiting.message.mark.filter(|_| dedup) {
                if *self.claims.entry((consumer, mark)).or_insert(id) != id {
                    if jobs.is_empty() {
                        self.blocked.entry((consumer, mark)).or_default().push_back(id);
                        lane.state = LaneState::Blocked;
                        return;
                    }
                    break;
                }
                claims.push(mark);
            }
            let rule = |policy: VersionPolicy| VersionRule { first: policy.first, gap_allowed: waiting.gap_allowed };
            jobs.push(Job {
                message: Arc::clone(&waiting.message),
                attempt: waiting.failures.saturating_add(1),
                dedup,
                again: if dedup { again(&waiting.message) } else { 0 },
                versions: versions.map(rule),
                waited_ms: waiting.came_tick_ms.map(|came| self.now.tick_ms.saturating_sub(came)),
            });
        }
        let shared_state = state.policy.shared_state;
        let charge = state.pace.began(state.policy.weight);
        state.pace.spend(state.policy.rate, jobs.len());
        state.breaker.began();
        lane.state = LaneState::Running { jobs: jobs.len(), claims, shared_state, charge };
        let ahead = self.runs_out >= self.settings.runs_max;
        self.runs_out += 1;
        state.running += 1;
        self.actions.push_back(Action::Execute(Run { consumer, lane: id, jobs, ahead }));
    }

    /// Takes what a run did: outcomes go into the open batch, a failure decides what the lane does next.
    pub(super) fn run_ended(&mut self, consumer: ConsumerId, id: LaneId, results: Vec<JobResult>, busy_us: u64) {
        let Some(LaneState::Running { claims, shared_state, charge, .. }) =
            self.lanes.get_mut(id).map(|lane| &mut lane.state)
        else {
            return;
        };
        let (claims, shared_state, charge) = (std::mem::take(claims), *shared_state, *charge);
        // Its place in the round is by what it used, which changes now.
        self.leave_round(consumer);
        let (Some(state), Some(lane)) = (self.consumers.get_mut(&consumer), self.lanes.get_mut(id)) else { return };
        lane.state = LaneState::Ready;
        state.running -= 1;
        let untouched = results.is_empty();
        if untouched {
            state.pace.came_back(charge);
            state.breaker.nothing_tried();
        } else {
            state.pace.ended(charge, busy_us, state.policy.weight, self.now.tick_ms);
        }
        self.runs_out -= 1;
        self.join_round(consumer);
        for mark in claims {
            self.release_claim(consumer, mark);
        }
        let mut backoff = None;
        let mut again = Vec::new();
        for result in results {
            let Some(waiting) = self.lanes.get_mut(id).and_then(|lane| lane.queue.pop_front()) else { break };
            match result {
                JobResult::Applied { version, writes } => {
                    self.applied(consumer, waiting, shared_state, version, writes)
                }
                JobResult::Duplicate => self.duplicate(consumer, waiting),
                JobResult::Stale => self.stale(consumer, waiting),
                JobResult::Gap { expected } => again.extend(self.gap(consumer, id, waiting, expected, &again)),
                JobResult::Failed { version, failure } => {
                    backoff = self.failed(consumer, id, waiting, version, failure);
                }
            }
        }
        if let Some(lane) = self.lanes.get_mut(id) {
            lane.put_back(again);
        }
        self.rest_lane(id, backoff);
        if untouched {
            self.goes_first(id);
        }
    }

    /// A lane that had its turn and did not get to use it is the next of its consumer.
    fn goes_first(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get(id).filter(|lane| matches!(lane.state, LaneState::Ready)) else { return };
        let Some(state) = self.consumers.get_mut(&lane.consumer) else { return };
        if state.ready.back() == Some(&id) {
            state.ready.rotate_right(1);
        }
    }

    pub(super) fn is_at_work(&self, consumer: ConsumerId) -> bool {
        let phase = self.consumers.get(&consumer).map(|state| state.phase);
        matches!(phase, Some(Phase::Running | Phase::Positioning))
    }

    /// Decides the state of a lane that nothing is running for.
    fn rest_lane(&mut self, id: LaneId, backoff_ms: Option<u64>) {
        let Some(lane) = self.lanes.get(id) else { return };
        let (consumer, is_empty) = (lane.consumer, lane.queue.is_empty());
        let goes_on = self.is_at_work(consumer);
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        if is_empty || !goes_on {
            self.drop_lane(id);
        } else if let Some(delay_ms) = backoff_ms {
            let mut load = Load::default();
            lane.queue.iter().for_each(|waiting| load.add(Load::of(waiting)));
            state.waiting_retry += 1;
            state.retrying.add(load);
            let until_tick_ms = self.at(delay_ms, Timer::Lane(id));
            if let Some(lane) = self.lanes.get_mut(id) {
                lane.state = LaneState::Backoff { until_tick_ms, load };
            }
            self.give_way(id);
            self.spill(id);
        } else {
            self.make_ready(id);
        }
    }

    pub(super) fn backoff_over(&mut self, id: LaneId, tick_ms: u64) {
        let Some(lane) = self.lanes.get(id) else { return };
        if matches!(lane.state, LaneState::Backoff { until_tick_ms, .. } if until_tick_ms == tick_ms) {
            self.end_backoff(id);
            self.make_ready(id);
        }
    }

    pub(super) fn make_ready(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(id) else { return };
        lane.state = LaneState::Ready;
        let consumer = lane.consumer;
        let used_last = self.used_last;
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        if !state.in_round && state.running == 0 {
            state.pace.catch_up(used_last);
        }
        state.ready.push_back(id);
        self.join_round(consumer);
    }

    /// Lets on one lane that waits for the id. Its run claims the id in turn, so the others follow one by one: to wake them all each time
    /// would cost the square of their number.
    fn release_claim(&mut self, consumer: ConsumerId, mark: IdHash) {
        self.claims.remove(&(consumer, mark));
        let Some(lanes) = self.blocked.get_mut(&(consumer, mark)) else { return };
        let next = lanes.pop_front();
        if lanes.is_empty() {
            self.blocked.remove(&(consumer, mark));
        }
        if let Some(lane) = next {
            self.make_ready(lane);
        }
    }

    /// Forgets a lane and lets go of what is left in it. Not for a lane that runs, nor for one that is in a queue of lanes.
    pub(super) fn drop_lane(&mut self, id: LaneId) {
        self.end_backoff(id);
        let Some(lane) = self.lanes.remove(id) else { return };
        let Some(state) = self.consumers.get_mut(&lane.consumer) else { return };
        if let Some(key) = lane.key {
            state.by_key.remove(&key);
        }
        for waiting in lane.queue {
            // What was parked is in the store, and not in the books of the stream.
            if waiting.released.is_none() {
                state.let_go(waiting.message.sequence);
            }
        }
    }
}
