//! What a run is made of: streams, consumers with their policies, and what goes wrong when. All of it follows from the seed, and stands here
//! before anything happens, so that a failing run can be made smaller by leaving parts out.

use pelton_core::Start;
use pelton_core::policy::{
    BreakerPolicy, OnExhausted, OnGap, ParkPolicy, Policy, RatePolicy, ReleasePolicy, RetryPolicy, VersionPolicy,
};

use crate::case::Case;
use crate::chance::Chance;
use crate::trouble::{Planned, Trouble};

/// Subjects of a stream, at most: a consumer reads some of them.
pub(crate) const SUBJECTS: u64 = 3;

/// One stream.
#[derive(Clone, Debug)]
pub(crate) struct StreamPlan {
    /// Messages published to it.
    pub(crate) messages: u64,
    /// Ordering keys, at most.
    pub(crate) keys: u64,
    /// Bit `n`: the plug-in's first version fails with every message of key `n`.
    pub(crate) poisoned: u64,
    /// One in so many messages bears the id of another.
    pub(crate) one_duplicate_in: u64,
    /// One in so many is kept back, so that a later version of its entity comes first.
    pub(crate) one_late_in: u64,
    /// Messages of one burst, at most.
    pub(crate) burst: u64,
    /// Milliseconds between two bursts, at most.
    pub(crate) pause_ms: u64,
}

/// One consumer.
#[derive(Clone, Debug)]
pub(crate) struct ConsumerPlan {
    pub(crate) name: Box<str>,
    /// The place of its stream.
    pub(crate) stream: usize,
    /// Bit `n`: it reads subject `n`.
    pub(crate) subjects: u8,
    /// Whether its messages have an ordering key.
    pub(crate) keyed: bool,
    pub(crate) policy: Policy,
    pub(crate) start: Start,
    /// Whether the broker wants each message acknowledged by itself.
    pub(crate) acks_each: bool,
}

/// How long things take, in milliseconds at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delays {
    pub(crate) run_ms: u64,
    pub(crate) commit_ms: u64,
    pub(crate) delivery_ms: u64,
    pub(crate) answer_ms: u64,
    pub(crate) checkpoint_ms: u64,
}

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) runs_max: usize,
    pub(crate) short_runs_max: usize,
    pub(crate) run_messages_max: usize,
    pub(crate) relay_in_flight_max: usize,
    pub(crate) published_flush_ms: u64,
    pub(crate) overlay_bytes_max: usize,
    pub(crate) delays: Delays,
    pub(crate) streams: Vec<StreamPlan>,
    pub(crate) consumers: Vec<ConsumerPlan>,
    pub(crate) troubles: Vec<Planned>,
    /// From here on nothing goes wrong any more.
    pub(crate) calm_at_ms: u64,
}

impl Plan {
    /// The plan of a seed, less what the case leaves out.
    pub(crate) fn of(case: &Case) -> Self {
        let mut chance = Chance::new(case.seed);
        let chance = &mut chance;
        let delays = Delays {
            run_ms: chance.between(1, 20),
            commit_ms: chance.between(1, 30),
            delivery_ms: chance.between(1, 10),
            answer_ms: chance.between(1, 30),
            checkpoint_ms: chance.between(20, 600),
        };
        let count = chance.between(1, 4);
        let streams: Vec<_> = (0..chance.between(1, count)).map(|_| stream(chance, count)).collect();
        let consumers: Vec<_> = (0..count).map(|number| consumer(chance, number, streams.len())).collect();
        let span_ms = streams.iter().map(|stream| stream.messages * stream.pause_ms / stream.burst).max().unwrap_or(0);
        let calm_at_ms = 300 + span_ms.min(20_000) + chance.below(2_000);
        let mut plan = Self {
            seed: case.seed,
            runs_max: chance.between(1, 8) as usize,
            short_runs_max: 16,
            run_messages_max: if chance.one_in(3) { chance.between(1, 4) } else { 16 } as usize,
            relay_in_flight_max: if chance.one_in(3) { chance.between(1, 8) } else { 256 } as usize,
            published_flush_ms: chance.between(1, 300),
            overlay_bytes_max: if chance.one_in(4) { 20_000 } else { 1 << 20 },
            delays,
            troubles: troubles(chance, consumers.len(), streams.len(), calm_at_ms),
            streams,
            consumers,
            calm_at_ms,
        };
        plan.leave_out(case);
        plan
    }

    fn leave_out(&mut self, case: &Case) {
        if let Some(messages) = case.messages {
            // Cut evenly, so that each stream keeps some.
            let total: u64 = self.streams.iter().map(|stream| stream.messages).sum();
            for stream in &mut self.streams {
                stream.messages = (stream.messages * messages).div_ceil(total.max(1)).min(stream.messages);
            }
        }
        if let Some(kept) = &case.troubles {
            let mut place = 0;
            self.troubles.retain(|_| {
                place += 1;
                kept.contains(&(place - 1))
            });
        }
        if let Some(kept) = &case.consumers {
            for (place, consumer) in self.consumers.iter_mut().enumerate() {
                if !kept.contains(&place) {
                    // Its place stays, so that the others keep their numbers.
                    consumer.subjects = 0;
                }
            }
        }
    }

