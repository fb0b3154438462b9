//! Rules of what keeps a consumer from working although it could: its breaker, an operator, its pace, and the share of others.

use super::bench::*;
use crate::batch::{Again, Hold, HoldBy, StreamIdentity};
use crate::cursor::Cursor;
use crate::ids::ConsumerId;
use crate::machine::{Action, Core, Input, KnownConsumer, Operation, Recovered, Run, Settings};
use crate::policy::{BreakerPolicy, OnExhausted, Policy, RatePolicy, RetryPolicy};

/// Opens after three failures of three attempts, for 1,000 ms, then 2,000 ms.
fn breaking() -> Policy {
    let breaker = BreakerPolicy { window: 3, ratio: 0.5, keys_min: 3, first_delay_ms: 1_000, longest_delay_ms: 2_000 };
    Policy {
        breaker: Some(breaker),
        on_exhausted: OnExhausted::DeadLetter,
        retry: RetryPolicy { attempts_max: 2, ..policy().retry },
        ..policy()
    }
}

fn held(bench: &mut Bench) -> Vec<(HoldBy, bool)> {
    bench.take(|action| if let Action::Held { by, hold, .. } = action { Some((*by, hold.is_some())) } else { None })
}

/// A consumer whose breaker has just opened, with three messages that wait.
fn broken() -> (Bench, ConsumerId) {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), breaking());
    bench.deliver(consumer, &[message(1, "a"), message(2, "b"), message(3, "c")]);
    for run in bench.runs() {
        bench.end(&run, vec![retry()]);
    }
    assert_eq!(held(&mut bench), [(HoldBy::Breaker, true)]);
    (bench, consumer)
}

/// Lets time pass until there are runs.
fn next_runs(bench: &mut Bench) -> Vec<Run> {
    loop {
        bench.wake();
        let runs = bench.runs();
        if !runs.is_empty() {
            return runs;
        }
    }
}

#[test]
fn a_breaker_lets_one_message_probe_and_gives_none_up_until_one_succeeds() {
    let (mut bench, _) = broken();
    let mut probed_at = Vec::new();
    for _ in 0..4 {
        let runs = next_runs(&mut bench);
        probed_at.push(bench.tick_ms);
        assert_eq!(runs.len(), 1, "one is enough to see");
        bench.end(&runs[0], vec![retry()]);
    }
    assert_eq!(probed_at, [1_000, 3_000, 5_000, 7_000]);
    let probe = next_runs(&mut bench).remove(0);
    bench.apply(&probe);
    assert_eq!(held(&mut bench), [(HoldBy::Breaker, false)]);
    let rest = bench.runs();
    assert_eq!(rest.len(), 2, "all go on");
    rest.iter().for_each(|run| bench.apply(run));
    let settled: Vec<_> = std::iter::from_fn(|| bench.commit()).flat_map(|batch| outcomes(&batch)).collect();
    assert_eq!(settled.iter().filter(|(_, outcome)| *outcome == "applied").count(), 3, "{settled:?}");
}

#[test]
fn an_open_breaker_survives_a_restart() {
    let stream = StreamIdentity { name: "S".into(), created_ns: 1 };
    let hold = Hold { since_ms: 5, reason: "too much failed".into() };
    let holds = vec![(HoldBy::Breaker, hold)];
    let known = KnownConsumer {
        id: ConsumerId(1),
        name: "c".into(),
        stream,
        cursor: Cursor::default(),
        holds,
        newest: None,
        again: Again::default(),
    };
    let mut bench = Bench::new(Settings::default());
    bench.core = Core::new(Settings::default(), Recovered { consumers: vec![known], ..Recovered::default() });
    let consumer = bench.core.register("c");
    bench.tell(Input::Start { consumer, policy: Box::new(breaking()), start: Default::default() });
    bench.positioned(consumer, "S", 1, 2);
    bench.deliver(consumer, &[message(1, "a"), message(2, "b")]);
    assert!(bench.runs().is_empty());
    assert_eq!(bench.wake(), 1_000);
    let probe = bench.run();
    bench.apply(&probe);
    assert_eq!(held(&mut bench), [(HoldBy::Breaker, false)]);
    assert_eq!(bench.runs().len(), 1);
}

