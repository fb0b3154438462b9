//! What becomes of a message: from the result of its attempt to its outcome in the open batch, or to its next attempt.

use std::sync::Arc;

use bytes::Bytes;

use super::breaker::is_not_the_messages;
use super::consumer::Phase;
use super::core::Core;
use super::dispatch::OUTCOME_BYTES;
use super::event::{Action, HaltReason, LaneId};
use super::lanes::Waiting;
use super::parking::GapEnd;
use crate::batch::{Outcome, Settlement};
use crate::breaks::Break;
use crate::effects::{Event, WriteSet};
use crate::ids::{ConsumerId, RowId, Version};
use crate::message::{DeadLetter, FailedAttempt, Failure, GivenUp, Headers};
use crate::parked::ParkCause;
use crate::policy::{OnExhausted, Policy, VersionPolicy};
use crate::transaction::event_id;

/// What a failed attempt comes to.
enum Verdict {
    /// Another attempt, after so many milliseconds.
    Again(u64),
    /// Its attempts are used up.
    Exhausted,
    /// It is given up at once.
    GiveUp(GivenUp),
    /// It is set aside for so many milliseconds.
    Aside(u64),
}

impl Core {
    pub(super) fn applied(
        &mut self,
        consumer: ConsumerId,
        waiting: Waiting,
        shared_state: bool,
        version: Version,
        writes: WriteSet,
    ) {
        self.note_attempt(consumer, version, &waiting.message, None);
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        state.counters.applied += 1;
        state.outbox_rows += writes.events.len();
        let entity_version = waiting.message.entity_version.filter(|_| state.policy.versions.is_some());
        let first_row = RowId(self.next_row);
        self.next_row += writes.events.len() as u64;
        let bytes = OUTCOME_BYTES + writes.weight();
        let key = waiting.message.key.clone();
        let state_key = if shared_state { None } else { key.clone() };
        let outcome = Outcome::Applied { version, mark: waiting.message.mark, state_key, writes, first_row };
        if self.settings.breaks.has(Break::PublishBeforeCommit) {
            self.hand_to_relay(consumer, &outcome, self.now.wall_ms);
        }
        self.conclude(consumer, waiting, outcome, bytes);
        if let Some(key) = key {
            self.key_went_on(consumer, &key, entity_version);
        }
    }

    pub(super) fn duplicate(&mut self, consumer: ConsumerId, waiting: Waiting) {
        if let Some(state) = self.consumers.get_mut(&consumer) {
            state.counters.duplicates += 1;
            state.breaker.nothing_tried();
        }
        self.conclude(consumer, waiting, Outcome::Duplicate, OUTCOME_BYTES);
    }

    pub(super) fn stale(&mut self, consumer: ConsumerId, waiting: Waiting) {
        if let Some(state) = self.consumers.get_mut(&consumer) {
            state.counters.stale += 1;
            state.breaker.nothing_tried();
        }
        self.conclude(consumer, waiting, Outcome::Stale, OUTCOME_BYTES);
    }

    /// Sets the message aside until those before it came. It comes back if it is to be tried again: behind those of its lane that it follows, or without
    /// them. Those in front of it that came back are in `again`.
    pub(super) fn gap(
        &mut self,
        consumer: ConsumerId,
        id: LaneId,
        mut waiting: Waiting,
        expected: u64,
        again: &[Waiting],
    ) -> Option<Waiting> {
        if self.settings.breaks.has(Break::LoseGap) {
            self.stale(consumer, waiting);
            return None;
        }
        let state = self.consumers.get_mut(&consumer)?;
        state.breaker.nothing_tried();
        let policy = state.policy.versions.unwrap_or_default();
        if waiting.released.is_some() && self.is_filled_in(id, &waiting, expected, again) {
            // What it follows is here and has its turn first: whoever passed it now would make it stale. The deadline stays where it is.
            return Some(waiting);
        }
        match self.judge_gap(consumer, &waiting, policy) {
            GapEnd::Waits => {
                self.set_aside(consumer, waiting, ParkCause::Gap { expected }, policy.gap_longest_ms);
                None
            }
            GapEnd::GivenUp => {
                self.give_up(consumer, waiting, GivenUp::GapNeverFilled);
                None
            }
            GapEnd::Passed => {
                waiting.gap_allowed = true;
                Some(waiting)
            }
        }
    }

    /// Puts an outcome into the open batch. What was parked leaves its row.
    fn conclude(&mut self, consumer: ConsumerId, waiting: Waiting, outcome: Outcome, bytes: usize) {
        let Waiting { message, released, cause, .. } = waiting;
        let settlement = Settlement { consumer, sequence: message.sequence, released: released.clone(), outcome };
        self.open.push(settlement, message.published_at_ms, bytes);
        if let Some(place) = released {
            self.committing_released(consumer);
            self.unparked(consumer, place, cause);
        }
    }

