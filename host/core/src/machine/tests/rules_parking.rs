//! Rules of parking: what holds a key, what is set aside, and how all of it comes back.

use std::sync::Arc;

use super::bench::*;
use crate::ids::ConsumerId;
use crate::machine::{Action, HaltReason, Input, JobResult, LaneDoing, Operation, OperationRefused, Settings};
use crate::message::Failure;
use crate::parked::{ParkCause, ParkLane};
use crate::policy::{OnExhausted, ParkPolicy, Policy, ReleasePolicy, RetryPolicy};

/// One attempt; then the key is held for 1,000 ms, 2,000 ms, …
fn parking() -> Policy {
    Policy {
        retry: RetryPolicy { attempts_max: 1, ..policy().retry },
        release: ReleasePolicy { after_ms: Some(1_000), longest_ms: 5_000, ..ReleasePolicy::default() },
        ..policy()
    }
}

fn lane(key: &str) -> ParkLane {
    ParkLane::Key(key.into())
}

/// Sequences and causes of what is parked, in the order in which it comes back.
fn parked(bench: &Bench) -> Vec<(u64, &'static str)> {
    bench.parked.values().map(|row| (row.message.sequence, row.cause.kind())).collect()
}

fn all_sequences(bench: &mut Bench) -> Vec<u64> {
    let mut handled = Vec::new();
    loop {
        let runs = bench.runs();
        if runs.is_empty() {
            return handled;
        }
        for run in runs {
            handled.extend(sequences(&run));
            bench.apply(&run);
        }
    }
}

/// A consumer whose key `a` is held by its first message, with these behind it.
fn held(policy: Policy, behind: &[u64]) -> (Bench, ConsumerId) {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy);
    bench.deliver(consumer, &[message(1, "a")]);
    let run = bench.run();
    bench.end(&run, vec![retry()]);
    bench.deliver(consumer, &behind.iter().map(|sequence| message(*sequence, "a")).collect::<Vec<_>>());
    assert!(bench.runs().is_empty(), "the key is held");
    (bench, consumer)
}

#[test]
fn a_key_whose_attempts_are_used_up_is_held_off_the_books_and_comes_back_in_order() {
    let (mut bench, consumer) = held(parking(), &[2, 3]);
    assert_eq!(outcomes(&bench.commit().unwrap()), [(1, "exhausted")]);
    assert_eq!(outcomes(&bench.commit().unwrap()), [(2, "behind"), (3, "behind")]);
    let status = &bench.core.status().consumers[0];
    assert_eq!((status.held, status.floor, status.parked_rows), (0, 3, 3), "the broker is done with them");
    bench.deliver(consumer, &[message(4, "b")]);
    let other = bench.run();
    assert_eq!(sequences(&other), [4], "another key goes on");
    bench.apply(&other);
    assert_eq!(bench.wake(), 1_000);
    let run = bench.run();
    assert_eq!((sequences(&run), run.jobs[0].attempt), (vec![1, 2, 3], 1), "attempts begin anew");
    bench.apply(&run);
    while bench.commit().is_some() {}
    assert!(bench.parked.is_empty() && bench.core.lanes.is_empty() && bench.core.timers.is_empty());
}

#[test]
fn what_the_head_of_a_lane_leaves_behind_it_is_parked_in_order() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), parking());
    bench.deliver(consumer, &(1..=4).map(|sequence| message(sequence, "a")).collect::<Vec<_>>());
    let run = bench.run();
    bench.end(&run, vec![applied(&[]), retry()]);
    assert_eq!(parked(&bench), [(2, "exhausted"), (3, "behind"), (4, "behind")]);
}

#[test]
fn what_arrives_while_a_key_is_being_released_stays_behind() {
    let (mut bench, consumer) = held(parking(), &[2]);
    // More of it than one fetch brings.
    let many: Vec<_> = (3..=200).map(|sequence| message(sequence, "a")).collect();
    bench.deliver(consumer, &many);
    bench.tick_ms = 1_000;
    bench.tell(Input::Tick);
    let first = bench.run();
    bench.deliver(consumer, &[message(201, "a"), message(202, "a")]);
    assert_eq!(bench.core.consumers[&consumer].parked_rows, 202, "not all is in memory, so they are parked behind it");
    let mut handled = sequences(&first);
    bench.apply(&first);
    handled.extend(all_sequences(&mut bench));
    assert_eq!(handled, (1..=202).collect::<Vec<_>>());
    bench.deliver(consumer, &[message(203, "a")]);
    assert_eq!(sequences(&bench.run()), [203], "nothing is left, so the key is free");
}

