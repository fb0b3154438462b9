//! Rules of a consumer's life: start, stop, drain, and what happens to its stream.

use super::bench::*;
use crate::batch::{Again, StreamIdentity};
use crate::cursor::Cursor;
use crate::ids::ConsumerId;
use crate::machine::{Action, Core, HaltReason, Input, JobResult, KnownConsumer, Recovered, Settings, Start};

#[test]
fn a_stopped_consumer_ends_what_runs_and_starts_again_at_its_cursor() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy());
    bench.deliver(consumer, &[message(1, "a"), message(2, "b"), message(3, "b")]);
    let runs = bench.runs();
    bench.deliver(consumer, &[message(4, "b")]);
    bench.tell(Input::Stop { consumer });
    bench.end(&runs[1], vec![applied(&[])]);
    bench.commit();
    assert_eq!(bench.stopped(), 0, "a run is still out");
    bench.end(&runs[0], vec![retry()]);
    assert_eq!(bench.stopped(), 1);
    bench.positions();
    bench.tell(Input::Start { consumer, policy: Box::new(policy()), start: Start::All });
    assert_eq!(bench.positions(), [0]);
    bench.positioned(consumer, "S", 1, 5);
    bench.runs();
    bench.deliver(consumer, &[message(1, "a"), message(2, "b"), message(3, "b")]);
    assert_eq!(bench.runs().iter().map(sequences).collect::<Vec<_>>(), [[1], [3]]);
}

#[test]
fn a_consumer_that_is_started_before_it_has_stopped_ends_what_runs_and_goes_on() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy());
    bench.deliver(consumer, &[message(1, "a")]);
    let run = bench.run();
    bench.deliver(consumer, &[message(2, "a"), message(3, "b")]);
    let other = bench.run();
    bench.positions();
    bench.tell(Input::Stop { consumer });
    bench.tell(Input::Start { consumer, policy: Box::new(policy()), start: Start::All });
    assert_eq!(bench.core.status().consumers[0].phase, "restarting");
    bench.apply(&run);
    bench.commit();
    assert!(bench.positions().is_empty(), "a run is still out");
    bench.apply(&other);
    assert!(bench.positions().is_empty(), "its outcome is not durable");
    bench.commit();
    assert_eq!(bench.positions(), [1]);
    bench.positioned(consumer, "S", 1, 3);
    bench.deliver(consumer, &[message(2, "a"), message(3, "b")]);
    assert_eq!(sequences(&bench.run()), [2]);
    assert_eq!(bench.stopped(), 0);
}

#[test]
fn a_stop_forgets_who_waited_for_an_id() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy());
    let messages = [marked(1, "a", 7), marked(2, "b", 7), marked(3, "c", 7)];
    bench.deliver(consumer, &messages);
    let first = bench.run();
    bench.tell(Input::Stop { consumer });
    assert!(bench.core.blocked.is_empty());
    bench.tell(Input::Start { consumer, policy: Box::new(policy()), start: Start::All });
    bench.apply(&first);
    bench.commit();
    bench.positioned(consumer, "S", 1, 3);
    bench.deliver(consumer, &messages);
    for sequence in [2, 3] {
        let run = bench.run();
        assert_eq!(sequences(&run), [sequence]);
        bench.end(&run, vec![JobResult::Duplicate]);
    }
    assert!(bench.runs().is_empty() && bench.core.blocked.is_empty() && bench.core.lanes.is_empty());
}

#[test]
fn what_is_held_when_a_subscription_is_lost_is_not_taken_twice() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy());
    bench.deliver(consumer, &[message(1, "a"), message(2, "b")]);
    let runs = bench.runs();
    bench.apply(&runs[1]);
    bench.commit();
    let generation = bench.generation(consumer);
    bench.tell(Input::Lost { consumer, generation });
    bench.tell(Input::Lost { consumer, generation });
    assert_eq!(bench.positions().last(), Some(&0));
    assert_eq!(bench.generation(consumer), generation + 1, "the second is of a generation that is over");
    bench.positioned(consumer, "S", 1, 2);
    bench.settled();
    bench.deliver(consumer, &[message(1, "a"), message(2, "b")]);
    assert!(bench.runs().is_empty());
    assert_eq!(bench.settled(), [(0, vec![2])], "JetStream missed that it was settled");
}

