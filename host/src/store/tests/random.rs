//! Random attempts, commits, checkpoints and restarts against the model.

use pelton_core::batch::StreamIdentity;
use pelton_core::ids::{ConsumerId, IdHash};
use pelton_core::time::Now;
use proptest::prelude::*;
use tempfile::TempDir;

use super::driver::{Driver, PROCESSED_IDS_MS, Step};
use crate::store::{Opened, Settings, open};

pub(super) fn settings(directory: &TempDir) -> Settings {
    Settings { directory: directory.path().join("store"), cache_bytes: 4 << 20, processed_ids_ms: PROCESSED_IDS_MS }
}

fn reopen(driver: Driver, settings: &Settings) -> Driver {
    let (durable, now) = (driver.durable.clone(), driver.now());
    drop(driver);
    Driver::of(open(settings, now).unwrap(), durable, now.tick_ms)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn overlay_log_and_view_together_are_a_plain_map(steps in prop::collection::vec(any::<Step>(), 0..120)) {
        let directory = TempDir::new().unwrap();
        let settings = settings(&directory);
        let mut driver = Driver::new(open(&settings, Now { tick_ms: 0, wall_ms: 1_000_000 }).unwrap());
        for (number, step) in steps.into_iter().enumerate() {
            if step[0] == 255 {
                driver = reopen(driver, &settings);
                driver.check_recovered();
            } else {
                driver.step(step).unwrap();
            }
            if number % 8 == 0 {
                driver.check_reads();
            }
        }
        driver.check_reads();
        driver.commit().unwrap();
        let now = driver.now();
        driver.store.checkpointer.run(now).unwrap();
        prop_assert_eq!(driver.store.reader.overlay_bytes(), 0, "everything is in the view, the overlay must be empty");
        driver.check_reads();
        let driver = reopen(driver, &settings);
        driver.check_recovered();
        driver.check_reads();
    }
}

#[test]
fn the_log_is_trimmed_behind_the_view_and_keeps_its_last_record() {
    let directory = TempDir::new().unwrap();
    let settings = settings(&directory);
    let Opened { mut log, mut checkpointer, reader, recovered } = open(&settings, Now::default()).unwrap();
    assert_eq!(recovered.next_row.0, 1);
    for _ in 0..200 {
        log.append(&Default::default()).unwrap();
    }
    assert_eq!(checkpointer.run(Now::default()).unwrap().batches, 200);
    let trimmed: usize = (0..5).map(|_| log.append(&Default::default()).unwrap().trimmed).sum();
    assert_eq!(trimmed, 199, "the record at the view's position stays");
    drop((log, checkpointer, reader));
    let opened = open(&settings, Now::default()).unwrap();
    assert_eq!(opened.checkpointer.log_file().count(), 1);
}

#[test]
fn ids_are_hashed_apart_by_stream_and_store() {
    let stream = |name: &str, created_ns| StreamIdentity { name: name.into(), created_ns };
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (one, two) = (open(&settings(&one), Now::default()).unwrap(), open(&settings(&two), Now::default()).unwrap());
    let hashes = [
        one.reader.hash_id(&stream("orders", 1), "id"),
        one.reader.hash_id(&stream("orders", 2), "id"),
        one.reader.hash_id(&stream("order", 1), "sid"),
        two.reader.hash_id(&stream("orders", 1), "id"),
    ];
    assert_eq!(hashes.iter().collect::<std::collections::BTreeSet<_>>().len(), 4, "{hashes:?}");
    assert_eq!(one.reader.hash_id(&stream("orders", 1), "id"), hashes[0]);
}

#[test]
fn processed_ids_are_forgotten_by_running_time_only() {
    use pelton_core::batch::{Batch, Binding, Outcome, Settlement};
    use pelton_core::ids::{RowId, Version};

    let directory = TempDir::new().unwrap();
    let settings = Settings { processed_ids_ms: 1_000, ..settings(&directory) };
    let at = |tick_ms, wall_ms| Now { tick_ms, wall_ms };
    let mut store = open(&settings, at(0, 0)).unwrap();
    let consumer = ConsumerId(1);
    let binding =
        Binding { consumer, name: "c".into(), stream: StreamIdentity { name: "s".into(), created_ns: 0 }, floor: 0 };
    let mark = Some(IdHash(5));
    let outcome = Outcome::Applied {
        version: Version([0; 32]),
        mark,
        state_key: None,
        writes: Default::default(),
        first_row: RowId(1),
    };
    store.reader.apply(consumer, None, mark, &Default::default());
    let settlements = vec![Settlement { consumer, sequence: 1, released: None, outcome }];
    store.log.append(&Batch { bindings: vec![binding], settlements, ..Batch::default() }).unwrap();
    let year_ms = 365 * 24 * 3_600_000;
    for now in [at(999, 0), at(1_000, year_ms), at(1_999, 2 * year_ms)] {
        store.checkpointer.run(now).unwrap();
        assert!(store.reader.seen(consumer, IdHash(5)).unwrap(), "forgotten at {now:?}");
    }
    drop(store);
    // A restart, a year later.
    let mut store = open(&settings, at(0, 3 * year_ms)).unwrap();
    assert!(store.reader.seen(consumer, IdHash(5)).unwrap());
    store.checkpointer.run(at(1_000, 3 * year_ms)).unwrap();
    assert!(!store.reader.seen(consumer, IdHash(5)).unwrap(), "two whole generations are over");
}

#[test]
fn state_whose_time_is_over_is_deleted_from_the_view() {
    use bytes::Bytes;
    use pelton_core::batch::{Batch, Binding, Outcome, Settlement};
    use pelton_core::effects::{Space, StateValue, StateWrite, WriteSet};
    use pelton_core::ids::{RowId, Version};

    let directory = TempDir::new().unwrap();
    let mut store = open(&settings(&directory), Now::default()).unwrap();
    let consumer = ConsumerId(1);
    let binding =
        Binding { consumer, name: "c".into(), stream: StreamIdentity { name: "s".into(), created_ns: 0 }, floor: 0 };
    store.log.append(&Batch { bindings: vec![binding], ..Batch::default() }).unwrap();
    // "kept" had a time to live and was then set without one; "moved" got a later one.
    for (sequence, values) in [
        [("gone", Some(10)), ("kept", Some(10)), ("moved", Some(10))].as_slice(),
        &[("kept", None), ("moved", Some(30))],
    ]
    .into_iter()
    .enumerate()
    {
        let write = |(key, expires_at_ms): &(&str, Option<u64>)| StateWrite {
            space: Space::User,
            key: (*key).into(),
            value: Some(StateValue { bytes: Bytes::from_static(b"v"), expires_at_ms: *expires_at_ms }),
        };
        let writes = WriteSet { state: values.iter().map(write).collect(), events: vec![] };
        store.reader.apply(consumer, None, None, &writes);
        let outcome =
            Outcome::Applied { version: Version([0; 32]), mark: None, state_key: None, writes, first_row: RowId(1) };
        let settlements = vec![Settlement { consumer, sequence: sequence as u64 + 1, released: None, outcome }];
        store.log.append(&Batch { settlements, ..Batch::default() }).unwrap();
        store.checkpointer.run(Now::default()).unwrap();
    }
    let mut expired_at = |ms| store.checkpointer.run(Now { tick_ms: ms, wall_ms: ms }).unwrap().expired;
    assert_eq!([expired_at(9), expired_at(10), expired_at(29), expired_at(30), expired_at(1_000)], [0, 1, 0, 1, 0]);
}
