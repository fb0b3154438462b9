//! Lanes at work: which lane goes to an executor next, and what follows from what came back.

use std::collections::VecDeque;
use std::sync::Arc;

use super::consumer::Phase;
use super::core::{Core, Timer};
use super::event::{Action, Arrival, Job, JobResult, LaneId, Run};
use super::lanes::{Lane, LaneState, Waiting};
use crate::batch::{Outcome, Settlement};
use crate::breaks::Break;
use crate::effects::WriteSet;
use crate::ids::{ConsumerId, IdHash, RowId, Version};
use crate::message::{DeadLetter, FailedAttempt, Failure, GivenUp, Message};

/// What is counted for an outcome that has no effects, in bytes.
const OUTCOME_BYTES: usize = 64;

impl Core {
    /// Puts a held delivery into its lane, or gives it up at once if nobody can read it.
    pub(super) fn enqueue(&mut self, consumer: ConsumerId, arrival: Arrival) {
        let Arrival { message, unreadable } = arrival;
        let waiting = Waiting::new(message);
        if let Some(why) = unreadable {
            self.give_up(consumer, waiting, GivenUp::Unreadable(why));
            return;
        }
        let gated = !self.settings.breaks.has(Break::NoKeyGate);
        let key = waiting.message.key.clone().filter(|_| gated);
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        let known = key.as_ref().and_then(|key| state.by_key.get(key)).copied();
        if let Some(lane) = known.and_then(|id| self.lanes.get_mut(id)) {
            // Deliveries come in stream order, so this is nearly always the end; a redelivered one still takes its own place, behind what runs.
            let running = if let LaneState::Running { jobs, .. } = lane.state { jobs } else { 0 };
            let at = lane.queue.partition_point(|other| other.message.sequence < waiting.message.sequence);
            lane.queue.insert(at.max(running), waiting);
            return;
        }
        let lane = Lane { consumer, key: key.clone(), queue: VecDeque::from([waiting]), state: LaneState::Ready };
        let id = self.lanes.insert(lane);
        if let Some(key) = key {
            state.by_key.insert(key, id);
        }
        self.make_ready(id);
    }

    /// Hands runs to the executors while there are lanes that are ready and places that are free. Consumers take turns.
    pub(super) fn dispatch(&mut self) {
        // What runs leaves effects in memory until they are committed and folded: where that does not keep up, nothing more is begun.
        if self.draining || self.overlay_full || self.open.is_full() {
            return;
        }
        let mut passed_over = 0;
        while self.runs_out < self.settings.runs_max && passed_over < self.round.len() {
            let Some(consumer) = self.round.pop_front() else { return };
            let Some(state) = self.consumers.get_mut(&consumer) else { continue };
            // Attempts on state that all keys share are serial: each must see what the one before it left.
            if state.policy.shared_state && state.running > 0 {
                self.round.push_back(consumer);
                passed_over += 1;
                continue;
            }
            let lane = state.ready.pop_front();
            if state.ready.is_empty() {
                state.in_round = false;
            } else {
                self.round.push_back(consumer);
            }
            if let Some(lane) = lane {
                self.execute(consumer, lane);
                passed_over = 0;
            }
        }
    }

    fn execute(&mut self, consumer: ConsumerId, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(id) else { return };
        let dedup = !self.settings.breaks.has(Break::NoDedup);
        let mut claims: Vec<IdHash> = Vec::new();
        let mut jobs = Vec::with_capacity(lane.queue.len().min(self.settings.run_messages_max));
        for waiting in lane.queue.iter().take(self.settings.run_messages_max) {
            if let Some(mark) = waiting.message.mark.filter(|_| dedup) {
                if self.claims.get(&(consumer, mark)).is_some_and(|holder| *holder != id) {
                    if jobs.is_empty() {
                        self.blocked.entry((consumer, mark)).or_default().push_back(id);
                        lane.state = LaneState::Blocked;
                        return;
                    }
                    break;
                }
                self.claims.insert((consumer, mark), id);
                claims.push(mark);
            }
            jobs.push(Job {
                message: Arc::clone(&waiting.message),
                attempt: waiting.failures.saturating_add(1),
                dedup,
            });
        }
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        let shared_state = state.policy.shared_state;
        lane.state = LaneState::Running { jobs: jobs.len(), claims, shared_state };
        self.runs_out += 1;
        state.running += 1;
        self.actions.push_back(Action::Execute(Run { consumer, lane: id, jobs }));
    }

    /// Takes what a run did: outcomes go into the open batch, a failure decides what the lane does next.
    pub(super) fn run_ended(&mut self, consumer: ConsumerId, id: LaneId, results: Vec<JobResult>) {
        let (Some(state), Some(lane)) = (self.consumers.get_mut(&consumer), self.lanes.get_mut(id)) else { return };
        let LaneState::Running { claims, shared_state, .. } = &mut lane.state else { return };
        let (claims, shared_state) = (std::mem::take(claims), *shared_state);
        lane.state = LaneState::Ready;
        state.running -= 1;
        self.runs_out -= 1;
        for mark in claims {
            self.release_claim(consumer, mark);
        }
        let mut backoff = None;
        for result in results {
            let Some(waiting) = self.lanes.get_mut(id).and_then(|lane| lane.queue.pop_front()) else { break };
            match result {
                JobResult::Applied { version, writes } => {
                    let state_key = if shared_state { None } else { waiting.message.key.clone() };
                    self.applied(consumer, &waiting.message, state_key, version, writes);
                }
                JobResult::Duplicate => self.duplicate(consumer, &waiting.message),
                JobResult::Failed { version, failure } => {
                    backoff = self.failed(consumer, id, waiting, version, failure)
                }
            }
        }
        self.rest_lane(id, backoff);
    }

