//! The breaker: notices that what fails is not the messages, and lets a consumer rest instead of going through its keys one by one.
//!
//! It looks at the last attempts. When too many of them, of enough different keys, failed for reasons that are not the message's own, it opens: nothing begins but,
//! after a delay, one attempt as a probe. A probe that succeeds closes it, one that fails doubles the delay.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};

use rustc_hash::FxHasher;

use crate::message::{Failure, Message};
use crate::policy::BreakerPolicy;

/// What the breaker is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum BreakerState {
    /// Attempts begin as they come.
    #[default]
    Closed,
    /// Nothing begins until this time, on the clock of `tick_ms`.
    Open { until_tick_ms: u64 },
    /// One attempt may begin.
    Ready,
    /// It is under way.
    Probing,
}

/// What an attempt's result means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// The consumer pauses for so many milliseconds.
    Opened(u64),
    /// The consumer goes on.
    Closed,
}

/// The breaker of one consumer.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    pub(crate) state: BreakerState,
    /// Of each of the last attempts: its key, and whether it failed for no fault of its message.
    last: VecDeque<(u64, bool)>,
    failed: usize,
    probes_failed: u32,
}

impl Breaker {
    /// Whether it keeps attempts from beginning.
    pub(crate) fn is_open(&self) -> bool {
        self.state != BreakerState::Closed
    }

    /// How many attempts may begin.
    pub(crate) fn allowed(&self) -> usize {
        match self.state {
            BreakerState::Closed => usize::MAX,
            BreakerState::Ready => 1,
            BreakerState::Open { .. } | BreakerState::Probing => 0,
        }
    }

    /// Attempts begin: if it is open, this one is the probe.
    pub(crate) fn began(&mut self) {
        if self.state == BreakerState::Ready {
            self.state = BreakerState::Probing;
        }
    }

    /// A run came back without having made an attempt: if it was the probe, another one may be.
    pub(crate) fn nothing_tried(&mut self) {
        if self.state == BreakerState::Probing {
            self.state = BreakerState::Ready;
        }
    }

    /// What was seen so far counts no more.
    pub(crate) fn forget(&mut self) {
        self.last.clear();
        self.failed = 0;
    }

    /// The delay is over.
    pub(crate) fn ready(&mut self) {
        if let BreakerState::Open { .. } = self.state {
            self.state = BreakerState::Ready;
        }
    }

    /// An attempt has ended; none: well.
    pub(crate) fn ended(&mut self, policy: &BreakerPolicy, message: &Message, failure: Option<&Failure>) -> Change {
        let failed = failure.is_some_and(is_not_the_messages);
        match self.state {
            BreakerState::Closed => {
                self.remember(policy.window, message, failed);
                if !self.trips(policy) {
                    return Change::None;
                }
                self.forget();
                self.probes_failed = 0;
                Change::Opened(policy.first_delay_ms)
            }
            BreakerState::Probing if failed => {
                self.probes_failed = self.probes_failed.saturating_add(1);
                let times = 1_u64.checked_shl(self.probes_failed).unwrap_or(u64::MAX);
                let longest = policy.longest_delay_ms.max(policy.first_delay_ms);
                Change::Opened(policy.first_delay_ms.saturating_mul(times).min(longest))
            }
            BreakerState::Probing => {
                self.state = BreakerState::Closed;
                Change::Closed
            }
            // One that began before the breaker opened says nothing new.
            BreakerState::Open { .. } | BreakerState::Ready => Change::None,
        }
    }

    fn remember(&mut self, window: usize, message: &Message, failed: bool) {
        let mut hasher = FxHasher::default();
        match &message.key {
            Some(key) => key.hash(&mut hasher),
            None => message.sequence.hash(&mut hasher),
        }
        self.last.push_back((hasher.finish(), failed));
        self.failed += usize::from(failed);
        while self.last.len() > window {
            self.failed -= usize::from(self.last.pop_front().is_some_and(|(_, failed)| failed));
        }
    }

    fn trips(&self, policy: &BreakerPolicy) -> bool {
        // Counted in whole attempts: windows are far below 2^53.
        if self.last.len() < policy.window || self.failed as f64 <= policy.ratio * policy.window as f64 {
            return false;
        }
        let keys: BTreeSet<_> = self.last.iter().filter(|(_, failed)| *failed).map(|(key, _)| key).collect();
        keys.len() >= policy.keys_min
    }
}

/// A rejection, a park and a passed limit are about the message; a wish to retry, a trap and a timeout may be about what is behind the plug-in, or about itself.
pub(crate) fn is_not_the_messages(failure: &Failure) -> bool {
    matches!(failure, Failure::Retry { .. } | Failure::Trap { .. } | Failure::Timeout { .. })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::batch::StreamIdentity;

    const POLICY: BreakerPolicy =
        BreakerPolicy { window: 10, ratio: 0.5, keys_min: 3, first_delay_ms: 100, longest_delay_ms: 300 };

    fn message(key: u64) -> Message {
        Message {
            id: "".into(),
            mark: None,
            subject: "s".into(),
            key: Some(key.to_string().into()),
            headers: Vec::new(),
            payload: bytes::Bytes::new(),
            sequence: key,
            published_at_ms: 0,
            stream: Arc::new(StreamIdentity { name: "S".into(), created_ns: 0 }),
            entity_version: None,
        }
    }

    fn timeout() -> Option<Failure> {
        Some(Failure::Timeout { limit_ms: 1 })
    }

    fn feed(breaker: &mut Breaker, keys: impl Iterator<Item = (u64, Option<Failure>)>) -> Vec<Change> {
        keys.map(|(key, failure)| breaker.ended(&POLICY, &message(key), failure.as_ref())).collect()
    }

    #[test]
    fn it_opens_when_attempts_of_enough_keys_fail() {
        let mut breaker = Breaker::default();
        let changes = feed(&mut breaker, (0..10).map(|key| (key, timeout())));
        assert_eq!(changes.iter().position(|change| *change == Change::Opened(100)), Some(9));
    }

    #[test]
    fn it_stays_closed_while_few_keys_fail_or_the_messages_are_at_fault() {
        let mut breaker = Breaker::default();
        assert!(feed(&mut breaker, (0..50).map(|n| (n % 2, timeout()))).iter().all(|change| *change == Change::None));
        let reject = Some(Failure::Reject { reason: "no".into() });
        assert!(feed(&mut breaker, (0..50).map(|n| (n, reject.clone()))).iter().all(|change| *change == Change::None));
    }

    #[test]
    fn probes_that_fail_wait_longer_up_to_a_bound_and_one_that_succeeds_closes_it() {
        let mut breaker = Breaker::default();
        let mut delays = Vec::new();
        breaker.state = BreakerState::Open { until_tick_ms: 0 };
        for _ in 0..4 {
            breaker.ready();
            assert_eq!(breaker.allowed(), 1);
            breaker.began();
            assert_eq!(breaker.allowed(), 0);
            let Change::Opened(delay) = breaker.ended(&POLICY, &message(1), timeout().as_ref()) else { panic!() };
            delays.push(delay);
            breaker.state = BreakerState::Open { until_tick_ms: 0 };
        }
        assert_eq!(delays, [200, 300, 300, 300]);
        breaker.ready();
        breaker.began();
        assert_eq!(breaker.ended(&POLICY, &message(1), None), Change::Closed);
        assert!(!breaker.is_open());
    }
}
