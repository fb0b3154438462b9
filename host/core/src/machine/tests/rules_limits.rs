//! Rules of limits: when pulls stop and go on, when a batch is closed, what leaves when.

use std::collections::VecDeque;

use super::bench::*;
use crate::cursor::Cursor;
use crate::ids::ConsumerId;
use crate::machine::{Input, Settings};
use crate::message::Message;
use crate::policy::Policy;

#[test]
fn pulls_stop_at_the_messages_held_and_go_on_after() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), Policy { messages_held_max: 4, ..policy() });
    assert_eq!(bench.pulls(), [4]);
    bench.deliver(consumer, &(1..=4).map(|sequence| message(sequence, "a")).collect::<Vec<_>>());
    let run = bench.run();
    bench.end(&run, vec![applied(&[])]);
    assert!(bench.pulls().is_empty(), "what is not durable yet is still held");
    bench.commit();
    assert_eq!(bench.pulls(), [1]);
}

#[test]
fn pulls_that_end_are_made_again() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), Policy { messages_held_max: 4, ..policy() });
    assert_eq!(bench.pulls(), [4]);
    let generation = bench.generation(consumer);
    bench.tell(Input::PullEnded { consumer, generation: generation - 1, undelivered: 4 });
    assert!(bench.pulls().is_empty(), "that was another generation's");
    bench.tell(Input::PullEnded { consumer, generation, undelivered: 3 });
    assert_eq!(bench.pulls(), [3]);
}

#[test]
fn pulls_stop_at_the_bytes_held_and_go_on_after() {
    let bytes_held_max = message(1, "a").weight();
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), Policy { bytes_held_max, ..policy() });
    assert_eq!(bench.pulls(), [10_000]);
    let generation = bench.generation(consumer);
    bench.deliver(consumer, &[message(1, "a")]);
    bench.tell(Input::PullEnded { consumer, generation, undelivered: 9_999 });
    assert!(bench.pulls().is_empty());
    let run = bench.run();
    bench.apply(&run);
    bench.commit();
    assert_eq!(bench.pulls(), [10_000]);
}

#[test]
fn pulls_stop_at_the_outbox_rows_and_go_on_when_they_are_acknowledged() {
    let policy = Policy { outbox_rows_max: 2, messages_held_max: 1, ..policy() };
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy);
    assert_eq!(bench.pulls(), [1]);
    bench.deliver(consumer, &[message(1, "a")]);
    let run = bench.run();
    bench.end(&run, vec![applied(&["a", "a"])]);
    bench.commit();
    assert_eq!((bench.published(), bench.pulls()), (vec![0, 1], vec![]));
    bench.tell(Input::Acknowledged(rows(&[0])));
    assert_eq!(bench.pulls(), [1]);
}

#[test]
fn pulls_and_runs_stop_while_the_overlay_is_full_or_the_disk_has_too_little_room() {
    for full in [Input::OverlayFull as fn(bool) -> Input, Input::DiskLow] {
        let policy = Policy { messages_held_max: 4, ..policy() };
        let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy);
        let generation = bench.generation(consumer);
        assert_eq!(bench.pulls(), [4]);
        bench.tell(full(true));
        bench.deliver(consumer, &[message(1, "a")]);
        bench.tell(Input::PullEnded { consumer, generation, undelivered: 3 });
        assert!(bench.pulls().is_empty() && bench.runs().is_empty());
        bench.tell(full(false));
        assert_eq!((bench.pulls(), bench.runs().len()), (vec![3], 1));
    }
}

#[test]
fn nothing_is_told_or_published_before_its_commit() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy());
    bench.settled();
    bench.deliver(consumer, &[message(1, "a")]);
    let run = bench.run();
    bench.end(&run, vec![applied(&["a"])]);
    bench.deliver(consumer, &[message(1, "a")]);
    assert!(bench.published().is_empty());
    assert_eq!(bench.settled(), [(0, vec![])], "delivered again while it is being committed");
    bench.commit();
    assert_eq!((bench.published(), bench.settled()), (vec![0], vec![(1, vec![1])]));
}

#[test]
fn outcomes_go_into_the_next_commit_while_one_is_under_way() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy());
    bench.deliver(consumer, &[message(1, "a"), message(2, "b"), message(3, "c")]);
    let runs = bench.runs();
    bench.apply(&runs[1]);
    bench.apply(&runs[0]);
    bench.apply(&runs[2]);
    let first = bench.commit().unwrap();
    assert_eq!((outcomes(&first), &first.floors), (vec![(2, "applied")], &vec![(consumer, 0)]));
    let second = bench.commit().unwrap();
    assert_eq!(outcomes(&second), [(1, "applied"), (3, "applied")]);
    assert_eq!(second.floors, [(consumer, 3)]);
}

#[test]
fn removals_of_published_rows_get_a_commit_of_their_own_only_when_idle() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy());
    bench.deliver(consumer, &[message(1, "a")]);
    let run = bench.run();
    bench.end(&run, vec![applied(&["a"])]);
    bench.commit();
    bench.tell(Input::Acknowledged(rows(&[0])));
    assert!(bench.commit().is_none());
    bench.tick_ms += 600;
    bench.deliver(consumer, &[message(2, "a")]);
    let run = bench.run();
    bench.end(&run, vec![applied(&["a"])]);
    assert_eq!(bench.commit().unwrap().published, rows(&[0]), "it rides along");
    bench.tell(Input::Acknowledged(rows(&[1])));
    assert_eq!(bench.wake(), 1_000, "nothing is left of the wait before");
    let flush = bench.commit().unwrap();
    assert_eq!((flush.published.clone(), flush.settlements.len()), (rows(&[1]), 0));
    assert_eq!(bench.core.next_wakeup(), None);
}

