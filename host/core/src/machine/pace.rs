//! Fairness and rates: whose turn it is on the executors, and how fast a consumer may go.

use crate::policy::RatePolicy;

/// A consumer whose runs take longer than this on average is slow, in microseconds: it never gets the last free executor while others are at work.
const SLOW_RUN_US: u64 = 5_000;
/// What is handed to an executor ahead of its need may take so long, in microseconds: whoever comes meanwhile waits behind it.
const AHEAD_US: u64 = 500;
/// The weight that a consumer has whose manifest names none.
const WEIGHT_DEFAULT: u64 = 100;

/// What a consumer has used of the executors, and what it may begin now.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Executor time used, in microseconds, divided by the consumer's weight: the least goes first.
    pub(crate) used: u64,
    /// How long its runs take, smoothed, in microseconds; none: none has ended yet.
    run_us: Option<u64>,
    /// When its last run ended.
    last_end_tick_ms: Option<u64>,
    /// Thousandths of attempts that may begin.
    allowance: u64,
    allowance_at_tick_ms: u64,
}

impl Pace {
    /// A run begins. It is charged at once with what it will probably take; the charge is for whoever tells of its end.
    pub(crate) fn began(&mut self, weight: u32) -> u64 {
        let charge = share(self.run_us.unwrap_or(0), weight);
        self.used = self.used.saturating_add(charge);
        charge
    }

    /// A run has ended.
    pub(crate) fn ended(&mut self, charge: u64, busy_us: u64, weight: u32, tick_ms: u64) {
        self.used = self.used.saturating_add(share(busy_us, weight)).saturating_sub(charge);
        self.run_us = Some(self.run_us.map_or(busy_us, |known| (known * 7 + busy_us) / 8));
        self.last_end_tick_ms = Some(tick_ms);
    }

    /// A run came back untouched: it used nothing, and says nothing of how long runs take.
    pub(crate) fn came_back(&mut self, charge: u64) {
        self.used = self.used.saturating_sub(charge);
    }

    /// How many of its runs may be handed over ahead of the need of so many executors.
    pub(crate) fn ahead_max(&self, executors: usize) -> usize {
        let Some(run_us) = self.run_us else { return 0 };
        usize::try_from(AHEAD_US / run_us.max(1)).unwrap_or(usize::MAX).saturating_mul(executors)
    }

    /// One that was idle has no claim to the time that it did not use.
    pub(crate) fn catch_up(&mut self, used_last: u64) {
        self.used = self.used.max(used_last);
    }

    /// Whether its runs take long, or nothing is known of them yet.
    pub(crate) fn is_slow(&self) -> bool {
        self.run_us.is_none_or(|run_us| run_us >= SLOW_RUN_US)
    }

    /// Whether it did something during the last `within_ms`.
    pub(crate) fn was_busy(&self, tick_ms: u64, within_ms: u64) -> bool {
        self.last_end_tick_ms.is_some_and(|at| tick_ms.saturating_sub(at) <= within_ms)
    }

    /// How many attempts may begin now, or in how many milliseconds the next one may.
    pub(crate) fn allowed(&mut self, rate: RatePolicy, tick_ms: u64) -> Result<usize, u64> {
        let Some(per_second) = rate.per_second else { return Ok(usize::MAX) };
        let per_second = u64::from(per_second.max(1));
        // A tenth of a second's worth may begin at once, one at least: else every attempt would need a timer of its own.
        let burst = (per_second * 100).max(1_000);
        let passed = tick_ms.saturating_sub(self.allowance_at_tick_ms);
        self.allowance = self.allowance.saturating_add(passed.saturating_mul(per_second)).min(burst);
        self.allowance_at_tick_ms = tick_ms;
        match self.allowance / 1_000 {
            0 => Err((1_000 - self.allowance).div_ceil(per_second)),
            whole => Ok(usize::try_from(whole).unwrap_or(usize::MAX)),
        }
    }

    /// So many attempts begin.
    pub(crate) fn spend(&mut self, rate: RatePolicy, attempts: usize) {
        if rate.per_second.is_some() {
            self.allowance = self.allowance.saturating_sub(attempts as u64 * 1_000);
        }
    }
}

fn share(busy_us: u64, weight: u32) -> u64 {
    busy_us.saturating_mul(WEIGHT_DEFAULT) / u64::from(weight.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_of_twice_the_weight_is_charged_half() {
        let (mut light, mut heavy) = (Pace::default(), Pace::default());
        for _ in 0..10 {
            for (pace, weight) in [(&mut light, 100), (&mut heavy, 200)] {
                let charge = pace.began(weight);
                pace.ended(charge, 1_000, weight, 0);
            }
        }
        assert_eq!((light.used, heavy.used), (10_000, 5_000));
    }

    #[test]
    fn one_that_turns_slow_gains_nothing_by_the_runs_that_were_out_when_it_was_quick() {
        let mut pace = Pace::default();
        pace.ended(0, 100, 100, 0);
        let charges = [(); 10].map(|()| pace.began(100));
        pace.ended(charges[0], 1_000_000, 100, 0);
        charges[1..5].iter().for_each(|charge| pace.came_back(*charge));
        charges[5..].iter().for_each(|charge| pace.ended(*charge, 1_000, 100, 0));
        assert_eq!(pace.used, 1_005_100);
    }

    #[test]
    fn nothing_is_known_of_a_consumer_before_its_first_run_has_ended() {
        let mut pace = Pace::default();
        assert!(pace.is_slow());
        pace.ended(0, 100, 100, 5);
        assert!(!pace.is_slow() && pace.was_busy(10, 5) && !pace.was_busy(11, 5));
        for _ in 0..20 {
            pace.ended(0, 1_000_000, 100, 5);
        }
        assert!(pace.is_slow());
    }

    #[test]
    fn over_any_stretch_of_time_no_more_begins_than_the_rate_and_a_tenth_of_a_second() {
        let rate = RatePolicy { per_second: Some(50), keys_max: None };
        let mut pace = Pace::default();
        let mut begun = 0;
        let mut tick_ms = 0;
        while tick_ms < 10_000 {
            match pace.allowed(rate, tick_ms) {
                Ok(attempts) => {
                    pace.spend(rate, attempts);
                    begun += attempts;
                }
                Err(wait_ms) => tick_ms += wait_ms,
            }
        }
        assert!((495..=505).contains(&begun), "{begun}");
    }
}
