//! Rules of a new version's probation: who asks the version before it back, and who does not.

use super::bench::*;
use crate::effects::WriteSet;
use crate::ids::{ConsumerId, Version};
use crate::machine::{Action, Input, JobResult, Probation, Run, Settings};
use crate::message::Failure;
use crate::policy::{BreakerPolicy, Policy, ReleasePolicy, RetryPolicy};

const OLD: Version = Version([2; 32]);
const NEW: Version = Version([3; 32]);

/// Opens after three failures of three attempts. One attempt, then the key is parked until there is a new version.
fn breaking() -> Policy {
    let breaker = BreakerPolicy { window: 3, ratio: 0.9, keys_min: 3, first_delay_ms: 1_000, longest_delay_ms: 2_000 };
    Policy {
        breaker: Some(breaker),
        retry: RetryPolicy { attempts_max: 1, ..policy().retry },
        release: ReleasePolicy { after_ms: None, ..ReleasePolicy::default() },
        ..policy()
    }
}

fn fails(version: Version) -> JobResult {
    JobResult::Failed { version, failure: Failure::Trap { reason: "unreachable".into() } }
}

fn goes_well(version: Version) -> JobResult {
    JobResult::Applied { version, writes: WriteSet::default() }
}

fn swap(bench: &mut Bench, consumer: ConsumerId, for_ms: u64, attempts: u32) {
    bench.tell(Input::Swapped { consumer });
    bench.tell(Input::Probation { consumer, probation: Probation { version: NEW, for_ms, attempts } });
}

/// The versions that were given up.
fn rolled_back(bench: &mut Bench) -> Vec<Version> {
    bench.take(|action| if let Action::RollBack { version, .. } = action { Some(*version) } else { None })
}

/// Hands out messages of keys of their own from this sequence on.
fn runs(bench: &mut Bench, consumer: ConsumerId, first: u64, count: u64) -> Vec<Run> {
    let messages: Vec<_> = (first..first + count).map(|sequence| message(sequence, &format!("k{sequence}"))).collect();
    bench.deliver(consumer, &messages);
    bench.runs()
}

fn end_all(bench: &mut Bench, runs: &[Run], result: impl Fn() -> JobResult) {
    for run in runs {
        bench.end(run, run.jobs.iter().map(|_| result()).collect());
    }
}

#[test]
fn a_version_that_trips_the_breaker_in_its_probation_is_given_up_once() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), breaking());
    swap(&mut bench, consumer, 1_000, 0);
    let runs = runs(&mut bench, consumer, 1, 3);
    end_all(&mut bench, &runs, || fails(NEW));
    assert_eq!(rolled_back(&mut bench), [NEW]);
    let mut probes = Vec::new();
    while probes.is_empty() {
        bench.wake();
        probes = bench.runs();
    }
    end_all(&mut bench, &probes, || fails(NEW));
    assert_eq!(rolled_back(&mut bench), [], "it is being brought about");
}

#[test]
fn the_version_that_comes_back_probes_at_once_and_gets_what_was_parked() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), breaking());
    swap(&mut bench, consumer, 1_000, 0);
    let runs = runs(&mut bench, consumer, 1, 3);
    end_all(&mut bench, &runs, || fails(NEW));
    while bench.commit().is_some() {}
    assert_eq!(bench.parked.len(), 2, "the one that opened the breaker is spared");
    bench.tell(Input::Swapped { consumer });
    let probe = bench.run();
    bench.end(&probe, vec![goes_well(OLD)]);
    let mut applied = sequences(&probe);
    for _ in 0..20 {
        while bench.commit().is_some() {}
        for run in bench.runs() {
            applied.extend(sequences(&run));
            bench.end(&run, run.jobs.iter().map(|_| goes_well(OLD)).collect());
        }
        bench.tick_ms += 100;
        bench.tell(Input::Tick);
    }
    applied.sort_unstable();
    assert_eq!(applied, [1, 2, 3]);
}

#[test]
fn after_its_time_and_its_attempts_a_version_is_at_fault_no_more() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), breaking());
    swap(&mut bench, consumer, 100, 3);
    let well = runs(&mut bench, consumer, 1, 3);
    end_all(&mut bench, &well, || goes_well(NEW));
    bench.tick_ms = 100;
    let bad = runs(&mut bench, consumer, 4, 3);
    end_all(&mut bench, &bad, || fails(NEW));
    assert_eq!(rolled_back(&mut bench), []);
}

#[test]
fn a_quiet_consumer_is_on_probation_until_its_attempts_were_made() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), breaking());
    swap(&mut bench, consumer, 100, 3);
    bench.tick_ms = 100_000;
    let bad = runs(&mut bench, consumer, 1, 3);
    end_all(&mut bench, &bad, || fails(NEW));
    assert_eq!(rolled_back(&mut bench), [NEW]);
}

#[test]
fn attempts_of_the_version_before_do_not_count_against_the_new_one() {
    let stay = ReleasePolicy { on_new_version: false, ..breaking().release };
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), Policy { release: stay, ..breaking() });
    let before = runs(&mut bench, consumer, 1, 2);
    end_all(&mut bench, &before, || fails(OLD));
    let begun = runs(&mut bench, consumer, 3, 3);
    swap(&mut bench, consumer, 1_000, 10);
    end_all(&mut bench, &begun, || fails(OLD));
    assert_eq!(rolled_back(&mut bench), []);
    let new = runs(&mut bench, consumer, 6, 2);
    end_all(&mut bench, &new, || fails(NEW));
    assert_eq!(rolled_back(&mut bench), [], "two failures are not three");
}

#[test]
fn without_a_probation_the_breaker_is_all_there_is() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), breaking());
    bench.tell(Input::Swapped { consumer });
    let bad = runs(&mut bench, consumer, 1, 3);
    end_all(&mut bench, &bad, || fails(NEW));
    assert_eq!(rolled_back(&mut bench), []);
}
