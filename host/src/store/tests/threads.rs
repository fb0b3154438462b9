//! Readers, the committer and the checkpointer at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use bytes::Bytes;
use pelton_core::batch::{Batch, Binding, Outcome, Settlement, StreamIdentity};
use pelton_core::effects::{Scope, Space, StateValue, StateWrite, WriteSet};
use pelton_core::ids::{ConsumerId, IdHash, RowId, Version};
use pelton_core::time::Now;
use pelton_core::transaction::StateView;
use tempfile::TempDir;

use super::random::settings;
use crate::store::{Checkpointer, Log, Opened, Reader, open};

const CONSUMER: ConsumerId = ConsumerId(1);
const WRITES: u64 = 400;

fn settlement(sequence: u64, writes: WriteSet) -> Settlement {
    let outcome = Outcome::Applied {
        version: Version([0; 32]),
        mark: Some(IdHash(sequence.into())),
        state_key: Some("key".into()),
        writes,
        first_row: RowId(1),
    };
    Settlement { consumer: CONSUMER, sequence, outcome }
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
    let Opened { reader, mut log, mut checkpointer, .. } = open(&settings(&directory), Now::default()).unwrap();
    let stream = StreamIdentity { name: "s".into(), created_ns: 0 };
    let binding = Binding { consumer: CONSUMER, name: "c".into(), stream, floor: 0 };
    log.append(&Batch { bindings: vec![binding], ..Batch::default() }).unwrap();
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
