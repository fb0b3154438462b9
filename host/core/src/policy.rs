//! What an operator decides about a consumer, as the core needs it.

use std::sync::Arc;

/// When a failed attempt is repeated, and how often.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included. At least 1.
    pub attempts_max: u32,
    /// No attempt begins later than this after the first failure, in milliseconds; none: attempts are the only limit.
    pub total_ms: Option<u64>,
    /// Delay before the second attempt, in milliseconds.
    pub first_delay_ms: u64,
    /// No delay is longer, also none that a plug-in asks for, in milliseconds.
    pub longest_delay_ms: u64,
    /// Each delay is this many times the one before it. At least 1.
    pub multiplier: f64,
    /// A delay is shortened by up to this part of itself, so that keys that failed together don't come back together. 0 to 1.
    pub jitter: f64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts_max: 5,
            total_ms: None,
            first_delay_ms: 100,
            longest_delay_ms: 30_000,
            multiplier: 2.0,
            jitter: 0.2,
        }
    }
}

impl RetryPolicy {
    /// Milliseconds to wait after failed attempt number `attempt` (from 1). `asked_ms` is the plug-in's own wish, kept within the first and
    /// the longest delay; `seed` decides the jitter, so that the same message waits the same time in every run.
    #[must_use]
    pub fn delay_ms(&self, attempt: u32, asked_ms: Option<u64>, seed: u64) -> u64 {
        if let Some(asked) = asked_ms {
            return asked.max(self.first_delay_ms).min(self.longest_delay_ms);
        }
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let longest = self.longest_delay_ms as f64;
        let full = (self.first_delay_ms as f64 * self.multiplier.powi(exponent)).min(longest);
        let part = (scramble(seed ^ u64::from(attempt)) >> 11) as f64 / (1_u64 << 53) as f64;
        // Lossless enough: delays are far below 2^53 ms.
        (full * (1.0 - self.jitter * part)) as u64
    }
}

/// How long an instance of a plug-in lives. The core has no use for it, but configuration and sandbox speak of it in the same words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Each attempt gets an instance of its own.
    #[default]
    Fresh,
    /// An instance serves several attempts, until one fails or a bound is reached.
    Reuse(Reuse),
}

/// Bounds of an instance that serves several attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reuse {
    /// Attempts of one instance, at most. At least 1.
    pub invocations_max: u32,
    /// No attempt begins in an instance that is older than this, in milliseconds.
    pub age_max_ms: u64,
    /// One attempt in so many is made again in a fresh instance, and their effects are compared; none: it is never checked.
    pub audit_one_in: Option<u32>,
}

impl Default for Reuse {
    fn default() -> Self {
        Self { invocations_max: 1_000, age_max_ms: 60_000, audit_one_in: None }
    }
}

/// One audit in so many attempts, unless a manifest says otherwise.
pub const AUDIT_ONE_IN: u32 = 100;

/// What happens to a message whose attempts are used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExhausted {
    /// It becomes a dead letter, and its key goes on behind it.
    DeadLetter,
    /// It and all later ones of its key are parked, in order, until they are released.
    #[default]
    ParkKey,
    /// The consumer stops.
    Halt,
}

/// How long a plug-in's *park* sets a message aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParkPolicy {
    /// Delay until the plug-in is asked again if it named none, in milliseconds.
    pub delay_ms: u64,
    /// A message that was first parked this long ago becomes a dead letter, in milliseconds.
    pub longest_ms: u64,
}

impl Default for ParkPolicy {
    fn default() -> Self {
        Self { delay_ms: 1_000, longest_ms: 600_000 }
    }
}

/// When a held key is released, and how much may be parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleasePolicy {
    /// A held key is released after this long, in milliseconds; doubled each time that it is held again. None: only by an operator or a new version.
    pub after_ms: Option<u64>,
    /// It never waits longer than this, in milliseconds.
    pub longest_ms: u64,
    /// Whether a new version of the plug-in releases all held keys.
    pub on_new_version: bool,
    /// Parked messages at which pulls wait.
    pub rows_max: u64,
}

impl Default for ReleasePolicy {
    fn default() -> Self {
        Self { after_ms: Some(60_000), longest_ms: 3_600_000, on_new_version: true, rows_max: 1_000_000 }
    }
}

impl ReleasePolicy {
    /// How long a key is held that was released `releases` times before, in milliseconds.
    #[must_use]
    pub fn delay_ms(&self, releases: u32) -> Option<u64> {
        let doubled = |after: u64| after.saturating_mul(1_u64.checked_shl(releases).unwrap_or(u64::MAX));
        self.after_ms.map(|after| doubled(after).min(self.longest_ms.max(after)))
    }
}

/// What happens when a version of an entity never comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnGap {
    /// The next one that did come is handled without it.
    #[default]
    GoOn,
    /// Those behind it become dead letters, each at its own deadline.
    DeadLetter,
}