#[test]
fn a_key_that_fails_again_is_held_twice_as_long_up_to_a_bound() {
    let (mut bench, _) = held(parking(), &[]);
    let mut delays = Vec::new();
    for _ in 0..4 {
        delays.push(bench.wake());
        let run = bench.run();
        bench.end(&run, vec![retry()]);
    }
    assert_eq!(delays, [1_000, 2_000, 4_000, 5_000]);
}

#[test]
fn a_new_version_of_the_plug_in_releases_held_keys_if_the_policy_says_so() {
    for on_new_version in [true, false] {
        let release = ReleasePolicy { after_ms: None, on_new_version, ..ReleasePolicy::default() };
        let (mut bench, consumer) = held(Policy { release, ..parking() }, &[2]);
        assert_eq!(bench.core.next_wakeup(), None);
        bench.tell(Input::Swapped { consumer });
        let expected = if on_new_version { vec![1, 2] } else { vec![] };
        assert_eq!(all_sequences(&mut bench), expected);
    }
}

#[test]
fn an_operator_releases_a_key_or_all_of_them() {
    let (mut bench, consumer) = held(parking(), &[2]);
    assert_eq!(bench.operate(consumer, Operation::Release(lane("b"))), Err(OperationRefused::NotParked));
    bench.operate(consumer, Operation::Release(lane("a"))).unwrap();
    assert_eq!(all_sequences(&mut bench), [1, 2]);
    let (mut bench, consumer) = held(parking(), &[2]);
    bench.operate(consumer, Operation::ReleaseAll).unwrap();
    assert_eq!(all_sequences(&mut bench), [1, 2]);
}

#[test]
fn dropping_the_message_that_holds_its_key_frees_the_key_and_dropping_another_does_not() {
    let (mut bench, consumer) = held(parking(), &[2, 3]);
    let rows: Vec<_> = bench.parked.values().cloned().collect();
    bench.operate(consumer, Operation::DropParked(Arc::clone(&rows[1]))).unwrap();
    assert!(bench.runs().is_empty(), "the one in trouble is still there");
    bench.operate(consumer, Operation::DropParked(Arc::clone(&rows[0]))).unwrap();
    assert_eq!(sequences(&bench.run()), [3]);
    let refused = bench.operate(consumer, Operation::DropParked(Arc::clone(&rows[2])));
    assert_eq!(refused, Err(OperationRefused::BeingReleased));
}

#[test]
fn held_keys_that_fail_again_leave_room_for_the_release_of_others() {
    let patient = Policy { retry: RetryPolicy { attempts_max: 2, ..policy().retry }, breaker: None, ..parking() };
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), patient);
    let poisoned: Vec<_> = (1..=100).map(|sequence| message(sequence, &format!("p{sequence}"))).collect();
    bench.deliver(consumer, &poisoned);
    let fail_all = |bench: &mut Bench| {
        loop {
            let runs = bench.runs();
            if runs.is_empty() {
                return;
            }
            runs.iter().for_each(|run| bench.end(run, vec![retry()]));
        }
    };
    fail_all(&mut bench);
    while bench.core.consumers[&consumer].parked.len() < 100 {
        bench.wake();
        fail_all(&mut bench);
    }
    bench.operate(consumer, Operation::ReleaseAll).unwrap();
    fail_all(&mut bench);
    assert_eq!(bench.core.status().consumers[0].lanes_releasing, 32, "they wait for their second attempts");
    bench.deliver(consumer, &[message(101, "healthy")]);
    let run = bench.run();
    bench.end(&run, vec![park(None)]);
    bench.deliver(consumer, &[message(102, "healthy")]);
    let run = bench.run();
    bench.apply(&run);
    assert_eq!(sequences(&bench.run()), [101]);
}

