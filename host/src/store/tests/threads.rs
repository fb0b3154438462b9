//! Readers, the committer and the checkpointer at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use bytes::Bytes;
use pelton_core::batch::{Batch, Binding, Edit, Outcome, Settlement, StreamIdentity};
use pelton_core::effects::{Scope, Space, StateValue, StateWrite, WriteSet};
use pelton_core::ids::{ConsumerId, IdHash, ParkId, RowId, Version};
use pelton_core::parked::{ParkCause, ParkLane, Parked};
use pelton_core::time::Now;
use pelton_core::transaction::StateView;
use tempfile::TempDir;

use super::driver::message;
use super::random::settings;
use crate::store::{Checkpointer, Log, Opened, ParkedQuery, Reader, open};

const CONSUMER: ConsumerId = ConsumerId(1);
const WRITES: u64 = 400;

/// A new store that knows the consumer.
fn open_with_consumer(directory: &TempDir) -> Opened {
    let mut opened = open(&settings(directory), Now::default()).unwrap();
    let stream = StreamIdentity { name: "s".into(), created_ns: 0 };
    let binding = Binding { consumer: CONSUMER, name: "c".into(), stream, floor: 0 };
    opened.log.append(&Batch { bindings: vec![binding], ..Batch::default() }).unwrap();
    opened
}

fn settlement(sequence: u64, writes: WriteSet) -> Settlement {
    let outcome = Outcome::Applied {
        version: Version([0; 32]),
        mark: Some(IdHash(sequence.into())),
        state_key: Some("key".into()),
        writes,
        first_row: RowId(1),
    };
    Settlement { consumer: CONSUMER, sequence, released: None, outcome }
}

/// Counts up in one entry, an append each.
fn write_up(reader: &Reader, log: &mut Log, newest: &AtomicU64) {
    for sequence in 1..=WRITES {
        let value = StateValue { bytes: Bytes::copy_from_slice(&sequence.to_be_bytes()), expires_at_ms: None };
        let write = StateWrite { space: Space::User, key: "count".into(), value: Some(value) };
        let writes = WriteSet { state: vec![write], events: vec![] };
        reader.apply(CONSUMER, Some(&Arc::from("key")), Some(IdHash(sequence.into())), &writes);
        newest.store(sequence, Ordering::SeqCst);
        log.append(&Batch { settlements: vec![settlement(sequence, writes)], ..Batch::default() }).unwrap();
    }
}

fn check_until(reader: &Reader, newest: &AtomicU64, done: &AtomicBool) -> u64 {
    let scope = Scope { consumer: CONSUMER, key: Some("key".into()) };
    let mut checked = 0;
    while !done.load(Ordering::SeqCst) {
        let at_least = newest.load(Ordering::SeqCst);
        let value = reader.get(&scope, Space::User, "count", 0).unwrap();
        let value = value.map_or(0, |bytes| u64::from_be_bytes(bytes.as_ref().try_into().unwrap()));
        assert!(value >= at_least, "read {value} after {at_least} was applied");
        let listed = reader.range(&scope, "", std::ops::Bound::Unbounded, 10, 0).unwrap();
        // The first write may come between the two reads.
        assert!(value == 0 || listed.len() == 1, "listed {listed:?} after {value} was read");
        assert!(
            at_least == 0 || reader.seen(CONSUMER, IdHash(at_least.into())).unwrap(),
            "mark {at_least} was not there"
        );
        checked += 1;
    }
    checked
}

fn checkpoint_until(checkpointer: &mut Checkpointer, done: &AtomicBool) -> usize {
    let mut transactions = 0;
    while !done.load(Ordering::SeqCst) {
        transactions += checkpointer.run(Now::default()).unwrap().transactions;
    }
    transactions
}

#[test]
fn a_reader_never_misses_what_a_checkpoint_moves_from_the_overlay_to_the_view() {
    let directory = TempDir::new().unwrap();
    let Opened { reader, mut log, mut checkpointer, .. } = open_with_consumer(&directory);
    let (newest, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let (checked, transactions) = thread::scope(|scope| {
        let readers: Vec<_> = (0..2).map(|_| scope.spawn(|| check_until(&reader, &newest, &done))).collect();
        let folding = scope.spawn(|| checkpoint_until(&mut checkpointer, &done));
        write_up(&reader, &mut log, &newest);
        done.store(true, Ordering::SeqCst);
        (readers.into_iter().map(|reader| reader.join().unwrap()).sum::<u64>(), folding.join().unwrap())
    });
    println!("{checked} checks over {transactions} checkpoints");
    assert!(checked > 0 && transactions > 1);
    checkpointer.run(Now::default()).unwrap();
    assert_eq!(reader.overlay_bytes(), 0);
}

#[test]
fn a_checkpoint_ends_while_more_comes_in() {
    let directory = TempDir::new().unwrap();
    let Opened { reader, mut log, mut checkpointer, .. } = open_with_consumer(&directory);
    let (newest, done) = (AtomicU64::new(0), AtomicBool::new(false));
    write_up(&reader, &mut log, &newest);
    let folded = thread::scope(|scope| {
        let appending = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                log.append(&Batch::default()).unwrap();
            }
        });
        let folded = checkpointer.run(Now::default());
        done.store(true, Ordering::SeqCst);
        appending.join().unwrap();
        folded.unwrap()
    });
    // What was there when it began is less than a transaction takes.
    assert_eq!(folded.transactions, 1, "it went on for what came meanwhile");
}

