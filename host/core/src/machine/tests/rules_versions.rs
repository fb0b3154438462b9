//! Rules of order by version: what is stale, what waits for those before it, and what becomes of it when they never come.

use super::bench::*;
use crate::ids::ConsumerId;
use crate::machine::{Input, JobResult, Operation, Run, Settings, Turn, VersionRule};
use crate::message::Message;
use crate::parked::ParkLane;
use crate::policy::{OnGap, Policy, RatePolicy, RetryPolicy, VersionPolicy};

/// Waits for 1,000 ms.
fn by_version(on_gap: OnGap) -> Policy {
    Policy { versions: Some(VersionPolicy { first: Some(1), gap_longest_ms: 1_000, on_gap }), ..policy() }
}

fn versioned(sequence: u64, version: u64) -> Message {
    Message { entity_version: Some(version), ..message(sequence, "a") }
}

/// A core with a consumer, and the last version that its executors applied.
struct Entity {
    bench: Bench,
    consumer: ConsumerId,
    last: Option<u64>,
    /// The versions that were applied, in order.
    applied: Vec<u64>,
}

impl Entity {
    fn new(policy: Policy) -> Self {
        let (bench, consumer) = Bench::with_consumer(Settings::default(), policy);
        Self { bench, consumer, last: None, applied: Vec::new() }
    }

    fn deliver(&mut self, messages: &[(u64, u64)]) {
        let messages: Vec<_> = messages.iter().map(|(sequence, version)| versioned(*sequence, *version)).collect();
        self.bench.deliver(self.consumer, &messages);
        self.work();
    }

    fn wake(&mut self) -> u64 {
        let passed = self.bench.wake();
        self.work();
        passed
    }

    /// Executes all that there is to execute, as an executor would.
    fn work(&mut self) {
        loop {
            let runs = self.bench.runs();
            if runs.is_empty() {
                return;
            }
            runs.iter().for_each(|run| self.end(run));
        }
    }

    fn end(&mut self, run: &Run) {
        let results = self.results(run);
        self.bench.end(run, results);
    }

    fn results(&mut self, run: &Run) -> Vec<JobResult> {
        let mut results = Vec::new();
        for job in &run.jobs {
            let Some(version) = job.message.entity_version else {
                // Of another key.
                results.push(applied(&[]));
                continue;
            };
            results.push(match job.versions.unwrap().judge(version, self.last) {
                Turn::Stale => JobResult::Stale,
                Turn::Gap { expected } => JobResult::Gap { expected },
                Turn::Now => {
                    self.last = Some(version);
                    self.applied.push(version);
                    applied(&[])
                }
            });
        }
        results
    }

    fn outcomes(&mut self) -> Vec<(u64, &'static str)> {
        std::iter::from_fn(|| self.bench.commit()).flat_map(|batch| outcomes(&batch)).collect()
    }
}

#[test]
fn a_version_is_judged_by_the_last_one_that_was_applied() {
    let strict = VersionRule { first: Some(1), gap_allowed: false };
    let any = VersionRule { first: None, gap_allowed: false };
    let passing = VersionRule { first: Some(1), gap_allowed: true };
    let cases = [
        (strict, 1, None, Turn::Now),
        (strict, 2, None, Turn::Gap { expected: 1 }),
        (any, 2, None, Turn::Now),
        (strict, 3, Some(2), Turn::Now),
        (strict, 4, Some(2), Turn::Gap { expected: 3 }),
        (any, 4, Some(2), Turn::Gap { expected: 3 }),
        (strict, 2, Some(2), Turn::Stale),
        (strict, 1, Some(2), Turn::Stale),
        (passing, 9, Some(2), Turn::Now),
        (passing, 2, Some(2), Turn::Stale),
        (strict, 5, Some(u64::MAX), Turn::Stale),
    ];
    for (rule, version, known, turn) in cases {
        assert_eq!(rule.judge(version, known), turn, "{rule:?} {version} {known:?}");
    }
}