    /// Gives the message up, parks it, or puts it back at the head of its lane and says how long to wait.
    pub(super) fn failed(
        &mut self,
        consumer: ConsumerId,
        id: LaneId,
        mut waiting: Waiting,
        version: Version,
        failure: Failure,
    ) -> Option<u64> {
        self.note_attempt(consumer, version, &waiting.message, Some(&failure));
        let state = self.consumers.get_mut(&consumer)?;
        state.counters.failures.count(&failure);
        // While too much fails for no fault of the messages, none of them is given up for it.
        let spared = state.breaker.is_open() && is_not_the_messages(&failure);
        let policy = state.policy.clone();
        let verdict = self.judge(consumer, &mut waiting, &failure, spared);
        let last = failure.clone();
        waiting.calls = waiting.calls.saturating_add(1);
        waiting.came_tick_ms = None;
        waiting.remember(FailedAttempt { at_ms: self.now.wall_ms, version, failure });
        match verdict {
            Verdict::Again(delay_ms) => {
                if let Some(state) = self.consumers.get_mut(&consumer) {
                    state.counters.retries += 1;
                }
                if let Some(lane) = self.lanes.get_mut(id) {
                    lane.queue.push_front(waiting);
                }
                return Some(delay_ms);
            }
            Verdict::GiveUp(cause) => self.give_up(consumer, waiting, cause),
            Verdict::Aside(delay_ms) => self.set_aside(consumer, waiting, ParkCause::Asked, delay_ms),
            Verdict::Exhausted => self.exhausted(consumer, id, waiting, last, &policy),
        }
        None
    }

    fn judge(&self, consumer: ConsumerId, waiting: &mut Waiting, failure: &Failure, spared: bool) -> Verdict {
        let Some(state) = self.consumers.get(&consumer) else { return Verdict::Exhausted };
        let (policy, working_since_tick_ms) = (&state.policy, state.working_since_tick_ms);
        let asked_ms = match failure {
            Failure::Reject { .. } => return Verdict::GiveUp(GivenUp::Rejected),
            Failure::Park { after_ms, .. } => return self.judge_park(consumer, policy, waiting, *after_ms),
            Failure::Retry { after_ms, .. } => *after_ms,
            Failure::Trap { .. } | Failure::Timeout { .. } | Failure::Limit { .. } => None,
        };
        let seed = self.settings.jitter_seed ^ waiting.message.sequence;
        let began = *waiting.failing_since_tick_ms.get_or_insert(self.now.tick_ms);
        let since = began.max(working_since_tick_ms);
        if spared {
            return Verdict::Again(policy.retry.delay_ms(waiting.failures.saturating_add(1), asked_ms, seed).max(1));
        }
        waiting.failures = waiting.failures.saturating_add(1);
        let delay_ms = policy.retry.delay_ms(waiting.failures, asked_ms, seed).max(1);
        let ends_at = policy.retry.total_ms.map(|total| since.saturating_add(total));
        let too_late = ends_at.is_some_and(|end| self.now.tick_ms.saturating_add(delay_ms) > end);
        if waiting.failures >= policy.retry.attempts_max || too_late {
            Verdict::Exhausted
        } else {
            Verdict::Again(delay_ms)
        }
    }

    /// What becomes of a message that comes too early, by what it was parked for.
    fn judge_gap(&mut self, consumer: ConsumerId, waiting: &Waiting, policy: VersionPolicy) -> GapEnd {
        let is_over = waiting.until_ms.is_some_and(|until_ms| until_ms <= self.wall_ms());
        // What fills the gap may have waited on the stream all the while that the consumer did not read it.
        let could_come = self.worked_ms(consumer).is_some_and(|worked_ms| worked_ms >= policy.gap_longest_ms);
        let is_overdue = is_over && could_come && matches!(waiting.cause, Some(ParkCause::Gap { .. }));
        let on_gap = policy.on_gap;
        match &waiting.released {
            // One that was tried had its turn before: the gap in front of it was closed or passed then. To wait for it again, and to be asked to wait by the
            // plug-in after it, would go on for ever.
            Some(place) => self.end_of_gap(consumer, place, is_overdue, waiting.calls > 0, on_gap),
            None => GapEnd::Waits,
        }
    }

    /// Whether a message that the other one follows waits in its lane, or comes back into it.
    fn is_filled_in(&self, id: LaneId, waiting: &Waiting, expected: u64, again: &[Waiting]) -> bool {
        let Some(own) = waiting.message.entity_version else { return false };
        let before = expected..own;
        let fills = |other: &Waiting| other.message.entity_version.is_some_and(|version| before.contains(&version));
        again.iter().any(fills) || self.lanes.get(id).is_some_and(|lane| lane.queue.iter().any(fills))
    }

    /// For how long it was parked so far. What it waits for could not come while its consumer did not work: that time does not count.
    fn waited_ms(&self, consumer: ConsumerId, waiting: &Waiting) -> u64 {
        let parked_ms = waiting.parked_at_ms.map_or(0, |at_ms| self.wall_ms().saturating_sub(at_ms));
        parked_ms.min(self.worked_ms(consumer).unwrap_or(0))
    }