#[test]
fn what_still_runs_when_its_consumer_has_to_stop_can_not_be_dropped() {
    let (mut bench, consumer) = held(parking(), &[]);
    let row = bench.parked.values().next().unwrap().clone();
    bench.wake();
    let run = bench.run();
    bench.tell(Input::Stop { consumer });
    let refused = bench.operate(consumer, Operation::DropParked(Arc::clone(&row)));
    assert_eq!(refused, Err(OperationRefused::BeingReleased));
    bench.end(&run, vec![]);
    bench.operate(consumer, Operation::DropParked(row)).unwrap();
    assert!(bench.parked.is_empty() && bench.core.consumers[&consumer].parked.is_empty());
}

#[test]
fn a_message_that_asked_to_be_parked_comes_back_when_another_of_its_key_was_applied() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), parking());
    bench.deliver(consumer, &[message(1, "a"), message(2, "b")]);
    let runs = bench.runs();
    bench.end(&runs[0], vec![park(Some(60_000))]);
    bench.apply(&runs[1]);
    assert!(bench.runs().is_empty(), "a message of another key means nothing to it");
    bench.deliver(consumer, &[message(3, "a")]);
    let run = bench.run();
    assert_eq!(sequences(&run), [3], "its key goes on without it");
    bench.apply(&run);
    assert_eq!(sequences(&bench.run()), [1]);
}

#[test]
fn what_comes_back_goes_in_front_of_what_was_not_parked() {
    let settings = Settings { run_messages_max: 1, ..Settings::default() };
    let (mut bench, consumer) = Bench::with_consumer(settings, parking());
    bench.deliver(consumer, &(1..=4).map(|sequence| message(sequence, "a")).collect::<Vec<_>>());
    let run = bench.run();
    bench.end(&run, vec![park(Some(60_000))]);
    assert_eq!(all_sequences(&mut bench), [2, 3, 1, 4], "3 was under way when 2 had been applied");
}

#[test]
fn a_message_that_asks_to_be_parked_for_too_long_is_given_up() {
    let park_policy = ParkPolicy { delay_ms: 40, longest_ms: 100 };
    for (after_ms, asked) in [(None, 4), (Some(90_000), 2)] {
        let (mut bench, consumer) = Bench::with_consumer(Settings::default(), Policy { park: park_policy, ..policy() });
        bench.deliver(consumer, &[message(1, "a")]);
        for attempt in 1..=asked {
            let run = bench.run();
            bench.end(&run, vec![park(after_ms)]);
            if attempt < asked {
                bench.wake();
            }
        }
        let last = std::iter::from_fn(|| bench.commit()).last().unwrap();
        assert_eq!(outcomes(&last).last(), Some(&(1, "parked-too-long")), "{after_ms:?}");
        assert_eq!(bench.tick_ms, 100);
    }
}

#[test]
fn the_time_that_a_message_was_held_behind_others_does_not_count_as_asked_for() {
    let (mut bench, _) = held(Policy { park: ParkPolicy { delay_ms: 40, longest_ms: 100 }, ..parking() }, &[2]);
    bench.wake();
    let run = bench.run();
    bench.end(&run, vec![applied(&[]), park(None)]);
    assert_eq!(parked(&bench), [(2, "asked")]);
}

#[test]
fn a_consumer_halts_if_that_is_its_policy_and_resumes_with_the_same_message() {
    let (mut bench, consumer) =
        Bench::with_consumer(Settings::default(), Policy { on_exhausted: OnExhausted::Halt, ..parking() });
    bench.deliver(consumer, &[message(1, "a"), message(2, "b")]);
    let runs = bench.runs();
    bench.end(&runs[0], vec![retry()]);
    let reason = |action: &Action| if let Action::Halted { reason, .. } = action { Some(reason.clone()) } else { None };
    let failure = Failure::Retry { reason: "not now".into(), after_ms: None };
    let expected = HaltReason::Exhausted { sequence: 1, key: Some("a".into()), attempts: 1, failure };
    assert_eq!(bench.take(reason), [expected]);
    bench.positions();
    bench.operate(consumer, Operation::Resume).unwrap();
    assert!(bench.positions().is_empty(), "what was running is still out");
    bench.apply(&runs[1]);
    bench.commit();
    assert_eq!(bench.positions(), [0]);
    bench.positioned(consumer, "S", 1, 2);
    bench.deliver(consumer, &[message(1, "a"), message(2, "b")]);
    assert_eq!(sequences(&bench.run()), [1]);
}

