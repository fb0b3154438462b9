//! What operators change deep down outlasts a restart, whether it was folded before or not: the cursor's place, state, and a consumer that is gone.

use std::sync::Arc;

use bytes::Bytes;
use pelton_core::batch::{Again, Batch, Binding, Edit, Outcome, Settlement, StreamIdentity};
use pelton_core::effects::{Space, StateValue, StateWrite, WriteSet};
use pelton_core::ids::{ConsumerId, IdHash, RowId, Version};
use pelton_core::time::Now;
use tempfile::TempDir;

use super::random::settings;
use crate::store::{Opened, StatePlace, open};

const GONE: ConsumerId = ConsumerId(3);
const OTHER: ConsumerId = ConsumerId(4);

fn bind(store: &mut Opened, consumer: ConsumerId) {
    let stream = StreamIdentity { name: "s".into(), created_ns: 1 };
    let binding = Binding { consumer, name: format!("c{}", consumer.0).into(), stream, floor: 0 };
    store.log.append(&Batch { bindings: vec![binding], ..Batch::default() }).unwrap();
}

fn set(entry: &str, value: Option<&str>) -> StateWrite {
    let value = value.map(|text| StateValue { bytes: Bytes::copy_from_slice(text.as_bytes()), expires_at_ms: None });
    StateWrite { space: Space::User, key: entry.into(), value }
}

fn apply(store: &mut Opened, consumer: ConsumerId, sequence: u64, key: Option<&str>, state: Vec<StateWrite>) {
    let (mark, key) = (Some(IdHash(u128::from(sequence))), key.map(Arc::from));
    let writes = WriteSet { state, events: Vec::new() };
    store.reader.apply(consumer, key.as_ref(), mark, &writes);
    let outcome = Outcome::Applied { version: Version([1; 32]), mark, state_key: key, writes, first_row: RowId(1) };
    let settlement = Settlement { consumer, sequence, released: None, outcome };
    store.log.append(&Batch { settlements: vec![settlement], ..Batch::default() }).unwrap();
}

fn edit(store: &mut Opened, edit: Edit) {
    if let Edit::State { consumer, key, writes } = &edit {
        store.reader.apply(*consumer, key.as_ref(), None, writes);
    }
    store.log.append(&Batch { edits: vec![edit], ..Batch::default() }).unwrap();
}

/// Keys, entries and values of a consumer, read in pages of two.
fn state(store: &Opened, consumer: ConsumerId) -> Vec<String> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.reader.all_state(consumer, after.as_ref(), 2, 0).unwrap();
        assert!(page.entries.len() <= 2);
        found.extend(page.entries.iter().map(|entry| {
            let value = String::from_utf8_lossy(&entry.value.bytes).into_owned();
            format!("{}/{}={value}", entry.place.key().unwrap_or("-"), entry.place.entry())
        }));
        let Some(next) = page.next else { return found };
        after = Some(next);
    }
}

/// The same, now, after a checkpoint, and after a restart.
fn always(directory: &TempDir, mut store: Opened, look: impl Fn(&Opened)) {
    look(&store);
    store.checkpointer.run(Now::default()).unwrap();
    look(&store);
    drop(store);
    look(&open(&settings(directory), Now::default()).unwrap());
}

#[test]
fn state_of_all_keys_is_listed_in_order_with_what_was_edited() {
    let directory = TempDir::new().unwrap();
    let mut store = open(&settings(&directory), Now::default()).unwrap();
    bind(&mut store, GONE);
    bind(&mut store, OTHER);
    apply(&mut store, GONE, 1, Some("bb"), vec![set("n", Some("1")), set("m", Some("2"))]);
    apply(&mut store, GONE, 2, Some("c"), vec![set("n", Some("3"))]);
    apply(&mut store, OTHER, 1, Some("a"), vec![set("n", Some("9"))]);
    store.checkpointer.run(Now::default()).unwrap();
    apply(&mut store, GONE, 3, None, vec![set("shared", Some("4"))]);
    let writes = |state| Arc::new(WriteSet { state, events: Vec::new() });
    let change = writes(vec![set("m", None), set("n", Some("5")), set("o", Some("6"))]);
    edit(&mut store, Edit::State { consumer: GONE, key: Some("bb".into()), writes: change });
    always(&directory, store, |store| {
        assert_eq!(state(store, GONE), ["-/shared=4", "c/n=3", "bb/n=5", "bb/o=6"]);
        let place = StatePlace::new(Some("bb"), "n");
        assert_eq!(store.reader.state_entry(GONE, &place, 0).unwrap().unwrap().bytes, "5");
    });
}

