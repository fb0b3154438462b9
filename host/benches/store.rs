//! What the store costs: `cargo bench --package pelton --bench store`.
//!
//! Batches carry what order-counter leaves of a message: 100 bytes of state, a mark, one event. They are appended to a real store in a temporary directory, so that
//! figures with a commit in them are the disk's as well.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark ends by panicking")]

mod bed;

use std::sync::Arc;

use bytes::Bytes;
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use pelton::store::Opened;
use pelton_core::batch::{Batch, Outcome, Settlement};
use pelton_core::effects::{Event, Space, StateValue, StateWrite, WriteSet};
use pelton_core::ids::{IdHash, RowId, Version};
use tempfile::TempDir;

use self::bed::{CONSUMER, WALL_MS, now};

const KEYS: u64 = 1_000;
/// Messages that are folded by one checkpoint, and marks that are looked up among.
const MANY: u64 = 16_384;
const BATCH: u64 = 1_024;

fn main() {
    divan::main();
}

/// A store, and the number of the next message.
struct Store {
    opened: Opened,
    next: u64,
    _directory: TempDir,
}

/// As random as real ids are: neighbours lie far apart.
fn mark(n: u64) -> IdHash {
    IdHash(u128::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835))
}

fn settlement(n: u64) -> Settlement {
    let key: Arc<str> = format!("k{}", n % KEYS).into();
    let value = StateValue { bytes: Bytes::from(vec![b'x'; 100]), expires_at_ms: None };
    let event = Event {
        id: format!("bench:BENCH-0:1:{n}:0").into(),
        subject: format!("out.bench0.{key}").into(),
        key: Some(Arc::clone(&key)),
        headers: Vec::new(),
        payload: Bytes::from(vec![b'x'; 110]),
    };
    let state = vec![StateWrite { space: Space::User, key: "counter".into(), value: Some(value) }];
    Settlement {
        consumer: CONSUMER,
        sequence: n,
        released: None,
        outcome: Outcome::Applied {
            version: Version([1; 32]),
            mark: Some(mark(n)),
            state_key: Some(key),
            writes: WriteSet { state, events: vec![Arc::new(event)] },
            first_row: RowId(n),
        },
    }
}

/// A batch of the messages from `first` on; the events of those before it are published.
fn batch(first: u64, messages: u64) -> Batch {
    Batch {
        wall_ms: WALL_MS,
        settlements: (first..first + messages).map(settlement).collect(),
        floors: vec![(CONSUMER, first + messages - 1)],
        published: (first.saturating_sub(messages).max(1)..first).map(RowId).collect(),
        ..Batch::default()
    }
}

impl Store {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        Self { opened: bed::new_in(&directory).unwrap(), next: 1, _directory: directory }
    }

    /// Commits the next messages.
    fn commit(&mut self, messages: u64) {
        let batch = batch(self.next, messages);
        self.next += messages;
        bed::commit(&mut self.opened, &batch).unwrap();
    }

    /// A store with so many messages in its log.
    fn with_log(messages: u64) -> Self {
        let mut store = Self::new();
        while store.next <= messages {
            store.commit(BATCH);
        }
        store
    }

    /// The same with all of it in the view.
    fn with_view(messages: u64) -> Self {
        let mut store = Self::with_log(messages);
        store.opened.checkpointer.run(now()).unwrap();
        store
    }
}

#[divan::bench(args = [1, 64, 1_024])]
fn batch_encoding(bencher: Bencher, messages: u64) {
    let batch = batch(1_000_000, messages);
    let mut buffer = Vec::new();
    bencher.counter(ItemsCount::new(messages)).bench_local(|| {
        let mut taken = std::mem::take(&mut buffer);
        taken.clear();
        buffer = pelton::store::encode_batch(black_box(&batch), taken).unwrap();
        buffer.len()
    });
}

#[divan::bench(args = [1, 64, 1_024], sample_count = 30, sample_size = 1)]
fn log_append(bencher: Bencher, messages: u64) {
    let mut store = Store::new();
    bencher.counter(ItemsCount::new(messages)).bench_local(|| store.commit(messages));
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn checkpoint(bencher: Bencher) {
    bencher.counter(ItemsCount::new(MANY)).with_inputs(|| Store::with_log(MANY)).bench_local_values(|mut store| {
        store.opened.checkpointer.run(now()).unwrap();
        store
    });
}

/// Ids that were applied and lie in the view.
#[divan::bench]
fn processed_id_known(bencher: Bencher) {
    let store = Store::with_view(MANY);
    let mut n = 0;
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        n = n % MANY + 1;
        assert!(store.opened.reader.seen(CONSUMER, mark(n)).unwrap());
    });
}

/// Ids that are new, as most are.
#[divan::bench]
fn processed_id_new(bencher: Bencher) {
    let store = Store::with_view(MANY);
    let mut n = 10 * MANY;
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        n += 1;
        assert!(!store.opened.reader.seen(CONSUMER, mark(n)).unwrap());
    });
}