#[test]
fn a_gap_that_is_filled_lets_all_that_waited_go_on_in_order() {
    let mut entity = Entity::new(by_version(OnGap::GoOn));
    entity.deliver(&[(1, 1), (2, 4), (3, 3)]);
    assert_eq!(entity.applied, [1]);
    entity.deliver(&[(4, 2)]);
    assert_eq!(entity.applied, [1, 2, 3, 4]);
    assert!(entity.bench.parked.is_empty() && entity.bench.core.timers.is_empty());
}

#[test]
fn what_waits_for_a_version_is_not_looked_at_while_the_key_is_not_there() {
    let mut entity = Entity::new(by_version(OnGap::GoOn));
    entity.deliver(&[(1, 9)]);
    let asked = entity.bench.core.next_ticket;
    entity.deliver(&[(2, 1), (3, 2), (4, 3)]);
    assert_eq!(entity.bench.core.next_ticket, asked, "nothing was fetched");
}

#[test]
fn an_old_version_is_skipped() {
    let mut entity = Entity::new(by_version(OnGap::GoOn));
    entity.deliver(&[(1, 1), (2, 2), (3, 1), (4, 2)]);
    assert_eq!(entity.applied, [1, 2]);
    assert_eq!(entity.outcomes()[2..], [(3, "stale"), (4, "stale")]);
    assert_eq!(entity.bench.core.status().consumers[0].counters.stale, 2);
}

#[test]
fn after_its_deadline_a_gap_is_passed() {
    let mut entity = Entity::new(by_version(OnGap::GoOn));
    entity.deliver(&[(1, 1), (2, 3), (3, 4)]);
    assert_eq!((entity.wake(), entity.applied.as_slice()), (1_000, [1, 3, 4].as_slice()));
    assert!(entity.bench.parked.is_empty());
}

#[test]
fn a_deadline_that_passes_lets_lower_versions_go_first() {
    let mut entity = Entity::new(by_version(OnGap::GoOn));
    entity.deliver(&[(1, 1), (2, 5)]);
    entity.bench.tick_ms += 400;
    entity.deliver(&[(3, 3), (4, 9)]);
    entity.wake();
    assert_eq!((entity.bench.tick_ms, entity.applied.as_slice()), (1_000, [1, 3, 5].as_slice()));
    entity.wake();
    assert_eq!((entity.bench.tick_ms, entity.applied.as_slice()), (1_400, [1, 3, 5, 9].as_slice()), "9 has its own");
}

#[test]
fn after_its_deadline_a_message_behind_a_gap_is_given_up_if_that_is_the_policy() {
    let mut entity = Entity::new(by_version(OnGap::DeadLetter));
    entity.deliver(&[(1, 1), (2, 3)]);
    entity.bench.tick_ms += 400;
    entity.deliver(&[(3, 4)]);
    entity.outcomes();
    assert_eq!((entity.wake(), entity.outcomes()), (600, vec![(2, "gap-never-filled")]));
    assert_eq!((entity.wake(), entity.outcomes()), (400, vec![(3, "gap-never-filled")]), "each at its own deadline");
    entity.deliver(&[(4, 2)]);
    assert_eq!(entity.applied, [1, 2], "what comes late is handled");
}

#[test]
fn a_gap_that_was_filled_is_none_also_after_the_deadline() {
    let mut entity = Entity::new(by_version(OnGap::DeadLetter));
    entity.deliver(&[(1, 1), (2, 3)]);
    entity.bench.operate(entity.consumer, Operation::Pause { reason: "".into() }).unwrap();
    entity.deliver(&[(3, 2)]);
    entity.bench.tick_ms += 5_000;
    entity.bench.operate(entity.consumer, Operation::Resume).unwrap();
    entity.work();
    assert_eq!(entity.applied, [1, 2, 3]);
}