#[test]
fn a_consumer_that_is_told_to_stop_stops_whatever_its_policy_is() {
    let (mut bench, consumer) =
        Bench::with_consumer(Settings::default(), Policy { on_exhausted: OnExhausted::Halt, ..parking() });
    bench.deliver(consumer, &[message(1, "a")]);
    let run = bench.run();
    bench.tell(Input::Stop { consumer });
    bench.end(&run, vec![retry()]);
    assert_eq!(bench.stopped(), 1);
}

#[test]
fn retries_end_when_their_time_is_up() {
    let retry_policy = RetryPolicy { attempts_max: 100, total_ms: Some(350), ..policy().retry };
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), Policy { retry: retry_policy, ..parking() });
    bench.deliver(consumer, &[message(1, "a")]);
    for delay_ms in [100, 200] {
        let run = bench.run();
        bench.end(&run, vec![retry()]);
        assert_eq!(bench.wake(), delay_ms);
    }
    let run = bench.run();
    bench.end(&run, vec![retry()]);
    assert_eq!(parked(&bench), [(1, "exhausted")], "the next would begin after 700 ms");
}

#[test]
fn a_key_that_waits_for_its_next_attempt_does_not_fill_its_consumers_memory() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), Policy { messages_held_max: 8, ..policy() });
    bench.deliver(consumer, &[message(1, "a")]);
    let run = bench.run();
    bench.end(&run, vec![retry()]);
    bench.deliver(consumer, &[message(2, "a")]);
    assert_eq!(parked(&bench), [(1, "retrying"), (2, "behind")]);
    bench.deliver(consumer, &[message(3, "a"), message(4, "b")]);
    let other = bench.run();
    assert_eq!(sequences(&other), [4], "another key goes on");
    bench.apply(&other);
    assert_eq!(bench.wake(), 100);
    let run = bench.run();
    assert_eq!((sequences(&run), run.jobs[0].attempt), (vec![1, 2, 3], 2), "the attempts before count");
}

#[test]
fn what_was_spilled_keeps_to_the_time_of_its_retries() {
    let retry_policy = RetryPolicy { attempts_max: 100, total_ms: Some(250), ..policy().retry };
    let policy = Policy { messages_held_max: 4, retry: retry_policy, ..parking() };
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy);
    bench.deliver(consumer, &[message(1, "a")]);
    let run = bench.run();
    bench.end(&run, vec![retry()]);
    bench.deliver(consumer, &[message(2, "a")]);
    assert_eq!(bench.wake(), 100);
    let run = bench.run();
    bench.end(&run, vec![retry()]);
    assert_eq!(parked(&bench), [(1, "exhausted"), (2, "behind")], "the next would begin after 300 ms");
}

#[test]
fn nothing_is_brought_back_twice_when_a_consumer_is_started_before_it_has_stopped() {
    let (mut bench, consumer) = held(parking(), &[2]);
    while bench.commit().is_some() {}
    bench.wake();
    let run = bench.run();
    bench.tell(Input::Stop { consumer });
    bench.tell(Input::Start { consumer, policy: Box::new(parking()), start: Default::default() });
    bench.end(&run, vec![applied(&[])]);
    bench.positions();
    while bench.commit().is_some() {}
    assert_eq!(bench.positions(), [2]);
    bench.positioned(consumer, "S", 1, 2);
    assert_eq!(all_sequences(&mut bench), [2]);
}

#[test]
fn a_consumer_has_not_stopped_before_what_was_brought_back_is_durable() {
    let (mut bench, consumer) = held(parking(), &[]);
    while bench.commit().is_some() {}
    bench.wake();
    let run = bench.run();
    bench.tell(Input::Stop { consumer });
    bench.apply(&run);
    assert_eq!(bench.stopped(), 0);
    bench.commit();
    assert_eq!(bench.stopped(), 1);
}