#[test]
fn events_that_are_tried_again_keep_to_the_window() {
    let settings = Settings { relay_in_flight_max: 2, ..Settings::default() };
    let (mut bench, consumer) = Bench::with_consumer(settings, policy());
    bench.deliver(consumer, &[message(1, "a")]);
    let run = bench.run();
    bench.end(&run, vec![applied(&["a", "b", "c", "d"])]);
    bench.commit();
    assert_eq!(bench.published(), [0, 1]);
    for row in rows(&[0, 1, 2, 3]) {
        bench.tell(Input::Refused(row));
    }
    assert_eq!(bench.published(), [2, 3]);
    bench.wake();
    assert_eq!(bench.published(), [0, 1]);
    for (row, next) in [(0, vec![2]), (1, vec![3]), (2, vec![]), (3, vec![])] {
        bench.tell(Input::Acknowledged(rows(&[row])));
        assert_eq!(bench.published(), next);
    }
}

#[test]
fn what_is_settled_behind_a_message_that_waits_takes_one_range_also_with_other_subjects_between() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy());
    bench.deliver(consumer, &[message(3, "a")]);
    let first = bench.run();
    bench.end(&first, vec![retry()]);
    let mut durable = Cursor::at(0);
    for sequence in (5..205).step_by(2) {
        bench.deliver(consumer, &[message(sequence, "b")]);
        let run = bench.run();
        bench.apply(&run);
        let batch = bench.commit().unwrap();
        durable.raise_floor(batch.floors[0].1);
        batch.settlements.iter().for_each(|settlement| durable.settle(settlement.sequence));
        batch.stretches.iter().for_each(|(_, first, last)| durable.settle_range(*first, *last));
        assert_eq!(durable.ranges().collect::<Vec<_>>(), [(4, sequence)]);
        assert_eq!(bench.core.consumers[&consumer].cursor, durable);
    }
}

/// Messages without a key, each in a lane of its own.
fn messages(count: u64) -> Vec<Message> {
    (1..=count).map(|sequence| message(sequence, "")).collect()
}

/// One consumer, and places for so many long and so many short runs.
fn with_places(runs_max: usize, short_runs_max: usize, executors: usize) -> (Bench, ConsumerId) {
    Bench::with_consumer(Settings { runs_max, short_runs_max, executors, ..Settings::default() }, policy())
}

#[test]
fn short_runs_are_handed_over_ahead_of_need_and_long_ones_are_not() {
    let (mut bench, consumer) = with_places(2, 100, 2);
    bench.deliver(consumer, &messages(40));
    let first = bench.runs();
    assert!(first.len() == 2 && first.iter().all(|run| !run.ahead), "nothing is known of them yet: {first:?}");
    bench.busy_us = 100;
    bench.apply(&first[0]);
    let more: Vec<_> = bench.runs();
    // Half a millisecond's worth for each executor.
    let ahead: Vec<_> = more.iter().map(|run| run.ahead).collect();
    assert_eq!(ahead, [&[false][..], &[true; 10]].concat());
    bench.busy_us = 2_000_000;
    bench.apply(&first[1]);
    more.iter().take(9).for_each(|run| bench.apply(run));
    assert!(bench.runs().is_empty(), "two are out still");
    bench.apply(&more[9]);
    assert!(bench.runs().iter().all(|run| !run.ahead));
}

#[test]
fn a_run_that_comes_back_untouched_is_the_next_and_says_nothing_of_how_long_runs_take() {
    let (mut bench, consumer) = with_places(1, 2, 1);
    bench.deliver(consumer, &messages(10));
    let run = bench.run();
    bench.busy_us = 100;
    bench.apply(&run);
    let runs = bench.runs();
    assert!(runs.len() == 2 && runs[1].ahead, "{runs:?}");
    bench.busy_us = 2_000_000;
    for _ in 0..20 {
        bench.end(&runs[1], Vec::new());
        let again = bench.run();
        assert!(again.ahead && again.jobs[0].message.sequence == runs[1].jobs[0].message.sequence, "{again:?}");
    }
}

#[test]
fn short_runs_do_not_keep_all_places_from_those_that_may_be_long() {
    let (mut bench, quick) = with_places(2, 12, 2);
    bench.busy_us = 100;
    bench.deliver(quick, &messages(100));
    let mut out = VecDeque::from(bench.runs());
    bench.apply(&out.pop_front().unwrap());
    out.extend(bench.runs());
    assert_eq!(out.len(), 12);
    let other = bench.add("other", policy());
    bench.deliver(other, &messages(1));
    for _ in 0..40 {
        let run = out.pop_front().unwrap();
        if run.consumer == other {
            return;
        }
        bench.apply(&run);
        out.extend(bench.runs());
    }
    panic!("the other one had no turn");
}
