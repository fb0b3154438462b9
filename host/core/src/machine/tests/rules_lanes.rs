//! Rules of lanes and runs: who waits for whom, and what a failure does.

use super::bench::*;
use crate::batch::Outcome;
use crate::machine::{Input, JobResult, LaneId, Settings};
use crate::message::Failure;
use crate::policy::{OnExhausted, Policy, RetryPolicy};

#[test]
fn a_failed_message_keeps_only_its_own_key_waiting() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy());
    bench.deliver(consumer, &[message(1, "a"), message(2, "a")]);
    let first = bench.run();
    bench.end(&first, vec![retry()]);
    bench.deliver(consumer, &[message(3, "b"), message(4, "a")]);
    let other = bench.run();
    assert_eq!(sequences(&other), [3]);
    bench.apply(&other);
    assert!(bench.runs().is_empty(), "the key in trouble waits, with all that is behind it");
    assert_eq!(bench.wake(), 100);
    let again = bench.run();
    assert_eq!((sequences(&again), again.jobs[0].attempt, again.jobs[1].attempt), (vec![1, 2, 4], 2, 1));
}

#[test]
fn a_delivery_that_comes_late_takes_its_own_place_behind_what_runs() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy());
    bench.deliver(consumer, &[message(4, "a")]);
    let first = bench.run();
    for sequence in [6, 5, 9, 2, 7] {
        bench.deliver(consumer, &[message(sequence, "a")]);
    }
    bench.apply(&first);
    assert_eq!(sequences(&bench.run()), [2, 5, 6, 7, 9]);
}

#[test]
fn delays_grow_with_each_failed_attempt() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy());
    bench.deliver(consumer, &[message(1, "a")]);
    let mut delays = Vec::new();
    for _ in 0..4 {
        let run = bench.run();
        bench.end(&run, vec![retry()]);
        delays.push(bench.wake());
    }
    assert_eq!(delays, [100, 200, 400, 800]);
}

#[test]
fn a_message_is_given_up_for_a_reason_and_its_key_goes_on() {
    let quick = Policy {
        retry: RetryPolicy { attempts_max: 3, ..policy().retry },
        on_exhausted: OnExhausted::DeadLetter,
        ..policy()
    };
    let reject = || failed(Failure::Reject { reason: "never".into() });
    type Case = (fn() -> JobResult, &'static str, u32, u64);
    let cases: [Case; 2] = [(reject, "rejected", 1, 0), (retry, "exhausted", 3, 300)];
    for (result, kind, attempts, after_ms) in cases {
        let (mut bench, consumer) = Bench::with_consumer(Settings::default(), quick.clone());
        bench.deliver(consumer, &[message(1, "a"), message(2, "a")]);
        for call in 1..=attempts {
            let run = bench.run();
            assert_eq!((sequences(&run)[0], run.jobs[0].attempt), (1, call), "{kind}");
            bench.end(&run, vec![result()]);
            if call < attempts {
                bench.wake();
            }
        }
        let batch = bench.commit().unwrap();
        assert_eq!((outcomes(&batch), bench.tick_ms), (vec![(1, kind)], after_ms));
        let Outcome::DeadLettered { letter, .. } = &batch.settlements[0].outcome else { panic!("{batch:?}") };
        assert_eq!((letter.attempts, letter.history.len()), (attempts, attempts as usize));
        assert_eq!(sequences(&bench.run()), [2], "{kind}");
    }
}

#[test]
fn parking_does_not_use_up_attempts() {
    let once = Policy { retry: RetryPolicy { attempts_max: 1, ..policy().retry }, ..policy() };
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), once);
    bench.deliver(consumer, &[message(1, "a")]);
    for _ in 0..5 {
        let run = bench.run();
        bench.end(&run, vec![park(None)]);
        assert_eq!(outcomes(&bench.commit().unwrap()), [(1, "asked")]);
        assert_eq!(bench.wake(), 1_000);
    }
    let run = bench.run();
    bench.apply(&run);
    assert_eq!(outcomes(&bench.commit().unwrap()), [(1, "applied")]);
}

#[test]
fn messages_of_one_id_are_handled_one_after_the_other_whatever_their_keys() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy());
    bench.deliver(consumer, &[marked(1, "a", 7), marked(2, "b", 7), marked(3, "c", 7), marked(4, "", 7)]);
    for sequence in 1..=4 {
        let run = bench.run();
        assert_eq!(sequences(&run), [sequence]);
        let result = if sequence == 1 { applied(&[]) } else { JobResult::Duplicate };
        bench.end(&run, vec![result]);
    }
    assert!(bench.core.claims.is_empty() && bench.core.blocked.is_empty());
}