    /// Whether this consumer takes part.
    pub(crate) fn takes_part(&self, consumer: usize) -> bool {
        self.consumers.get(consumer).is_some_and(|consumer| consumer.subjects != 0)
    }
}

fn stream(chance: &mut Chance, consumers: u64) -> StreamPlan {
    let messages = if chance.one_in(2) { chance.between(50, 400) } else { chance.between(300, 2_000) };
    let keys = if chance.one_in(3) { chance.between(1, 6) } else { chance.between(6, 48) };
    let poisoned = if chance.one_in(2) { 0 } else { 1 << chance.below(keys) };
    StreamPlan {
        messages: (messages / consumers).max(20),
        keys,
        poisoned,
        one_duplicate_in: chance.between(5, 40),
        one_late_in: chance.between(8, 60),
        burst: chance.between(1, 60),
        pause_ms: chance.between(1, 25),
    }
}

fn consumer(chance: &mut Chance, number: u64, streams: usize) -> ConsumerPlan {
    let keyed = !chance.one_in(6);
    let subjects = if chance.one_in(3) { chance.between(1, (1 << SUBJECTS) - 1) } else { (1 << SUBJECTS) - 1 };
    ConsumerPlan {
        name: format!("c{number}").into(),
        stream: chance.place(streams),
        subjects: subjects as u8,
        keyed,
        policy: policy(chance, keyed),
        start: if chance.one_in(12) { Start::New } else { Start::All },
        acks_each: chance.one_in(3),
    }
}

/// Policies of every kind: mostly with room, sometimes as tight as they can be.
pub(crate) fn policy(chance: &mut Chance, keyed: bool) -> Policy {
    let on_exhausted = match chance.below(10) {
        0 => OnExhausted::Halt,
        1..=3 => OnExhausted::DeadLetter,
        _ => OnExhausted::ParkKey,
    };
    let tight = |chance: &mut Chance, most: u64, usual: u64| {
        if chance.one_in(4) { chance.between(1, most) } else { usual }
    };
    Policy {
        retry: retry(chance),
        on_exhausted,
        park: ParkPolicy { delay_ms: chance.between(20, 500), longest_ms: chance.between(200, 8_000) },
        release: ReleasePolicy {
            after_ms: (!chance.one_in(5)).then(|| chance.between(20, 2_000)),
            longest_ms: 4_000,
            on_new_version: !chance.one_in(4),
            rows_max: tight(chance, 30, 1_000_000),
        },
        versions: (keyed && chance.one_in(3)).then(|| versions(chance)),
        breaker: chance.one_in(2).then(|| breaker(chance)),
        rate: RatePolicy {
            per_second: chance.one_in(8).then(|| chance.between(200, 5_000) as u32),
            keys_max: chance.one_in(8).then(|| chance.between(1, 4) as usize),
        },
        weight: chance.between(1, 300) as u32,
        dead_letter_subject: chance.one_in(3).then(|| "out.dead".into()),
        messages_held_max: tight(chance, 40, 1_000) as usize,
        bytes_held_max: tight(chance, 20_000, 1 << 20) as usize,
        outbox_rows_max: tight(chance, 60, 1_000) as usize,
        shared_state: chance.one_in(6),
    }
}

fn retry(chance: &mut Chance) -> RetryPolicy {
    RetryPolicy {
        attempts_max: chance.between(1, 5) as u32,
        total_ms: chance.one_in(5).then(|| chance.between(1, 400)),
        first_delay_ms: chance.between(1, 50),
        longest_delay_ms: 200,
        ..RetryPolicy::default()
    }
}

fn versions(chance: &mut Chance) -> VersionPolicy {
    VersionPolicy {
        first: (!chance.one_in(3)).then_some(1),
        gap_longest_ms: chance.between(100, 3_000),
        on_gap: if chance.one_in(3) { OnGap::DeadLetter } else { OnGap::GoOn },
    }
}

fn breaker(chance: &mut Chance) -> BreakerPolicy {
    BreakerPolicy {
        window: chance.between(3, 20) as usize,
        ratio: 0.4,
        keys_min: chance.between(1, 3) as usize,
        first_delay_ms: chance.between(10, 200),
        longest_delay_ms: 1_000,
    }
}

/// What goes wrong. Some runs are quiet, some are not.
fn troubles(chance: &mut Chance, consumers: usize, streams: usize, until_ms: u64) -> Vec<Planned> {
    let count = if chance.one_in(8) { 0 } else { chance.between(1, 40) };
    let mut troubles: Vec<_> = (0..count)
        .map(|_| Planned {
            at_ms: chance.below(until_ms),
            consumer: chance.place(consumers),
            stream: chance.place(streams),
            trouble: Trouble::by_chance(chance),
        })
        .collect();
    troubles.sort_by_key(|planned| planned.at_ms);
    troubles
}