#[test]
fn an_operator_who_resumes_or_a_new_version_lets_an_open_breaker_probe_at_once() {
    let (mut bench, consumer) = broken();
    bench.operate(consumer, Operation::Resume).unwrap();
    bench.tick_ms = 100;
    bench.tell(Input::Tick);
    let probe = bench.run();
    bench.end(&probe, vec![retry()]);
    bench.tell(Input::Swapped { consumer });
    bench.run();
}

#[test]
fn a_consumer_whose_breaker_is_taken_away_goes_on() {
    let (mut bench, consumer) = broken();
    bench.tell(Input::Change { consumer, policy: Box::new(Policy { breaker: None, ..breaking() }) });
    assert_eq!(held(&mut bench), [(HoldBy::Breaker, false)]);
    bench.tick_ms = 100;
    bench.tell(Input::Tick);
    assert_eq!(bench.runs().len(), 3);
}

#[test]
fn a_paused_consumer_begins_nothing_and_pulls_nothing_also_after_a_restart() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy());
    bench.deliver(consumer, &[message(1, "a"), message(2, "a")]);
    let run = bench.run();
    bench.operate(consumer, Operation::Pause { reason: "maintenance".into() }).unwrap();
    bench.pulls();
    bench.end(&run, vec![applied(&[])]);
    assert!(bench.runs().is_empty() && bench.pulls().is_empty());
    let batches: Vec<_> = std::iter::from_fn(|| bench.commit()).collect();
    let edits = batches.iter().flat_map(|batch| &batch.edits).count();
    assert_eq!(edits, 1, "it is durable");

    let state = &bench.core.consumers[&consumer];
    let holds = state.holds.iter().map(|(by, hold)| (*by, hold.clone())).collect();
    let (stream, cursor) = (state.stream.clone().unwrap(), state.cursor.clone());
    let known =
        KnownConsumer { id: consumer, name: "c".into(), stream, cursor, holds, newest: None, again: Again::default() };
    bench.core = Core::new(Settings::default(), Recovered { consumers: vec![known], ..Recovered::default() });
    bench.tell(Input::Start { consumer, policy: Box::new(policy()), start: Default::default() });
    bench.positioned(consumer, "S", 1, 2);
    assert!(bench.pulls().is_empty());
    bench.operate(consumer, Operation::Resume).unwrap();
    assert_eq!(bench.pulls().len(), 1);
}

#[test]
fn a_rate_lets_a_tenth_of_a_second_begin_at_once_and_the_rest_in_time() {
    let rate = RatePolicy { per_second: Some(50), keys_max: None };
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), Policy { rate, ..policy() });
    bench.tick_ms = 10_000;
    let messages: Vec<_> = (1..=100).map(|sequence| message(sequence, "a")).collect();
    bench.deliver(consumer, &messages);
    let mut begun = Vec::new();
    while begun.len() < 25 {
        let runs = bench.runs();
        if runs.is_empty() {
            bench.wake();
        }
        for run in runs {
            begun.extend(run.jobs.iter().map(|_| bench.tick_ms));
            bench.apply(&run);
        }
    }
    assert_eq!(begun[..5], [10_000; 5]);
    assert_eq!((begun[5], begun[24]), (10_020, 10_400), "{begun:?}");
}

#[test]
fn no_more_keys_are_handled_at_once_than_the_policy_allows() {
    let rate = RatePolicy { per_second: None, keys_max: Some(2) };
    let settings = Settings { executors: 8, ..Settings::default() };
    let (mut bench, consumer) = Bench::with_consumer(settings, Policy { rate, ..policy() });
    bench.deliver(consumer, &(1..=5).map(|sequence| message(sequence, "")).collect::<Vec<_>>());
    let runs = bench.runs();
    assert_eq!(runs.len(), 2);
    bench.apply(&runs[0]);
    assert_eq!(bench.runs().len(), 1);
}

