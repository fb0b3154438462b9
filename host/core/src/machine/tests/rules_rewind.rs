//! Rules of what operators change deep down: the cursor's place, state, and a consumer that is gone.

use std::sync::Arc;

use super::bench::*;
use crate::batch::{Again, Edit};
use crate::effects::WriteSet;
use crate::machine::{Action, Expected, Input, Operation, OperationRefused, Settings, Start};

fn edits(bench: &mut Bench) -> Vec<Edit> {
    bench.commit().map(|batch| batch.edits.clone()).unwrap_or_default()
}

/// All that is under way becomes durable.
fn commit_all(bench: &mut Bench) {
    while bench.commit().is_some() {}
}

fn back(after: u64) -> Operation {
    Operation::MoveCursor { after, skip: false }
}

fn skip(after: u64) -> Operation {
    Operation::MoveCursor { after, skip: true }
}

fn edit(key: Option<&str>) -> Operation {
    let writes = Arc::new(WriteSet::default());
    Operation::EditState { key: key.map(Arc::from), writes, expected: vec![Expected::Anything] }
}

#[test]
fn the_cursor_moves_only_while_nothing_is_under_way_and_the_stretch_comes_again() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy());
    bench.deliver(consumer, &[marked(1, "a", 1), marked(2, "a", 2), marked(3, "b", 3), message(4, "c")]);
    let runs = bench.runs();
    bench.apply(&runs[0]);
    bench.apply(&runs[1]);
    commit_all(&mut bench);
    bench.positions();
    bench.operate(consumer, Operation::Suspend).unwrap();
    assert_eq!(bench.operate(consumer, back(1)), Err(OperationRefused::BeingHandled), "a run is out");
    // A start that comes in between waits for the end of the suspension.
    bench.tell(Input::Start { consumer, policy: Box::new(policy()), start: Start::All });
    assert!(bench.positions().is_empty() && bench.core.status().consumers[0].phase == "suspended");
    bench.apply(&runs[2]);
    assert_eq!(bench.operate(consumer, back(1)), Err(OperationRefused::BeingHandled), "its outcome is not durable");
    commit_all(&mut bench);
    bench.operate(consumer, back(1)).unwrap();
    let again = Again { number: 1, after: 1, until: 4 };
    assert_eq!(edits(&mut bench), [Edit::MoveCursor { consumer, after: 1, again: Some(again) }]);
    bench.operate(consumer, Operation::GoOn).unwrap();
    assert_eq!(bench.positions(), [1]);
    bench.positioned(consumer, "S", 1, 9);
    bench.deliver(consumer, &[marked(2, "a", 2), marked(3, "b", 3), message(4, "c"), marked(5, "d", 5)]);
    let told: Vec<_> = bench.runs().iter().map(|run| (run.jobs[0].message.sequence, run.jobs[0].again)).collect();
    assert_eq!(told, [(2, 1), (3, 1), (4, 1), (5, 0)], "what was never handled looks at all ids");
}

#[test]
fn a_second_rewind_has_a_number_of_its_own_and_covers_what_is_left_of_the_first() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy());
    bench.deliver(consumer, &(1..=6).map(|n| message(n, "a")).collect::<Vec<_>>());
    let run = bench.run();
    bench.apply(&run);
    bench.commit();
    for after in [4, 2] {
        bench.operate(consumer, Operation::Suspend).unwrap();
        if after == 2 {
            bench.operate(consumer, skip(6)).unwrap();
        }
        bench.operate(consumer, back(after)).unwrap();
        bench.operate(consumer, Operation::GoOn).unwrap();
        bench.commit();
        bench.positioned(consumer, "S", 1, 9);
    }
    let known = bench.core.status().consumers[0].again;
    assert_eq!(known, Some(Again { number: 2, after: 2, until: 6 }));
}

#[test]
fn a_skip_leaves_what_lies_between_and_keeps_what_was_settled_above() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy());
    bench.operate(consumer, Operation::Suspend).unwrap();
    assert_eq!(bench.operate(consumer, back(5)), Err(OperationRefused::NothingToMove));
    bench.operate(consumer, skip(5)).unwrap();
    assert_eq!(bench.operate(consumer, skip(5)), Err(OperationRefused::NothingToMove));
    assert_eq!(edits(&mut bench), [Edit::MoveCursor { consumer, after: 5, again: None }]);
    bench.positions();
    bench.operate(consumer, Operation::GoOn).unwrap();
    assert_eq!(bench.positions(), [5]);
}

#[test]
fn a_consumer_that_was_stopped_while_suspended_stays_stopped() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy());
    bench.operate(consumer, Operation::Suspend).unwrap();
    bench.tell(Input::Stop { consumer });
    assert_eq!(bench.stopped(), 1);
    bench.positions();
    bench.operate(consumer, Operation::GoOn).unwrap();
    assert!(bench.positions().is_empty());
}

#[test]
fn state_is_edited_between_two_attempts_of_its_key_and_in_their_order() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy());
    bench.deliver(consumer, &[message(1, "a"), message(2, "b")]);
    let runs = bench.runs();
    assert_eq!(bench.operate(consumer, edit(Some("a"))), Err(OperationRefused::BeingHandled));
    assert_eq!(bench.operate(consumer, edit(None)), Err(OperationRefused::BeingHandled), "keys may share that");
    bench.operate(consumer, edit(Some("c"))).unwrap();
    let seen = bench.take(|action| matches!(action, Action::StateEdited { .. }).then_some(()));
    assert_eq!(seen.len(), 1, "whoever reads sees it at once");
    assert_eq!(edits(&mut bench).len(), 1);
    bench.apply(&runs[0]);
    bench.operate(consumer, edit(Some("a"))).unwrap();
    // The attempt's outcome goes first; an edit that comes after it is in the record behind.
    let first = bench.commit().unwrap();
    assert_eq!((outcomes(&first), first.edits.len()), (vec![(1, "applied")], 0));
    assert_eq!(edits(&mut bench).len(), 1);
}

#[test]
fn only_a_consumer_that_stands_still_is_forgotten_and_its_number_is_not_given_again() {
    let (mut bench, consumer) = Bench::with_consumer(Settings::default(), policy());
    assert_eq!(bench.operate(consumer, Operation::Forget), Err(OperationRefused::Deployed));
    bench.tell(Input::Stop { consumer });
    assert_eq!(bench.stopped(), 1);
    bench.operate(consumer, Operation::Forget).unwrap();
    assert_eq!(edits(&mut bench), [Edit::Forget { consumer }]);
    assert!(bench.core.status().consumers.is_empty());
    assert_eq!(bench.operate(consumer, Operation::Forget), Err(OperationRefused::UnknownConsumer));
    assert_ne!(bench.core.register("c"), consumer);
}
