//! The store that benchmarks measure: a real one in a temporary directory, with one consumer.

use anyhow::Result;
use pelton::store::{Opened, Settings, open};
use pelton_core::batch::{Batch, Binding, Outcome, StreamIdentity};
use pelton_core::ids::ConsumerId;
use pelton_core::time::Now;
use tempfile::TempDir;

pub(crate) const CONSUMER: ConsumerId = ConsumerId(1);
/// Milliseconds since 1970, for all batches.
pub(crate) const WALL_MS: u64 = 1_000_000;
/// That of a host that is not told otherwise.
const CACHE_BYTES: usize = 64 << 20;

/// The time of all checkpoints.
pub(crate) fn now() -> Now {
    Now { tick_ms: 1, wall_ms: WALL_MS }
}

/// Opens the store in a directory; makes one if there is none.
pub(crate) fn open_in(directory: &TempDir) -> Result<Opened> {
    let settings = Settings {
        directory: directory.path().to_path_buf(),
        cache_bytes: CACHE_BYTES,
        processed_ids_ms: 24 * 3_600_000,
    };
    Ok(open(&settings, now())?)
}

/// A new store, in which the consumer has begun to read a stream.
pub(crate) fn new_in(directory: &TempDir) -> Result<Opened> {
    let mut opened = open_in(directory)?;
    let stream = StreamIdentity { name: "BENCH-0".into(), created_ns: 1 };
    let binding = Binding { consumer: CONSUMER, name: "bench".into(), stream, floor: 0 };
    opened.log.append(&Batch { wall_ms: WALL_MS, bindings: vec![binding], ..Batch::default() })?;
    Ok(opened)
}

/// Commits a batch whose messages were executed: as executors leave it, it is in the overlay first.
pub(crate) fn commit(store: &mut Opened, batch: &Batch) -> Result<()> {
    for settlement in &batch.settlements {
        if let Outcome::Applied { mark, state_key, writes, .. } = &settlement.outcome {
            store.reader.apply(CONSUMER, state_key.as_ref(), *mark, writes);
        }
    }
    store.log.append(batch)?;
    Ok(())
}