#[test]
fn the_floor_rises_when_the_last_deliveries_turn_out_to_be_settled() {
    let stream = StreamIdentity { name: "S".into(), created_ns: 1 };
    let mut cursor = Cursor::at(48);
    cursor.settle(54);
    let known = KnownConsumer {
        id: ConsumerId(1),
        name: "c".into(),
        stream,
        cursor,
        holds: Vec::new(),
        newest: None,
        again: Again::default(),
    };
    let mut bench = Bench::new(Settings::default());
    bench.core = Core::new(Settings::default(), Recovered { consumers: vec![known], ..Recovered::default() });
    let consumer = bench.core.register("c");
    bench.tell(Input::Start { consumer, policy: Box::new(policy()), start: Start::All });
    bench.positioned(consumer, "S", 1, 54);
    bench.deliver(consumer, &[message(49, "a")]);
    let run = bench.run();
    bench.apply(&run);
    bench.deliver(consumer, &[message(54, "a")]);
    assert_eq!(bench.settled(), [(48, vec![54])], "49 is still being committed");
    bench.commit();
    assert_eq!(bench.settled().last().unwrap().0, 54);
    let generation = bench.generation(consumer);
    bench.tell(Input::Lost { consumer, generation });
    assert_eq!(bench.positions().last(), Some(&54));

    // The same, when it is delivered only after all else is durable.
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy());
    bench.deliver(consumer, &[message(1, "a"), message(5, "b")]);
    let runs = bench.runs();
    bench.tell(Input::Stop { consumer });
    bench.end(&runs[0], vec![retry()]);
    bench.apply(&runs[1]);
    bench.commit();
    bench.tell(Input::Start { consumer, policy: Box::new(policy()), start: Start::All });
    bench.positioned(consumer, "S", 1, 5);
    bench.deliver(consumer, &[message(1, "a")]);
    let run = bench.run();
    bench.apply(&run);
    bench.commit();
    assert_eq!(bench.settled().last().unwrap().0, 1);
    bench.deliver(consumer, &[message(5, "b")]);
    assert_eq!(bench.settled(), [(5, vec![5])]);
}

#[test]
fn a_stream_that_was_replaced_is_read_from_its_begin_once_the_old_one_is_done_with() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy());
    bench.deliver(consumer, &[message(1, "a"), message(2, "b")]);
    let runs = bench.runs();
    bench.apply(&runs[1]);
    bench.commit();
    let generation = bench.generation(consumer);
    bench.tell(Input::Lost { consumer, generation });
    bench.positions();
    bench.positioned(consumer, "S", 2, 9);
    assert!(bench.positions().is_empty() && bench.pulls().len() <= 1, "a message of the old one is being handled");
    bench.apply(&runs[0]);
    assert_eq!(bench.core.status().consumers[0].phase, "rebinding");
    assert_eq!(outcomes(&bench.commit().unwrap()), [(1, "applied")]);
    assert_eq!(bench.positions(), [2]);
    bench.asked.clear();
    bench.positioned(consumer, "S", 2, 9);
    let replaced = |action: &Action| {
        if let Action::Bound { replaced, after, .. } = action { Some((replaced.clone(), *after)) } else { None }
    };
    let old = StreamIdentity { name: "S".into(), created_ns: 1 };
    assert_eq!(bench.take(replaced), [(Some(old), 0)]);
    assert_eq!(bench.positions(), [0]);
    assert_eq!(bench.commit().unwrap().bindings[0].floor, 0);
    bench.positioned(consumer, "S", 2, 9);
    bench.deliver(consumer, &[message(1, "a")]);
    assert_eq!(sequences(&bench.run()), [1]);
}

