//! Rules of what comes back: its order, the memory that it takes, and the time that it is given.

use std::sync::Arc;

use bytes::Bytes;

use super::bench::*;
use crate::ids::ConsumerId;
use crate::machine::{Input, Operation, Settings};
use crate::message::{DeadLetter, GivenUp, Message};
use crate::parked::{ParkCause, ParkLane};
use crate::policy::{ParkPolicy, Policy, RatePolicy, ReleasePolicy, RetryPolicy};

/// One attempt; then a key is held until something else than time brings it back.
fn for_good() -> Policy {
    let release = ReleasePolicy { after_ms: None, ..ReleasePolicy::default() };
    Policy { retry: RetryPolicy { attempts_max: 1, ..policy().retry }, release, breaker: None, ..policy() }
}

fn causes(bench: &Bench) -> Vec<(u64, &'static str)> {
    bench.parked.values().map(|row| (row.message.sequence, row.cause.kind())).collect()
}

/// Lets every message that is handed out fail, until none is.
fn fail_all(bench: &mut Bench) {
    loop {
        let runs = bench.runs();
        if runs.is_empty() {
            return;
        }
        runs.iter().for_each(|run| bench.end(run, vec![retry()]));
    }
}

fn pause(bench: &mut Bench, consumer: ConsumerId, for_ms: u64) {
    bench.operate(consumer, Operation::Pause { reason: "".into() }).unwrap();
    bench.tick_ms += for_ms;
    bench.tell(Input::Tick);
    bench.operate(consumer, Operation::Resume).unwrap();
}

#[test]
fn what_is_brought_back_in_several_pages_stays_in_order_behind_a_message_that_runs() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy());
    bench.deliver(consumer, &[message(9, "a")]);
    let running = bench.run();
    for sequence in 1..=3 {
        let message = Arc::new(message(sequence, "a"));
        let history = Vec::new();
        let letter = DeadLetter { message, cause: GivenUp::Exhausted, history, attempts: 1, at_ms: 0 };
        bench.operate(consumer, Operation::Replay(Arc::new(letter))).unwrap();
    }
    bench.apply(&running);
    let mut handled = Vec::new();
    loop {
        let runs = bench.runs();
        if runs.is_empty() {
            break;
        }
        for run in runs {
            handled.extend(sequences(&run));
            bench.apply(&run);
        }
    }
    assert_eq!(handled, [1, 2, 3]);
}

#[test]
fn a_lane_of_large_messages_is_brought_back_in_pages_of_few() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), for_good());
    let large = |sequence| Message { payload: Bytes::from(vec![0; 1 << 20]), ..message(sequence, "a") };
    bench.deliver(consumer, &[large(1)]);
    let run = bench.run();
    bench.end(&run, vec![retry()]);
    bench.deliver(consumer, &(2..=40).map(large).collect::<Vec<_>>());
    bench.operate(consumer, Operation::Release(ParkLane::Key("a".into()))).unwrap();
    let mut handled = 0;
    while handled < 40 {
        let lanes = bench.core.lanes.of(consumer);
        let in_memory: usize = lanes.iter().map(|lane| bench.core.lanes.get(*lane).unwrap().queue.len()).sum();
        assert!(in_memory <= 2, "{in_memory} messages of 1 MiB are in memory");
        let run = bench.run();
        handled += run.jobs.len();
        bench.apply(&run);
        bench.commit();
    }
}

#[test]
fn a_key_that_filled_the_books_before_it_failed_is_parked_until_its_next_attempt() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), Policy { messages_held_max: 8, ..policy() });
    bench.deliver(consumer, &(1..=8).map(|sequence| message(sequence, "a")).collect::<Vec<_>>());
    let run = bench.run();
    bench.end(&run, vec![retry()]);
    assert_eq!(causes(&bench).len(), 8, "nothing would come while it waits");
    bench.commit();
    bench.commit();
    assert!(!bench.pulls().is_empty());
    assert_eq!(bench.wake(), 100);
    assert_eq!(sequences(&bench.run()), (1..=8).collect::<Vec<_>>());
}

