//! What a seed decides before anything happens: the settings of the host and the policies of its consumers.

use super::chance::Chance;
use crate::breaks::Breaks;
use crate::machine::Settings;
use crate::policy::{
    BreakerPolicy, OnExhausted, OnGap, ParkPolicy, Policy, RatePolicy, ReleasePolicy, RetryPolicy, VersionPolicy,
};

pub(super) fn settings(chance: &mut Chance, jitter_seed: u64, breaks: Breaks) -> Settings {
    Settings {
        runs_max: chance.between(1, 5) as usize,
        short_runs_max: chance.between(1, 10) as usize,
        executors: chance.between(1, 3) as usize,
        run_messages_max: chance.between(1, 6) as usize,
        relay_in_flight_max: chance.between(1, 12) as usize,
        published_flush_ms: chance.between(1, 300),
        jitter_seed,
        breaks,
    }
}

pub(super) fn policy(chance: &mut Chance) -> Policy {
    Policy {
        retry: RetryPolicy {
            attempts_max: chance.between(1, 5) as u32,
            total_ms: chance.one_in(4).then(|| chance.between(1, 200)),
            first_delay_ms: chance.between(1, 50),
            longest_delay_ms: 200,
            ..RetryPolicy::default()
        },
        on_exhausted: match chance.below(4) {
            0 => OnExhausted::DeadLetter,
            1 => OnExhausted::Halt,
            _ => OnExhausted::ParkKey,
        },
        park: ParkPolicy { delay_ms: chance.between(1, 80), longest_ms: chance.between(1, 400) },
        release: ReleasePolicy {
            after_ms: (!chance.one_in(3)).then(|| chance.between(1, 300)),
            longest_ms: chance.between(1, 600),
            on_new_version: chance.one_in(2),
            rows_max: chance.between(3, 100),
        },
        versions: chance.one_in(3).then(|| versions(chance)),
        breaker: chance.one_in(2).then(|| breaker(chance)),
        rate: RatePolicy {
            per_second: chance.one_in(4).then(|| chance.between(20, 500) as u32),
            keys_max: chance.one_in(4).then(|| chance.between(1, 3) as usize),
        },
        weight: chance.between(1, 3) as u32 * 100,
        dead_letter_subject: chance.one_in(3).then(|| "dead".into()),
        messages_held_max: chance.between(1, 40) as usize,
        bytes_held_max: chance.between(300, 20_000) as usize,
        outbox_rows_max: chance.between(1, 60) as usize,
        shared_state: chance.one_in(5),
    }
}

fn versions(chance: &mut Chance) -> VersionPolicy {
    VersionPolicy {
        first: (!chance.one_in(4)).then_some(1),
        gap_longest_ms: chance.between(0, 800),
        on_gap: if chance.one_in(2) { OnGap::GoOn } else { OnGap::DeadLetter },
    }
}

fn breaker(chance: &mut Chance) -> BreakerPolicy {
    BreakerPolicy {
        window: chance.between(2, 8) as usize,
        ratio: 0.5,
        keys_min: chance.between(1, 3) as usize,
        first_delay_ms: chance.between(1, 100),
        longest_delay_ms: chance.between(1, 400),
    }
}