    /// Decides the state of a lane that nothing is running for.
    fn rest_lane(&mut self, id: LaneId, backoff_ms: Option<u64>) {
        let Some(lane) = self.lanes.get_mut(id) else { return };
        let Some(state) = self.consumers.get_mut(&lane.consumer) else { return };
        let goes_on = matches!(state.phase, Phase::Running | Phase::Positioning);
        if lane.queue.is_empty() || !goes_on {
            self.drop_lane(id);
        } else if let Some(delay_ms) = backoff_ms {
            state.waiting_retry += 1;
            let until_tick_ms = self.at(delay_ms, Timer::Lane(id));
            if let Some(lane) = self.lanes.get_mut(id) {
                lane.state = LaneState::Backoff { until_tick_ms };
            }
        } else {
            self.make_ready(id);
        }
    }

    pub(super) fn backoff_over(&mut self, id: LaneId, tick_ms: u64) {
        let Some(lane) = self.lanes.get(id) else { return };
        if lane.state == (LaneState::Backoff { until_tick_ms: tick_ms }) {
            if let Some(state) = self.consumers.get_mut(&lane.consumer) {
                state.waiting_retry -= 1;
            }
            self.make_ready(id);
        }
    }

    fn make_ready(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(id) else { return };
        lane.state = LaneState::Ready;
        let consumer = lane.consumer;
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        state.ready.push_back(id);
        if !std::mem::replace(&mut state.in_round, true) {
            self.round.push_back(consumer);
        }
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
        let Some(lane) = self.lanes.remove(id) else { return };
        let Some(state) = self.consumers.get_mut(&lane.consumer) else { return };
        if let LaneState::Backoff { until_tick_ms } = lane.state {
            state.waiting_retry -= 1;
            self.timers.remove(&(until_tick_ms, Timer::Lane(id)));
        }
        if let Some(key) = lane.key {
            state.by_key.remove(&key);
        }
        for waiting in lane.queue {
            state.let_go(waiting.message.sequence);
        }
    }

    fn applied(
        &mut self,
        consumer: ConsumerId,
        message: &Message,
        state_key: Option<Arc<str>>,
        version: Version,
        writes: WriteSet,
    ) {
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        state.counters.applied += 1;
        state.outbox_rows += writes.events.len();
        let first_row = RowId(self.next_row);
        self.next_row += writes.events.len() as u64;
        let bytes = OUTCOME_BYTES + writes.weight();
        let outcome = Outcome::Applied { version, mark: message.mark, state_key, writes, first_row };
        self.open.push(Settlement { consumer, sequence: message.sequence, outcome }, bytes);
    }

    fn duplicate(&mut self, consumer: ConsumerId, message: &Message) {
        if let Some(state) = self.consumers.get_mut(&consumer) {
            state.counters.duplicates += 1;
        }
        self.open.push(Settlement { consumer, sequence: message.sequence, outcome: Outcome::Duplicate }, OUTCOME_BYTES);
    }

    /// Gives the message up, or puts it back at the head of its lane and says how long to wait.
    fn failed(
        &mut self,
        consumer: ConsumerId,
        id: LaneId,
        mut waiting: Waiting,
        version: Version,
        failure: Failure,
    ) -> Option<u64> {
        let policy = self.consumers.get(&consumer).map(|state| state.policy)?;
        let asked_ms = match &failure {
            Failure::Retry { after_ms, .. } | Failure::Park { after_ms, .. } => *after_ms,
            _ => None,
        };
        let parked = matches!(failure, Failure::Park { .. });
        let rejected = matches!(failure, Failure::Reject { .. });
        waiting.calls = waiting.calls.saturating_add(1);
        waiting.remember(FailedAttempt { at_ms: self.now.wall_ms, version, failure });
        let delay_ms = if parked {
            let since = *waiting.parked_since_tick_ms.get_or_insert(self.now.tick_ms);
            let left = policy.park.longest_ms.saturating_sub(self.now.tick_ms.saturating_sub(since));
            if left == 0 {
                self.give_up(consumer, waiting, GivenUp::ParkedTooLong);
                return None;
            }
            asked_ms.unwrap_or(policy.park.delay_ms).clamp(1, left)
        } else {
            waiting.failures += 1;
            if rejected {
                self.give_up(consumer, waiting, GivenUp::Rejected);
                return None;
            }
            if waiting.failures >= policy.retry.attempts_max {
                self.give_up(consumer, waiting, GivenUp::Exhausted);
                return None;
            }
            let seed = self.settings.jitter_seed ^ waiting.message.sequence;
            policy.retry.delay_ms(waiting.failures, asked_ms, seed).max(1)
        };
        if let Some(state) = self.consumers.get_mut(&consumer) {
            state.counters.retries += 1;
        }
        if let Some(lane) = self.lanes.get_mut(id) {
            lane.queue.push_front(waiting);
        }
        Some(delay_ms)
    }

    fn give_up(&mut self, consumer: ConsumerId, waiting: Waiting, cause: GivenUp) {
        if let Some(state) = self.consumers.get_mut(&consumer) {
            state.counters.dead_letters += 1;
        }
        let bytes = OUTCOME_BYTES + waiting.message.weight();
        let sequence = waiting.message.sequence;
        let letter = Arc::new(DeadLetter {
            message: waiting.message,
            cause,
            history: waiting.history.into(),
            attempts: waiting.calls,
            at_ms: self.now.wall_ms,
        });
        let outcome = Outcome::DeadLettered(Arc::clone(&letter));
        self.open.push(Settlement { consumer, sequence, outcome }, bytes);
        self.actions.push_back(Action::DeadLettered { consumer, letter });
    }
}