/// Order by the versions that messages carry, for change events that come out of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionPolicy {
    /// The first version of an entity: a higher one of an unknown entity waits for it. None: an entity begins with whatever comes first.
    pub first: Option<u64>,
    /// How long a message waits for those before it, in milliseconds.
    pub gap_longest_ms: u64,
    /// What happens then.
    pub on_gap: OnGap,
}

impl Default for VersionPolicy {
    fn default() -> Self {
        Self { first: Some(1), gap_longest_ms: 600_000, on_gap: OnGap::default() }
    }
}

/// When a consumer pauses by itself, because what fails is not its messages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerPolicy {
    /// How many of the last attempts are looked at. At least 1.
    pub window: usize,
    /// It pauses when more than this part of them failed by retry, timeout or trap. 0 to 1.
    pub ratio: f64,
    /// Failed messages of fewer keys than this never make it pause.
    pub keys_min: usize,
    /// How long it pauses before it probes with one message, in milliseconds; doubled after each probe that fails.
    pub first_delay_ms: u64,
    /// It never pauses longer than this between two probes, in milliseconds.
    pub longest_delay_ms: u64,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self { window: 100, ratio: 0.8, keys_min: 10, first_delay_ms: 1_000, longest_delay_ms: 60_000 }
    }
}

/// How fast a consumer may be, for the sake of what is behind it. None: as fast as it can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RatePolicy {
    /// Attempts per second.
    pub per_second: Option<u32>,
    /// Keys handled at the same time.
    pub keys_max: Option<usize>,
}

/// The policies of one consumer.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Retries.
    pub retry: RetryPolicy,
    /// What happens when they are used up.
    pub on_exhausted: OnExhausted,
    /// The plug-in's *park*.
    pub park: ParkPolicy,
    /// The release of held keys.
    pub release: ReleasePolicy,
    /// Order by version; none: by stream sequence alone.
    pub versions: Option<VersionPolicy>,
    /// When it pauses by itself; none: never.
    pub breaker: Option<BreakerPolicy>,
    /// How fast it may be.
    pub rate: RatePolicy,
    /// Its share of executor time, relative to the other consumers'. At least 1.
    pub weight: u32,
    /// Where dead letters are published to as well; none: nowhere.
    pub dead_letter_subject: Option<Arc<str>>,
    /// Messages pulled and not yet settled, at most.
    pub messages_held_max: usize,
    /// Their memory, in bytes, at most (one pull may pass it).
    pub bytes_held_max: usize,
    /// Committed events not yet acknowledged by JetStream, at which pulls wait.
    pub outbox_rows_max: usize,
    /// All keys share their state, so attempts run one at a time.
    pub shared_state: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            retry: RetryPolicy::default(),
            on_exhausted: OnExhausted::default(),
            park: ParkPolicy::default(),
            release: ReleasePolicy::default(),
            versions: None,
            breaker: Some(BreakerPolicy::default()),
            rate: RatePolicy::default(),
            weight: 100,
            dead_letter_subject: None,
            messages_held_max: 10_000,
            bytes_held_max: 32 << 20,
            outbox_rows_max: 50_000,
            shared_state: false,
        }
    }
}

/// Spreads the bits of a number (the finaliser of splitmix64): chance without a source of randomness.
#[must_use]
pub fn scramble(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_longest_and_jitter_only_shortens() {
        let policy = RetryPolicy { jitter: 0.0, ..RetryPolicy::default() };
        let delays: Vec<_> = [1, 2, 3, 10, u32::MAX].map(|attempt| policy.delay_ms(attempt, None, 9)).into();
        assert_eq!(delays, [100, 200, 400, 30_000, 30_000]);
        let jittered = RetryPolicy { jitter: 0.5, ..policy };
        let spread: std::collections::BTreeSet<_> = (0..100).map(|seed| jittered.delay_ms(3, None, seed)).collect();
        assert!(spread.len() > 50 && spread.iter().all(|delay| (200..=400).contains(delay)), "{spread:?}");
    }

    #[test]
    fn a_key_that_is_held_again_and_again_waits_longer_up_to_a_bound() {
        let policy = ReleasePolicy { after_ms: Some(100), longest_ms: 1_000, ..ReleasePolicy::default() };
        assert_eq!(
            [0, 1, 3, 4, 200].map(|releases| policy.delay_ms(releases)),
            [100, 200, 800, 1_000, 1_000].map(Some)
        );
        assert_eq!(ReleasePolicy { after_ms: None, ..policy }.delay_ms(0), None);
    }

    #[test]
    fn a_plug_ins_wish_is_kept_within_the_limits() {
        let policy = RetryPolicy::default();
        assert_eq!([0, 5_000, u64::MAX].map(|asked| policy.delay_ms(1, Some(asked), 0)), [100, 5_000, 30_000]);
    }
}