/// Parks a message for each number, and releases each but the last few again, an append each. What is in `parked` was told to the reader.
fn park_up(reader: &Reader, log: &mut Log, parked: &AtomicU64, released: &AtomicU64) {
    let row = |id: u64| {
        Arc::new(Parked {
            id: ParkId(id),
            message: Arc::new(message(id, id, Some("key"), None)),
            cause: ParkCause::Behind,
            until_ms: None,
            parked_at_ms: id,
            releases: 0,
            attempts: 0,
            failures: 0,
            history: vec![],
        })
    };
    for id in 1..=WRITES {
        reader.note_parked(CONSUMER, &row(id));
        parked.store(id, Ordering::SeqCst);
        let parked = Settlement { consumer: CONSUMER, sequence: id, released: None, outcome: Outcome::Parked(row(id)) };
        let mut batch = Batch { settlements: vec![parked], ..Batch::default() };
        if let Some(id) = id.checked_sub(KEPT).filter(|id| *id > 0) {
            let place = row(id).place();
            // Told before it is so: a reader may miss it from here on.
            released.store(id, Ordering::SeqCst);
            reader.note_unparked(CONSUMER, &place);
            batch.edits = vec![Edit::RemoveParked { consumer: CONSUMER, place }];
        }
        log.append(&batch).unwrap();
    }
}

/// Parked messages that are kept.
const KEPT: u64 = 150;

fn check_parked_until(reader: &Reader, parked: &AtomicU64, released: &AtomicU64, done: &AtomicBool) -> u64 {
    let lane = ParkLane::Key("key".into());
    let mut checked = 0;
    while !done.load(Ordering::SeqCst) {
        let (released_before, parked_before) = (released.load(Ordering::SeqCst), parked.load(Ordering::SeqCst));
        let rows = reader.fetch_parked(CONSUMER, &lane, None, usize::MAX, usize::MAX).unwrap();
        let released_after = released.load(Ordering::SeqCst);
        let ids: Vec<_> = rows.iter().map(|row| row.id.0).collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
        let certain = released_after + 1..=parked_before;
        let found = ids.iter().filter(|id| certain.contains(id)).count() as u64;
        assert_eq!(found, certain.clone().count() as u64, "{certain:?} are parked, found {ids:?}");
        // The last that was released may be on its way.
        assert!(ids.first().is_none_or(|first| *first >= released_before), "{released_before} was released: {ids:?}");
        let one = reader.parked_row(CONSUMER, ParkId(parked_before)).unwrap();
        assert!(parked_before == 0 || released.load(Ordering::SeqCst) >= parked_before || one.is_some());
        checked += 1;
    }
    checked
}

#[test]
fn a_reader_never_misses_a_parked_message_that_a_checkpoint_moves() {
    let directory = TempDir::new().unwrap();
    let Opened { reader, mut log, mut checkpointer, .. } = open_with_consumer(&directory);
    let (parked, released, done) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let (checked, transactions) = thread::scope(|scope| {
        let readers: Vec<_> =
            (0..2).map(|_| scope.spawn(|| check_parked_until(&reader, &parked, &released, &done))).collect();
        let folding = scope.spawn(|| checkpoint_until(&mut checkpointer, &done));
        park_up(&reader, &mut log, &parked, &released);
        done.store(true, Ordering::SeqCst);
        (readers.into_iter().map(|reader| reader.join().unwrap()).sum::<u64>(), folding.join().unwrap())
    });
    println!("{checked} checks over {transactions} checkpoints");
    assert!(checked > 0 && transactions > 1);
    checkpointer.run(Now::default()).unwrap();
    assert_eq!(reader.overlay_bytes(), 0);
    let all = ParkedQuery { limit: usize::MAX, ..ParkedQuery::default() };
    assert_eq!(reader.parked(&all).unwrap().len() as u64, KEPT);
}