#[test]
fn dead_letters_are_handled_again_in_order_and_behind_a_held_key() {
    let once = Policy { on_exhausted: OnExhausted::DeadLetter, ..parking() };
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), once);
    bench.deliver(consumer, &[message(1, "a"), message(2, "a"), message(3, "a")]);
    for _ in 1..=2 {
        let run = bench.run();
        bench.end(&run, vec![retry()]);
    }
    let letter = |action: &Action| {
        if let Action::DeadLettered { letter, .. } = action { Some(Arc::clone(letter)) } else { None }
    };
    let letters = bench.take(letter);
    bench.tell(Input::Change { consumer, policy: Box::new(parking()) });
    let run = bench.run();
    bench.end(&run, vec![retry()]);
    for letter in &letters {
        bench.operate(consumer, Operation::Replay(Arc::clone(letter))).unwrap();
    }
    assert_eq!(parked(&bench), [(3, "exhausted"), (1, "replayed"), (2, "replayed")]);
    assert!(bench.runs().is_empty(), "the key is held");
    bench.operate(consumer, Operation::Release(lane("a"))).unwrap();
    assert_eq!(all_sequences(&mut bench), [3, 1, 2]);
    // Of a key that is free, it is handled at once.
    bench.operate(consumer, Operation::Replay(Arc::clone(&letters[1]))).unwrap();
    assert_eq!(all_sequences(&mut bench), [2]);
}

#[test]
fn a_dead_letter_is_told_of_by_an_event() {
    let policy =
        Policy { on_exhausted: OnExhausted::DeadLetter, dead_letter_subject: Some("dead".into()), ..parking() };
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy);
    let mut poison = message(1, "a");
    poison.headers = vec![("Nats-Msg-Id".into(), "x".into()), ("X".into(), "y".into())];
    poison.payload = bytes::Bytes::from_static(b"poison");
    bench.deliver(consumer, &[poison]);
    let run = bench.run();
    bench.end(&run, vec![failed(Failure::Trap { reason: "line one\nline two".into() })]);
    assert!(bench.published().is_empty(), "not before it is durable");
    bench.commit();
    let event =
        |action: &Action| if let Action::Publish { event, .. } = action { Some(Arc::clone(event)) } else { None };
    let event = bench.take(event).remove(0);
    assert_eq!((event.subject.as_ref(), event.payload.as_ref()), ("dead", b"poison".as_slice()));
    let headers: Vec<_> = event.headers.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(headers[..2], ["X=y", "pelton-dead-letter-consumer=c"]);
    assert!(headers.contains(&"pelton-dead-letter-cause=exhausted".into()), "{headers:?}");
    assert!(headers.contains(&"pelton-dead-letter-reason=line one line two".into()), "{headers:?}");
}

#[test]
fn a_key_can_be_explained() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy());
    let doing = |bench: &Bench, key: &str| bench.core.explain(consumer, key).unwrap().running.map(|lane| lane.doing);
    assert_eq!(doing(&bench, "a"), None);
    bench.deliver(consumer, &[marked(1, "a", 7), marked(2, "b", 7)]);
    assert_eq!((doing(&bench, "a"), doing(&bench, "b")), (Some(LaneDoing::Running), Some(LaneDoing::Blocked)));
    let run = bench.run();
    bench.end(&run, vec![retry()]);
    bench.tick_ms += 30;
    bench.tell(Input::Tick);
    let running = bench.core.explain(consumer, "a").unwrap().running.unwrap();
    assert_eq!((running.doing, running.sequence, running.attempts), (LaneDoing::Backoff { for_ms: 70 }, 1, 1));
    assert_eq!(running.last_failure.unwrap().failure.kind(), "retry");

    let (mut bench, consumer) = held(parking(), &[2]);
    bench.tick_ms += 400;
    bench.tell(Input::Tick);
    let explained = bench.core.explain(consumer, "a").unwrap();
    assert!(explained.phase == "running" && explained.running.is_none());
    let parked = explained.parked.unwrap();
    assert_eq!((parked.rows, parked.aside, parked.held, parked.being_released), (2, 0, true, false));
    assert_eq!((parked.cause, parked.released_in_ms), (Some(ParkCause::Exhausted), Some(600)));
}

#[test]
fn a_duplicate_that_was_parked_is_parked_no_more() {
    let (mut bench, consumer) = held(parking(), &[]);
    bench.operate(consumer, Operation::Release(lane("a"))).unwrap();
    let run = bench.run();
    bench.end(&run, vec![JobResult::Duplicate]);
    assert!(bench.parked.is_empty() && bench.core.consumers[&consumer].parked.is_empty());
}
