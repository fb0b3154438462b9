//! What keeps a consumer from working although it could: an operator's pause, its breaker, its own pace. And what a change of its rules or its plug-in means.

use super::breaker::{BreakerState, Change};
use super::consumer::Phase;
use super::core::{Core, Timer};
use super::event::Action;
use super::explain::WaitsFor;
use super::parking::ParkBook;
use crate::batch::{Edit, Hold, HoldBy};
use crate::ids::{ConsumerId, Version};
use crate::message::{Failure, Message};
use crate::parked::{ParkCause, ParkLane};
use crate::policy::{BreakerPolicy, Policy};

/// What an edit is counted with, in bytes.
pub(super) const EDIT_BYTES: usize = 64;

impl Core {
    pub(super) fn change_policy(&mut self, consumer: ConsumerId, policy: Policy) {
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        let breaker = policy.breaker;
        let delay_ms = policy.release.delay_ms(0);
        let releases_now = delay_ms.filter(|_| state.policy.release.delay_ms(0).is_none());
        state.policy = policy;
        let tripped = state.holds.contains_key(&HoldBy::Breaker);
        match breaker {
            None if tripped => self.close_breaker(consumer),
            // A start finds it open: the pause begins anew.
            Some(policy) if tripped && !state.breaker.is_open() => self.open_breaker(consumer, policy.first_delay_ms),
            _ => {}
        }
        if let Some(delay_ms) = releases_now {
            self.wake_held_without_time(consumer, delay_ms);
        }
    }

    /// Keys that are held without a time come back by themselves from now on.
    pub(super) fn wake_held_without_time(&mut self, consumer: ConsumerId, delay_ms: u64) {
        let until_ms = Some(self.wall_ms().saturating_add(delay_ms));
        for lane in self.exhausted_lanes(consumer, |book| book.until_tick_ms.is_none()) {
            self.wake_parked_at(consumer, &lane, until_ms);
        }
    }

    /// Another version may handle what the one before could not.
    pub(super) fn swapped(&mut self, consumer: ConsumerId) {
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        let releases = state.policy.release.on_new_version;
        // What was seen of the version before says nothing about this one.
        state.probation = None;
        state.breaker.forget();
        self.probe_now(consumer);
        if releases {
            self.release_held(consumer);
        }
    }

    /// Lets an open breaker probe without further delay.
    pub(super) fn probe_now(&mut self, consumer: ConsumerId) {
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        if let BreakerState::Open { until_tick_ms } = state.breaker.state {
            self.timers.remove(&(until_tick_ms, Timer::Breaker(consumer)));
            state.breaker.ready();
        }
    }

    /// Brings back the messages of all held keys.
    fn release_held(&mut self, consumer: ConsumerId) {
        for lane in self.exhausted_lanes(consumer, |_| true) {
            self.request_release(consumer, lane, false);
        }
    }

    /// The lanes that a message holds whose attempts were used up, in an order that does not depend on that of a hash map.
    fn exhausted_lanes(&self, consumer: ConsumerId, also: impl Fn(&ParkBook) -> bool) -> Vec<ParkLane> {
        let Some(state) = self.consumers.get(&consumer) else { return Vec::new() };
        let held = state.parked.iter().filter(|(_, book)| book.cause == Some(ParkCause::Exhausted) && also(book));
        let mut held: Vec<_> = held.map(|(lane, _)| lane.clone()).collect();
        held.sort();
        held
    }

    /// Keeps a consumer from working, durably, or lets it go on.
    pub(super) fn set_hold(&mut self, consumer: ConsumerId, by: HoldBy, hold: Option<Hold>) {
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        match &hold {
            Some(hold) => _ = state.holds.insert(by, hold.clone()),
            None => {
                state.holds.remove(&by);
                state.working_since_tick_ms = self.now.tick_ms;
            }
        }
        // One that has no stream yet is not known to the store.
        if state.stream.is_some() {
            self.open.edit(Edit::Hold { consumer, by, hold: hold.clone() }, EDIT_BYTES);
        }
        self.actions.push_back(Action::Held { consumer, by, hold });
    }

    /// An attempt of this version has ended: the breaker may open or close.
    pub(super) fn note_attempt(
        &mut self,
        consumer: ConsumerId,
        version: Version,
        message: &Message,
        failure: Option<&Failure>,
    ) {
        if !self.counts_for_probation(consumer, version) {
            return;
        }
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        let Some(policy) = state.policy.breaker else { return };
        match state.breaker.ended(&policy, message, failure) {
            Change::None => {}
            Change::Opened(delay_ms) => {
                let known = state.holds.contains_key(&HoldBy::Breaker);
                let reason = why(&policy, failure);
                self.open_breaker(consumer, delay_ms);
                self.judge_version(consumer, &reason);
                if !known {
                    let hold = Hold { since_ms: self.now.wall_ms, reason };
                    self.set_hold(consumer, HoldBy::Breaker, Some(hold));
                }
            }
            Change::Closed => self.close_breaker(consumer),
        }
    }