#[test]
fn a_stream_that_went_backwards_halts_its_consumer_and_no_other() {
    // All up to 2 is settled, and 3 and 5 above a message that is not: the stream must still reach to 5.
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy());
    let other = bench.add("other", policy());
    let messages: Vec<_> = (1..=5).map(|sequence| message(sequence, "")).collect();
    bench.deliver(consumer, &messages);
    let runs = bench.runs();
    bench.apply(&runs[4]);
    bench.commit();
    for (last_sequence, halts) in [(5, false), (4, true)] {
        let generation = bench.generation(consumer);
        bench.tell(Input::Lost { consumer, generation });
        bench.positioned(consumer, "S", 1, last_sequence);
        let reason = |action: &Action| {
            if let Action::Halted { reason, .. } = action { Some(reason.clone()) } else { None }
        };
        let expected = HaltReason::StreamWentBackwards { stream: "S".into(), last_sequence, floor: 5 };
        assert_eq!(bench.take(reason), if halts { vec![expected] } else { vec![] });
    }
    bench.deliver(other, &[message(1, "a")]);
    bench.deliver(consumer, &[message(6, "a")]);
    for run in runs.iter().take(4) {
        bench.apply(run);
    }
    assert_eq!(bench.run().consumer, other);
    bench.commit();
    bench.commit();
    assert_eq!(bench.core.status().consumers[0].phase, "halted");
}

#[test]
fn a_consumer_that_starts_with_new_messages_does_so_once() {
    let mut bench = Bench::new(Settings::default());
    let consumer = bench.core.register("c");
    let start = || Input::Start { consumer, policy: Box::new(policy()), start: Start::New };
    let bound = |action: &Action| {
        if let Action::Bound { replaced, after, .. } = action { Some((replaced.is_some(), *after)) } else { None }
    };
    bench.tell(start());
    assert_eq!(bench.positions(), [0]);
    bench.positioned(consumer, "S", 1, 7);
    assert_eq!((bench.take(bound), bench.positions()), (vec![(false, 7)], vec![7]));
    assert_eq!(bench.commit().unwrap().bindings[0].floor, 7);
    bench.positioned(consumer, "S", 1, 9);
    bench.tell(start());
    bench.positioned(consumer, "S", 1, 12);
    assert_eq!((bench.take(bound), bench.positions()), (vec![], vec![7]), "it has a cursor now");
    // Made anew: all that is in it is new. Another stream: only what comes after.
    bench.tell(start());
    bench.positioned(consumer, "S", 2, 3);
    assert_eq!(bench.take(bound), [(true, 0)]);
    bench.commit();
    bench.tell(start());
    bench.positioned(consumer, "T", 3, 20);
    assert_eq!(bench.take(bound), [(false, 20)]);
}

#[test]
fn a_drain_commits_what_ran_and_begins_nothing() {
    let (mut bench, consumer) = Bench::with_consumer(Settings { runs_max: 1, ..Settings::default() }, policy());
    bench.deliver(consumer, &[message(1, "a"), message(2, "b")]);
    let run = bench.run();
    bench.pulls();
    bench.tell(Input::Drain);
    assert!(!bench.drained());
    bench.end(&run, vec![applied(&["a"])]);
    assert_eq!(outcomes(&bench.commit().unwrap()), [(1, "applied")]);
    assert_eq!((bench.published(), bench.stopped(), bench.drained()), (vec![0], 1, false));
    bench.tell(Input::Acknowledged(rows(&[0])));
    assert!(!bench.drained());
    assert_eq!(bench.commit().unwrap().published, rows(&[0]));
    assert!(bench.drained() && bench.runs().is_empty() && bench.pulls().is_empty());
    bench.positions();
    bench.tell(Input::Start { consumer, policy: Box::new(policy()), start: Start::All });
    assert!(bench.asked.iter().all(|action| matches!(action, Action::Settle { .. } | Action::Bound { .. })));
}

#[test]
fn a_drain_does_not_wait_for_events_that_jetstream_refuses() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy());
    bench.deliver(consumer, &[message(1, "a")]);
    let run = bench.run();
    bench.end(&run, vec![applied(&["a", "a", "b"])]);
    bench.commit();
    assert_eq!(bench.published(), [0, 1, 2]);
    bench.tell(Input::Refused(rows(&[2])[0]));
    bench.tell(Input::Drain);
    bench.tell(Input::Refused(rows(&[0])[0]));
    bench.wake();
    assert!(bench.published().is_empty() && !bench.drained(), "one is still out");
    bench.tell(Input::Refused(rows(&[1])[0]));
    assert!(bench.drained(), "they are durable, and the next start tries them again");
}