/// Has one executor handle what these consumers have; says how long each kept it, in microseconds.
fn shares(bench: &mut Bench, costs: &[(ConsumerId, u64)], runs: usize) -> Vec<u64> {
    let mut used = vec![0; costs.len()];
    for _ in 0..runs {
        let run = bench.run();
        let place = costs.iter().position(|(consumer, _)| *consumer == run.consumer).unwrap();
        used[place] += costs[place].1;
        bench.busy_us = costs[place].1;
        bench.apply(&run);
    }
    used
}

fn one_executor() -> Settings {
    Settings { runs_max: 1, short_runs_max: 1, executors: 1, run_messages_max: 1, ..Settings::default() }
}

#[test]
fn a_consumer_of_twice_the_weight_gets_twice_the_executor_time_whatever_its_runs_take() {
    let (mut bench, light) = Bench::with_consumer(one_executor(), policy());
    let heavy = bench.add("heavy", Policy { weight: 200, ..policy() });
    let messages: Vec<_> = (1..=1_000).map(|sequence| message(sequence, "")).collect();
    bench.deliver(light, &messages);
    bench.deliver(heavy, &messages);
    let used = shares(&mut bench, &[(light, 500), (heavy, 3_000)], 600);
    let ratio = used[1] as f64 / used[0] as f64;
    assert!((1.8..2.2).contains(&ratio), "{used:?}");
}

#[test]
fn a_consumer_that_was_idle_or_paused_has_no_claim_to_the_time_before() {
    let (mut bench, busy) = Bench::with_consumer(one_executor(), policy());
    let idle = bench.add("idle", policy());
    let paused = bench.add("paused", policy());
    let messages: Vec<_> = (1..=1_000).map(|sequence| message(sequence, "")).collect();
    bench.operate(paused, Operation::Pause { reason: "".into() }).unwrap();
    bench.deliver(paused, &messages);
    bench.deliver(busy, &messages);
    let all = [(busy, 1_000), (idle, 1_000), (paused, 1_000)];
    assert_eq!(shares(&mut bench, &all, 300), [300_000, 0, 0]);
    bench.operate(paused, Operation::Resume).unwrap();
    bench.deliver(idle, &messages);
    let used = shares(&mut bench, &all, 30);
    assert!(used.iter().all(|used| (9_000..=11_000).contains(used)), "{used:?}");
}

#[test]
fn slow_consumers_leave_an_executor_to_the_others() {
    let settings = Settings { executors: 3, ..Settings::default() };
    let (mut bench, quick) = Bench::with_consumer(settings, policy());
    let slow = [bench.add("slow", policy()), bench.add("slow, too", policy())];
    let messages: Vec<_> = (1..=20).map(|sequence| message(sequence, "")).collect();
    bench.deliver(quick, &messages[..1]);
    let run = bench.run();
    bench.apply(&run);
    bench.busy_us = 2_000_000;
    for consumer in slow {
        bench.deliver(consumer, &messages[..1]);
        let run = bench.run();
        bench.end(&run, vec![applied(&[])]);
    }
    for consumer in slow {
        bench.deliver(consumer, &messages[1..]);
    }
    let runs = bench.runs();
    let out: Vec<_> = runs.iter().map(|run| run.consumer).collect();
    assert_eq!(out.len(), 2, "{out:?}");
    bench.deliver(quick, &messages[1..]);
    assert!(bench.runs().iter().all(|run| run.consumer == quick), "the quick one begins at once");
    // When the others are done for a while, the slow ones get all there is.
    let (mut bench, slow) = Bench::with_consumer(settings, policy());
    bench.add("idle", policy());
    bench.deliver(slow, &messages);
    assert_eq!(bench.runs().len(), settings.runs_max);
}
