//! What the random tests can't show of parked messages: what reaches the view, what outlasts a stream, and whose cursor moves.

use std::sync::Arc;

use pelton_core::batch::{Batch, Binding, Edit, Hold, HoldBy, Outcome, Settlement, StreamIdentity};
use pelton_core::ids::{ConsumerId, ParkId};
use pelton_core::parked::{ParkCause, ParkLane, Parked};
use pelton_core::time::Now;
use tempfile::TempDir;

use super::driver::{dead_letter, message};
use super::random::settings;
use crate::store::{DeadLetterQuery, Opened, ParkedQuery, open};

const CONSUMER: ConsumerId = ConsumerId(3);

fn binding(created_ns: i64, floor: u64) -> Batch {
    let stream = StreamIdentity { name: "s".into(), created_ns };
    Batch { bindings: vec![Binding { consumer: CONSUMER, name: "c".into(), stream, floor }], ..Batch::default() }
}

fn row(id: u64, cause: ParkCause) -> Arc<Parked> {
    Arc::new(Parked {
        id: ParkId(id),
        message: Arc::new(message(id, 100 + id, Some("key"), None)),
        cause,
        until_ms: Some(id),
        parked_at_ms: id,
        releases: 0,
        attempts: 1,
        failures: 1,
        history: vec![],
    })
}

fn park(store: &mut Opened, row: &Arc<Parked>) {
    store.reader.note_parked(CONSUMER, row);
    let outcome = Outcome::Parked(row.clone());
    let parked = Settlement { consumer: CONSUMER, sequence: row.message.sequence, released: None, outcome };
    store.log.append(&Batch { settlements: vec![parked], ..Batch::default() }).unwrap();
}

fn release(store: &mut Opened, row: &Arc<Parked>) {
    let place = row.place();
    store.reader.note_unparked(CONSUMER, &place);
    let sequence = row.message.sequence;
    let released = Settlement { consumer: CONSUMER, sequence, released: Some(place), outcome: Outcome::Duplicate };
    store.log.append(&Batch { settlements: vec![released], ..Batch::default() }).unwrap();
}

#[test]
fn what_was_parked_and_released_between_two_checkpoints_is_never_written_to_the_view() {
    let directory = TempDir::new().unwrap();
    let mut store = open(&settings(&directory), Now::default()).unwrap();
    store.log.append(&binding(0, 0)).unwrap();
    for id in 1..=100 {
        let row = row(id, ParkCause::Behind);
        park(&mut store, &row);
        if id != 50 {
            release(&mut store, &row);
        }
    }
    let changes =
        store.checkpointer.fold_only(|changes| changes.parked.iter().filter(|change| change.row.is_some()).count());
    assert_eq!(changes, 1, "rows that a checkpoint would write");
    store.checkpointer.run(Now::default()).unwrap();
    assert_eq!(store.reader.parked(&ParkedQuery { limit: 10, ..ParkedQuery::default() }).unwrap().len(), 1);
    assert_eq!(store.reader.overlay_bytes(), 0);
}

#[test]
fn a_dead_letter_that_was_replayed_before_the_next_checkpoint_is_never_written_to_the_view() {
    let directory = TempDir::new().unwrap();
    let mut store = open(&settings(&directory), Now::default()).unwrap();
    store.log.append(&binding(0, 0)).unwrap();
    for sequence in 1..=3 {
        let letter = Arc::new(dead_letter(Arc::new(message(sequence, sequence, Some("key"), None))));
        store.reader.note_dead_letter(CONSUMER, sequence, &letter);
        let outcome = Outcome::DeadLettered { letter, copy: None };
        let given_up = Settlement { consumer: CONSUMER, sequence, released: None, outcome };
        store.log.append(&Batch { settlements: vec![given_up], ..Batch::default() }).unwrap();
    }
    for sequence in 1..=2 {
        store.reader.note_dead_letter_removed(CONSUMER, sequence, sequence);
        let edit = Edit::RemoveDeadLetter { consumer: CONSUMER, sequence, published_at_ms: sequence };
        store.log.append(&Batch { edits: vec![edit], ..Batch::default() }).unwrap();
    }
    let written = store
        .checkpointer
        .fold_only(|changes| changes.dead_letters.iter().filter(|change| change.letter.is_some()).count());
    assert_eq!(written, 1, "dead letters that a checkpoint would write");
    store.checkpointer.run(Now::default()).unwrap();
    assert_eq!(
        store.reader.dead_letters(&DeadLetterQuery { limit: 9, ..DeadLetterQuery::default() }).unwrap().len(),
        1
    );
    assert_eq!(store.reader.overlay_bytes(), 0);
}

#[test]
fn a_new_stream_takes_neither_holds_nor_parked_messages_and_their_outcomes_leave_its_cursor_alone() {
    let directory = TempDir::new().unwrap();
    let mut store = open(&settings(&directory), Now::default()).unwrap();
    store.log.append(&binding(1, 0)).unwrap();
    let hold = Hold { since_ms: 5, reason: "maintenance".into() };
    let edit = Edit::Hold { consumer: CONSUMER, by: HoldBy::Operator, hold: Some(hold.clone()) };
    store.log.append(&Batch { edits: vec![edit], ..Batch::default() }).unwrap();
    let rows = [row(1, ParkCause::Exhausted), row(2, ParkCause::Behind)];
    rows.iter().for_each(|row| park(&mut store, row));
    store.log.append(&binding(2, 0)).unwrap();
    release(&mut store, &rows[0]);
    drop(store);
    let store = open(&settings(&directory), Now::default()).unwrap();
    let consumer = &store.recovered.consumers[0];
    assert_eq!(consumer.holds, [(HoldBy::Operator, hold)]);
    assert_eq!((consumer.cursor.floor(), consumer.cursor.ranges().count()), (0, 0), "{:?}", consumer.cursor);
    let lane = ParkLane::Key("key".into());
    assert_eq!(store.reader.fetch_parked(CONSUMER, &lane, None, 10, usize::MAX).unwrap(), [rows[1].clone()]);
    assert_eq!(store.recovered.parked.len(), 1);
    assert_eq!((store.recovered.parked[0].rows, &store.recovered.parked[0].holding), (1, &None));
    assert_eq!(store.recovered.next_park, ParkId(3), "the number of a row that is gone is not given again");
}