#[test]
fn of_many_lanes_that_wait_for_an_id_only_the_next_is_woken() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy());
    let messages: Vec<_> = (1..=100).map(|sequence| marked(sequence, "", 7)).collect();
    bench.deliver(consumer, &messages);
    let run = bench.run();
    assert_eq!(bench.core.blocked.values().map(std::collections::VecDeque::len).sum::<usize>(), 99);
    bench.core.handle(
        Default::default(),
        Input::RunEnded { consumer, lane: run.lane, results: vec![applied(&[])], busy_us: 0 },
    );
    assert_eq!(bench.core.consumers[&consumer].ready.len(), 1);
}

#[test]
fn a_lane_that_fails_lets_the_one_that_waits_for_its_id_go_first() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy());
    bench.deliver(consumer, &[marked(1, "a", 7), marked(2, "b", 7)]);
    let first = bench.run();
    bench.end(&first, vec![retry()]);
    let second = bench.run();
    assert_eq!(sequences(&second), [2]);
    bench.wake();
    assert!(bench.runs().is_empty(), "the id is in another run");
    bench.apply(&second);
    assert_eq!(sequences(&bench.run()), [1]);
}

#[test]
fn a_run_that_was_cut_short_goes_on_where_it_ended() {
    let settings = Settings { run_messages_max: 3, ..Settings::default() };
    let (mut bench, consumer) = Bench::with_consumer(settings, policy());
    bench.deliver(consumer, &(1..=6).map(|sequence| message(sequence, "a")).collect::<Vec<_>>());
    for (handled, expected) in [(1, [1, 2, 3]), (0, [2, 3, 4]), (3, [2, 3, 4])] {
        let run = bench.run();
        assert_eq!(sequences(&run), expected);
        bench.end(&run, (0..handled).map(|_| applied(&[])).collect());
    }
    assert_eq!(sequences(&bench.run()), [5, 6]);
}

#[test]
fn a_result_for_a_lane_that_does_not_run_changes_nothing() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy());
    bench.deliver(consumer, &[message(1, "a")]);
    let run = bench.run();
    bench.apply(&run);
    bench.apply(&run);
    bench.tell(Input::RunEnded { consumer, lane: LaneId(99), results: vec![applied(&[])], busy_us: 0 });
    assert_eq!((bench.core.runs_out, bench.core.status().consumers[0].counters.applied), (0, 1));
}

#[test]
fn runs_on_shared_state_go_one_at_a_time_and_do_not_hold_up_others() {
    let settings = Settings { executors: 8, ..Settings::default() };
    let (mut bench, shared) = Bench::with_consumer(settings, Policy { shared_state: true, ..policy() });
    let other = bench.add("other", policy());
    bench.deliver(shared, &[message(1, "a"), message(2, "b"), message(3, "c")]);
    bench.deliver(other, &[message(1, "a"), message(2, "b")]);
    let runs = bench.runs();
    assert_eq!(runs.iter().map(|run| run.consumer).collect::<Vec<_>>(), [shared, other, other]);
    bench.apply(&runs[0]);
    let next = bench.run();
    assert_eq!((next.consumer, sequences(&next)), (shared, vec![2]));
}

#[test]
fn whose_state_a_run_changes_is_decided_when_it_begins() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy());
    bench.deliver(consumer, &[message(1, "a")]);
    let run = bench.run();
    bench.tell(Input::Change { consumer, policy: Box::new(Policy { shared_state: true, ..policy() }) });
    bench.apply(&run);
    let batch = bench.commit().unwrap();
    let Outcome::Applied { state_key, .. } = &batch.settlements[0].outcome else { panic!("{batch:?}") };
    assert_eq!(state_key.as_deref(), Some("a"));
}

#[test]
fn consumers_take_turns() {
    let (mut bench, first) = Bench::with_consumer(Settings { runs_max: 1, ..Settings::default() }, policy());
    let second = bench.add("second", policy());
    bench.deliver(first, &(1..=4).map(|sequence| message(sequence, "")).collect::<Vec<_>>());
    bench.deliver(second, &(1..=2).map(|sequence| message(sequence, "")).collect::<Vec<_>>());
    let mut turns = Vec::new();
    for _ in 0..6 {
        let run = bench.run();
        turns.push(run.consumer);
        bench.apply(&run);
    }
    assert_eq!(turns, [first, second, first, second, first, first]);
}