#[test]
fn an_operator_can_pass_a_gap() {
    for on_gap in [OnGap::GoOn, OnGap::DeadLetter] {
        let mut entity = Entity::new(by_version(on_gap));
        entity.deliver(&[(1, 1), (2, 3), (3, 4), (4, 6)]);
        entity.bench.operate(entity.consumer, Operation::Release(ParkLane::Key("a".into()))).unwrap();
        entity.work();
        assert_eq!(entity.applied, [1, 3, 4], "one gap, not all of them");
    }
}

#[test]
fn the_time_of_a_message_that_asked_to_be_parked_passes_no_gap() {
    let mut entity = Entity::new(by_version(OnGap::GoOn));
    entity.deliver(&[(1, 1), (2, 4)]);
    entity.bench.deliver(entity.consumer, &[versioned(3, 2)]);
    let run = entity.bench.run();
    entity.bench.end(&run, vec![park(Some(100))]);
    assert_eq!((entity.wake(), entity.applied.as_slice()), (100, [1, 2].as_slice()));
    assert_eq!(entity.bench.parked.len(), 1, "4 waits for 3");
}

/// Version 3 waits for 2, which failed and waits for its next attempt longer than anybody waits for a gap.
fn filled_by_one_in_backoff(on_gap: OnGap) -> Entity {
    let retry_policy = RetryPolicy { first_delay_ms: 5_000, ..policy().retry };
    // One attempt at a time, so that neither is handled in the other's run.
    let rate = RatePolicy { per_second: Some(5), keys_max: None };
    let mut entity = Entity::new(Policy { retry: retry_policy, rate, ..by_version(on_gap) });
    entity.bench.tick_ms = 10_000;
    entity.deliver(&[(1, 1)]);
    entity.deliver(&[(2, 3)]);
    entity.wake();
    entity.bench.deliver(entity.consumer, &[versioned(3, 2)]);
    entity.bench.wake();
    let run = entity.bench.run();
    entity.bench.end(&run, vec![retry()]);
    entity
}

#[test]
fn a_gap_is_not_passed_while_what_fills_it_waits_for_its_next_attempt() {
    for on_gap in [OnGap::GoOn, OnGap::DeadLetter] {
        let mut entity = filled_by_one_in_backoff(on_gap);
        while !entity.bench.core.timers.is_empty() {
            entity.wake();
        }
        assert_eq!(entity.applied, [1, 2, 3], "{on_gap:?}");
        assert!(entity.bench.parked.is_empty());
    }
}

#[test]
fn an_operator_passes_no_gap_that_is_about_to_be_filled() {
    let mut entity = filled_by_one_in_backoff(OnGap::GoOn);
    entity.bench.operate(entity.consumer, Operation::Release(ParkLane::Key("a".into()))).unwrap();
    entity.work();
    assert_eq!(entity.applied, [1]);
    while !entity.bench.core.timers.is_empty() {
        entity.wake();
    }
    assert_eq!(entity.applied, [1, 2, 3]);
}

#[test]
fn a_gap_is_waited_for_anew_after_a_time_in_which_nothing_was_read() {
    for on_gap in [OnGap::GoOn, OnGap::DeadLetter] {
        let mut entity = Entity::new(by_version(on_gap));
        entity.deliver(&[(1, 1), (2, 3)]);
        entity.bench.operate(entity.consumer, Operation::Pause { reason: "".into() }).unwrap();
        entity.bench.tick_ms += 60_000;
        entity.bench.tell(Input::Tick);
        entity.bench.operate(entity.consumer, Operation::Resume).unwrap();
        entity.work();
        entity.bench.tick_ms += 999;
        entity.bench.tell(Input::Tick);
        entity.work();
        assert_eq!((entity.applied.as_slice(), entity.bench.parked.len()), ([1].as_slice(), 1), "{on_gap:?}");
        assert_eq!(entity.wake(), 1, "it is waited for, and not looked at all the time");
        assert!(entity.bench.parked.is_empty());
    }
}

