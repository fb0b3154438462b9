//! What an operator decides about a consumer, as the core needs it.

/// When a failed attempt is repeated, and how often.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included. At least 1.
    pub attempts_max: u32,
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
        Self { attempts_max: 5, first_delay_ms: 100, longest_delay_ms: 30_000, multiplier: 2.0, jitter: 0.2 }
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

/// How long a plug-in's *park* holds a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParkPolicy {
    /// Delay until the plug-in is asked again if it named none, in milliseconds.
    pub delay_ms: u64,
    /// A message parked for longer than this in all becomes a dead letter, in milliseconds.
    pub longest_ms: u64,
}

impl Default for ParkPolicy {
    fn default() -> Self {
        Self { delay_ms: 1_000, longest_ms: 600_000 }
    }
}

/// The policies of one consumer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// Retries.
    pub retry: RetryPolicy,
    /// The plug-in's *park*.
    pub park: ParkPolicy,
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
            park: ParkPolicy::default(),
            messages_held_max: 10_000,
            bytes_held_max: 32 << 20,
            outbox_rows_max: 50_000,
            shared_state: false,
        }
    }
}

/// Spreads the bits of a number (the finaliser of splitmix64): jitter without a source of randomness.
fn scramble(seed: u64) -> u64 {
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
    fn a_plug_ins_wish_is_kept_within_the_limits() {
        let policy = RetryPolicy::default();
        assert_eq!([0, 5_000, u64::MAX].map(|asked| policy.delay_ms(1, Some(asked), 0)), [100, 5_000, 30_000]);
    }
}