    fn open_breaker(&mut self, consumer: ConsumerId, delay_ms: u64) {
        let until_tick_ms = self.at(delay_ms, Timer::Breaker(consumer));
        if let Some(state) = self.consumers.get_mut(&consumer) {
            state.breaker.state = BreakerState::Open { until_tick_ms };
        }
    }

    fn close_breaker(&mut self, consumer: ConsumerId) {
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        if let BreakerState::Open { until_tick_ms } = state.breaker.state {
            self.timers.remove(&(until_tick_ms, Timer::Breaker(consumer)));
        }
        state.breaker = Default::default();
        if state.holds.contains_key(&HoldBy::Breaker) {
            self.set_hold(consumer, HoldBy::Breaker, None);
        }
    }

    pub(super) fn breaker_time_is_over(&mut self, consumer: ConsumerId) {
        if let Some(state) = self.consumers.get_mut(&consumer) {
            state.breaker.ready();
        }
    }

    pub(super) fn pace_time_is_over(&mut self, consumer: ConsumerId) {
        if let Some(state) = self.consumers.get_mut(&consumer) {
            state.paced_until_tick_ms = None;
        }
    }

    /// How many attempts of the consumer may begin now.
    pub(super) fn attempts_allowed(&mut self, consumer: ConsumerId) -> usize {
        let tick_ms = self.now.tick_ms;
        let last_but_one = self.settings.executors.saturating_sub(1).max(1);
        let Some(state) = self.consumers.get(&consumer) else { return 0 };
        let would_take_all = state.pace.is_slow() && self.others_need(consumer, state.running >= last_but_one);
        let Some(state) = self.consumers.get_mut(&consumer) else { return 0 };
        // Attempts on state that all keys share are serial: each must see what the one before it left.
        let serial = state.policy.shared_state && state.running > 0;
        let keys_used_up = state.policy.rate.keys_max.is_some_and(|most| state.running >= most);
        if serial || keys_used_up || would_take_all || state.is_paused() || state.paced_until_tick_ms.is_some() {
            return 0;
        }
        let probes = state.breaker.allowed();
        match state.pace.allowed(state.policy.rate, tick_ms) {
            Ok(attempts) => attempts.min(probes),
            Err(wait_ms) => {
                let until_tick_ms = self.at(wait_ms.max(1), Timer::Pace(consumer));
                if let Some(state) = self.consumers.get_mut(&consumer) {
                    state.paced_until_tick_ms = Some(until_tick_ms);
                }
                0
            }
        }
    }

    /// What keeps the consumer's ready lanes: the same reasons as in [`Core::dispatch`], for whoever asks.
    pub(super) fn waits_for(&self, consumer: ConsumerId) -> WaitsFor {
        let Some(state) = self.consumers.get(&consumer) else { return WaitsFor::Turn };
        let keys_max = state.policy.rate.keys_max.filter(|most| state.running >= *most);
        if state.is_paused() || state.breaker.allowed() == 0 {
            WaitsFor::Consumer
        } else if self.disk_low {
            WaitsFor::Disk
        } else if self.overlay_full || self.open.is_full() {
            WaitsFor::Memory
        } else if state.policy.shared_state && state.running > 0 {
            WaitsFor::SharedState
        } else if let Some(keys_max) = keys_max {
            WaitsFor::Keys { keys_max }
        } else if let Some(until_tick_ms) = state.paced_until_tick_ms {
            WaitsFor::Rate { for_ms: until_tick_ms.saturating_sub(self.now.tick_ms) }
        } else {
            WaitsFor::Turn
        }
    }

    /// Whether other consumers need the executor that a slow one would take next: the last one that it leaves to anybody, or the last one that the
    /// slow ones together leave to the quick.
    fn others_need(&self, consumer: ConsumerId, own_last: bool) -> bool {
        const MOMENT_MS: u64 = 10_000;
        let last_but_one = self.settings.executors.saturating_sub(1).max(1);
        let slow =
            self.consumers.values().filter(|state| state.pace.is_slow()).map(|state| state.running).sum::<usize>();
        let slow_last = slow >= last_but_one;
        (own_last || slow_last)
            && self.consumers.iter().any(|(id, state)| {
                *id != consumer
                    && (own_last || !state.pace.is_slow())
                    && state.phase == Phase::Running
                    && state.could_begin()
                    && (state.running > 0
                        || !state.ready.is_empty()
                        || state.pace.was_busy(self.now.tick_ms, MOMENT_MS))
            })
    }
}

fn why(policy: &BreakerPolicy, failure: Option<&Failure>) -> Box<str> {
    let last =
        failure.map_or_else(String::new, |failure| format!("; the last one: {}: {}", failure.kind(), failure.reason()));
    let part = policy.ratio * 100.0;
    format!("more than {part:.0}% of the last {} attempts failed by retry, timeout or trap{last}", policy.window).into()
}