#[test]
fn a_cursor_that_was_put_back_stays_there_with_what_comes_again() {
    let directory = TempDir::new().unwrap();
    let mut store = open(&settings(&directory), Now::default()).unwrap();
    bind(&mut store, GONE);
    for sequence in [1, 2, 3, 6] {
        apply(&mut store, GONE, sequence, None, Vec::new());
    }
    let again = Again { number: 1, after: 1, until: 6 };
    edit(&mut store, Edit::MoveCursor { consumer: GONE, after: 1, again: Some(again) });
    apply(&mut store, GONE, 2, None, Vec::new());
    drop(store);
    let mut store = open(&settings(&directory), Now::default()).unwrap();
    let found = &store.recovered.consumers[0];
    let ranges: Vec<_> = found.cursor.ranges().collect();
    assert_eq!((found.cursor.floor(), ranges, found.again), (2, vec![], again));
    // Forward, what was settled above stays.
    apply(&mut store, GONE, 6, None, Vec::new());
    edit(&mut store, Edit::MoveCursor { consumer: GONE, after: 4, again: None });
    drop(store);
    let store = open(&settings(&directory), Now::default()).unwrap();
    let found = &store.recovered.consumers[0];
    let ranges: Vec<_> = found.cursor.ranges().collect();
    assert_eq!((found.cursor.floor(), ranges, found.again), (4, vec![(6, 6)], again));
}

#[test]
fn nothing_is_left_of_a_consumer_that_was_forgotten_and_nothing_else_is_touched() {
    let directory = TempDir::new().unwrap();
    let mut store = open(&settings(&directory), Now::default()).unwrap();
    for consumer in [GONE, OTHER] {
        bind(&mut store, consumer);
        apply(&mut store, consumer, 1, Some("a"), vec![set("n", Some("1"))]);
    }
    store.checkpointer.run(Now::default()).unwrap();
    for consumer in [GONE, OTHER] {
        apply(&mut store, consumer, 2, Some("b"), vec![set("n", Some("2"))]);
    }
    edit(&mut store, Edit::Forget { consumer: GONE });
    store.checkpointer.run(Now::default()).unwrap();
    always(&directory, store, |store| {
        assert_eq!(state(store, GONE), Vec::<String>::new());
        assert_eq!(state(store, OTHER), ["a/n=1", "b/n=2"]);
        for sequence in [1, 2] {
            assert!(!store.reader.seen(GONE, IdHash(sequence)).unwrap());
            assert!(store.reader.seen(OTHER, IdHash(sequence)).unwrap());
        }
    });
    let store = open(&settings(&directory), Now::default()).unwrap();
    let known: Vec<_> = store.recovered.consumers.iter().map(|consumer| consumer.id).collect();
    assert_eq!((known, store.recovered.next_consumer), (vec![OTHER], ConsumerId(5)));
}

#[test]
fn a_number_that_was_given_is_not_given_again() {
    let directory = TempDir::new().unwrap();
    let mut store = open(&settings(&directory), Now::default()).unwrap();
    bind(&mut store, GONE);
    bind(&mut store, OTHER);
    edit(&mut store, Edit::Forget { consumer: OTHER });
    drop(store);
    let store = open(&settings(&directory), Now::default()).unwrap();
    assert_eq!(store.recovered.next_consumer, ConsumerId(5));
}