    fn judge_park(&self, consumer: ConsumerId, policy: &Policy, waiting: &Waiting, asked_ms: Option<u64>) -> Verdict {
        // Only while it asks: the time that it was held behind others is not its own.
        let asks = waiting.cause == Some(ParkCause::Asked);
        let waited_ms = if asks { self.waited_ms(consumer, waiting) } else { 0 };
        let left_ms = policy.park.longest_ms.saturating_sub(waited_ms);
        if left_ms == 0 {
            Verdict::GiveUp(GivenUp::ParkedTooLong)
        } else {
            Verdict::Aside(asked_ms.unwrap_or(policy.park.delay_ms).clamp(1, left_ms))
        }
    }

    fn exhausted(&mut self, consumer: ConsumerId, id: LaneId, waiting: Waiting, failure: Failure, policy: &Policy) {
        match policy.on_exhausted {
            OnExhausted::DeadLetter => self.give_up(consumer, waiting, GivenUp::Exhausted),
            OnExhausted::ParkKey => {
                let delay_ms = policy.release.delay_ms(waiting.releases);
                self.hold_key(consumer, id, waiting, ParkCause::Exhausted, delay_ms);
            }
            OnExhausted::Halt => {
                let reason = HaltReason::Exhausted {
                    sequence: waiting.message.sequence,
                    key: waiting.message.key.clone(),
                    attempts: waiting.calls,
                    failure,
                };
                if let Some(lane) = self.lanes.get_mut(id) {
                    lane.queue.push_front(waiting);
                }
                // One that stops anyway goes on to do so, and lets the message go with all that waits.
                if self.is_at_work(consumer) {
                    self.actions.push_back(Action::Halted { consumer, reason });
                    self.stop(consumer, Phase::Halted);
                }
            }
        }
    }

    pub(super) fn give_up(&mut self, consumer: ConsumerId, mut waiting: Waiting, cause: GivenUp) {
        let letter = Arc::new(DeadLetter {
            message: Arc::clone(&waiting.message),
            cause,
            history: std::mem::take(&mut waiting.history).into(),
            attempts: waiting.calls,
            at_ms: self.now.wall_ms,
        });
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        state.counters.dead_letters += 1;
        let subject = state.policy.dead_letter_subject.clone();
        let copy = subject.map(|subject| {
            state.outbox_rows += 1;
            let row = RowId(self.next_row);
            self.next_row += 1;
            (row, Arc::new(copy_of(&letter, &state.name, &subject)))
        });
        let bytes = OUTCOME_BYTES + letter.message.weight() + copy.as_ref().map_or(0, |(_, event)| event.weight());
        self.actions.push_back(Action::DeadLettered { consumer, letter: Arc::clone(&letter) });
        self.conclude(consumer, waiting, Outcome::DeadLettered { letter, copy }, bytes);
    }
}

/// Largest copy of a dead letter, in bytes: servers take messages of 1 MiB by default, and what NATS itself adds has to fit in.
const COPY_BYTES_MAX: usize = 960 << 10;

/// The event that tells of a dead letter: the message as it was, and in headers what happened to it. Where that would be more than a server takes, its
/// own headers and its payload are left out; the dead letter has them.
fn copy_of(letter: &DeadLetter, consumer: &str, subject: &str) -> Event {
    let message = &letter.message;
    let is_own = |name: &str| {
        let name = name.to_ascii_lowercase();
        name.starts_with("nats-") || name.starts_with("pelton-dead-letter-")
    };
    let mut headers: Headers = message.headers.iter().filter(|(name, _)| !is_own(name)).cloned().collect();
    let last = letter.history.last();
    let told = [
        ("consumer", consumer.to_owned()),
        ("cause", letter.cause.kind().to_owned()),
        ("stream", message.stream.name.to_string()),
        ("sequence", message.sequence.to_string()),
        ("subject", message.subject.to_string()),
        ("message-id", message.id.to_string()),
        ("attempts", letter.attempts.to_string()),
        ("failure", last.map_or_else(String::new, |last| last.failure.kind().to_owned())),
        ("reason", last.map_or_else(|| letter.cause.reason().to_owned(), |last| last.failure.reason())),
    ];
    let sound = |text: String| text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    let told = told.into_iter().map(|(name, text)| (format!("pelton-dead-letter-{name}").into(), sound(text).into()));
    let mut payload = message.payload.clone();
    if message.weight() > COPY_BYTES_MAX {
        headers = vec![("pelton-dead-letter-payload-bytes".into(), payload.len().to_string().into())];
        payload = Bytes::new();
    }
    headers.extend(told);
    Event {
        // Given up again after a replay, it is told of again.
        id: event_id(consumer, message, format_args!("dead-letter-{}", letter.at_ms)).into(),
        subject: subject.into(),
        // Among themselves they are in order. The plug-in's own events of the key don't wait for them.
        key: message.key.as_ref().map(|key| format!("dead-letter:{key}").into()),
        headers,
        payload,
    }
}