#[test]
fn keys_that_wait_for_their_next_attempts_leave_half_of_the_books_to_the_others() {
    let (mut bench, consumer) =
        Bench::with_consumer(Settings::default(), Policy { messages_held_max: 40, breaker: None, ..policy() });
    let keys: Vec<_> = (1..=40).map(|sequence| message(sequence, &format!("k{sequence}"))).collect();
    bench.deliver(consumer, &keys);
    fail_all(&mut bench);
    while bench.commit().is_some() {}
    let status = bench.core.status().consumers.remove(0);
    assert!(status.held < 20 && status.parked_rows > 20, "{status:?}");
    assert!(causes(&bench).iter().all(|(_, cause)| *cause == "retrying"));
}

#[test]
fn messages_of_different_size_are_counted_as_they_are() {
    let policy = Policy { bytes_held_max: 100_000, ..policy() };
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy);
    let large = Message { payload: Bytes::from(vec![0; 60_000]), ..message(1, "a") };
    bench.deliver(consumer, &[large, message(2, "a")]);
    let run = bench.run();
    bench.end(&run, vec![retry()]);
    assert_eq!(causes(&bench), [(1, "retrying"), (2, "behind")]);
}

#[test]
fn time_in_which_a_consumer_could_not_work_ends_no_retries_and_no_parking() {
    let retry_policy = RetryPolicy { attempts_max: 100, total_ms: Some(350), ..policy().retry };
    let park_policy = ParkPolicy { longest_ms: 1_000, ..ParkPolicy::default() };
    let both = Policy { retry: retry_policy, park: park_policy, ..for_good() };
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), both);
    bench.deliver(consumer, &[message(1, "a"), message(2, "b")]);
    for run in bench.runs() {
        let result = if sequences(&run) == [1] { retry() } else { park(Some(100)) };
        bench.end(&run, vec![result]);
    }
    pause(&mut bench, consumer, 60_000);
    for run in bench.runs() {
        let result = if sequences(&run) == [1] { retry() } else { park(Some(100)) };
        bench.end(&run, vec![result]);
    }
    assert_eq!((causes(&bench), bench.core.status().consumers[0].waiting_retry), (vec![(2, "asked")], 1));
}

#[test]
fn keys_that_were_held_for_good_come_back_when_the_manifest_gives_them_a_time() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), for_good());
    bench.deliver(consumer, &[message(1, "a")]);
    let run = bench.run();
    bench.end(&run, vec![retry()]);
    assert!(bench.core.timers.is_empty());
    let release = ReleasePolicy { after_ms: Some(700), ..ReleasePolicy::default() };
    bench.tell(Input::Change { consumer, policy: Box::new(Policy { release, ..for_good() }) });
    assert_eq!((bench.wake(), sequences(&bench.run())), (700, vec![1]));
}

#[test]
fn a_slow_consumer_leaves_no_executor_to_one_that_may_not_use_it() {
    let settings = Settings { executors: 2, ..Settings::default() };
    for paced in [false, true] {
        let rate = RatePolicy { per_second: paced.then_some(1), keys_max: None };
        let (mut bench, other) = Bench::with_consumer(settings, Policy { rate, ..policy() });
        let slow = bench.add("slow", policy());
        bench.tick_ms = 10_000;
        bench.deliver(other, &[message(1, "")]);
        let run = bench.run();
        bench.apply(&run);
        bench.tick_ms += 500;
        if !paced {
            bench.operate(other, Operation::Pause { reason: "".into() }).unwrap();
        }
        bench.deliver(other, &[message(2, "")]);
        assert!(bench.runs().is_empty());
        bench.deliver(slow, &[message(1, ""), message(2, "")]);
        assert_eq!(bench.runs().len(), 2, "paced: {paced}");
    }
}

#[test]
fn pulls_stop_at_the_books_that_parked_keys_take() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), for_good());
    bench.pulls();
    for chunk in (1..=100_000).collect::<Vec<u64>>().chunks(1_000) {
        bench.deliver(consumer, &chunk.iter().map(|sequence| message(*sequence, "")).collect::<Vec<_>>());
        fail_all(&mut bench);
        while bench.commit().is_some() {}
        bench.asked.clear();
    }
    bench.tell(Input::PullEnded { consumer, generation: bench.generation(consumer), undelivered: 10_000 });
    assert!(bench.pulls().is_empty());
    let row = bench.parked.values().next().cloned().unwrap();
    assert_eq!(row.cause, ParkCause::Exhausted);
    bench.operate(consumer, Operation::DropParked(row)).unwrap();
    assert!(!bench.pulls().is_empty(), "one less leaves room");
}