#[test]
fn a_gap_is_not_passed_before_its_stream_is_read_again() {
    let mut entity = Entity::new(by_version(OnGap::GoOn));
    entity.deliver(&[(1, 1), (2, 3)]);
    let (consumer, generation) = (entity.consumer, entity.bench.generation(entity.consumer));
    entity.bench.tell(Input::Lost { consumer, generation });
    entity.bench.tick_ms += 60_000;
    entity.bench.tell(Input::Tick);
    entity.work();
    assert_eq!(entity.applied, [1]);
    while entity.bench.commit().is_some() {}
    entity.bench.positioned(consumer, "S", 1, 3);
    entity.work();
    entity.deliver(&[(3, 2)]);
    assert_eq!(entity.applied, [1, 2, 3], "it was on the stream all the while");
}

/// A message that waits for a version was brought back, and these arrive while it is looked at: one attempt at a time.
fn looked_at(on_gap: OnGap, waits: (u64, u64), arrive: (u64, u64), after_ms: u64) -> (Entity, Run) {
    let settings = Settings { runs_max: 1, run_messages_max: 1, ..Settings::default() };
    let (bench, consumer) = Bench::with_consumer(settings, by_version(on_gap));
    let mut entity = Entity { bench, consumer, last: None, applied: Vec::new() };
    entity.deliver(&[(1, 1), waits]);
    entity.bench.tick_ms += after_ms;
    entity.bench.operate(consumer, Operation::ReleaseAll).unwrap();
    let run = entity.bench.run();
    entity.bench.deliver(consumer, &[versioned(arrive.0, arrive.1)]);
    (entity, run)
}

#[test]
fn a_deadline_stays_where_it_is_when_a_part_of_the_gap_is_filled() {
    for on_gap in [OnGap::GoOn, OnGap::DeadLetter] {
        let (mut entity, run) = looked_at(on_gap, (2, 5), (3, 4), 900);
        entity.end(&run);
        entity.work();
        entity.outcomes();
        assert_eq!(entity.wake(), 100, "{on_gap:?}: 5 waited since the beginning");
        let expected = match on_gap {
            OnGap::GoOn => vec![(3, "applied"), (2, "applied")],
            OnGap::DeadLetter => vec![(2, "gap-never-filled")],
        };
        assert_eq!(entity.outcomes(), expected);
    }
}

#[test]
fn what_fills_a_gap_has_its_turn_however_often_somebody_looks_at_what_waits() {
    let (mut entity, mut run) = looked_at(OnGap::GoOn, (2, 3), (3, 2), 0);
    // Another key takes every second turn, so what is brought back is there before the next turn of this one.
    entity.bench.deliver(entity.consumer, &(4..24).map(|sequence| message(sequence, "b")).collect::<Vec<_>>());
    for _ in 0..8 {
        entity.bench.operate(entity.consumer, Operation::ReleaseAll).unwrap();
        entity.end(&run);
        run = entity.bench.run();
    }
    assert_eq!(entity.applied, [1, 2, 3]);
    assert!(entity.bench.parked.is_empty());
}

#[test]
fn what_waits_for_a_message_in_backoff_takes_no_place_from_others_that_come_back() {
    let (mut entity, run) = looked_at(OnGap::GoOn, (2, 3), (3, 2), 0);
    entity.end(&run);
    let filling = entity.bench.run();
    assert_eq!(sequences(&filling), [3]);
    entity.bench.end(&filling, vec![retry()]);
    let releasing = |entity: &Entity| entity.bench.core.status().consumers[0].lanes_releasing;
    assert_eq!(releasing(&entity), 0, "what stood behind it");
    entity.bench.operate(entity.consumer, Operation::ReleaseAll).unwrap();
    assert_eq!(releasing(&entity), 0, "what would come in front of it");
    assert_eq!((entity.wake(), entity.applied.as_slice()), (100, [1, 2, 3].as_slice()));
}
