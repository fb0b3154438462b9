//! What processed ids cost when there are many: `cargo bench --package pelton --bench ids -- [IDS]`. One line of JSON comes out; `cargo xtask bench ids` takes it
//! from there.
//!
//! A real store in a temporary directory is given messages that leave nothing but their id, and a checkpoint after as many as one folds under load. Ids are hashes: in
//! whatever order they come, neighbours in the store came at different times.

#![allow(missing_docs, reason = "a program of its own")]

mod bed;
mod process;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use pelton::store::Opened;
use pelton_core::batch::{Batch, Outcome, Settlement};
use pelton_core::effects::WriteSet;
use pelton_core::ids::{IdHash, RowId, Version};
use tempfile::TempDir;

use self::bed::{CONSUMER, WALL_MS, now};
use self::process::{arguments, cpu_seconds};

const IDS: u64 = 10_000_000;
/// Messages of a batch, and of a checkpoint.
const BATCH: u64 = 4_096;
const CHECKPOINT: u64 = 16 * BATCH;
/// Checkpoints that are measured when the ids are there: enough for merges of several sizes.
const MEASURED: u64 = 16;
const LOOKUPS: u64 = 200_000;

/// Figures by name; the last word of a name is its unit.
type Figures = BTreeMap<&'static str, f64>;

/// A store that ids are written to.
struct Store {
    opened: Opened,
    /// The number of the next message.
    next: u64,
    /// The longest checkpoint so far.
    longest_ms: f64,
}

fn mark(n: u64) -> IdHash {
    let high = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    IdHash(u128::from(high ^ (high >> 29)) << 64 | u128::from(n))
}

fn settlement(n: u64) -> Settlement {
    let outcome = Outcome::Applied {
        version: Version([1; 32]),
        mark: Some(mark(n)),
        state_key: None,
        writes: WriteSet::default(),
        first_row: RowId(1),
    };
    Settlement { consumer: CONSUMER, sequence: n, released: None, outcome }
}

impl Store {
    fn new(directory: &TempDir) -> Result<Self> {
        Ok(Self { opened: bed::new_in(directory)?, next: 1, longest_ms: 0.0 })
    }

    /// Appends as many as a checkpoint folds, and folds them.
    fn add(&mut self) -> Result<()> {
        for _ in 0..CHECKPOINT / BATCH {
            let batch = Batch {
                wall_ms: WALL_MS,
                settlements: (self.next..self.next + BATCH).map(settlement).collect(),
                floors: vec![(CONSUMER, self.next + BATCH - 1)],
                ..Batch::default()
            };
            self.next += BATCH;
            bed::commit(&mut self.opened, &batch)?;
        }
        let began = Instant::now();
        self.opened.checkpointer.run(now())?;
        self.longest_ms = self.longest_ms.max(began.elapsed().as_secs_f64() * 1e3);
        Ok(())
    }

    /// What an id costs from the batch to the view, and what it costs to look one up, with those that there are by now.
    fn measure(&mut self) -> Result<Figures> {
        let (cpu, written) = (cpu_seconds()?, written_bytes()?);
        for _ in 0..MEASURED {
            self.add()?;
        }
        let added = (MEASURED * CHECKPOINT) as f64;
        Ok(Figures::from([
            ("ids", (self.next - 1) as f64),
            ("add_cpu_us", (cpu_seconds()? - cpu) * 1e6 / added),
            ("written_bytes", (written_bytes()? - written) / added),
            ("longest_checkpoint_ms", self.longest_ms),
            ("new_lookup_us", self.look_up(false)?),
            ("known_lookup_us", self.look_up(true)?),
        ]))
    }

    /// Microseconds of a look-up: of ids that are known, from the whole of the past, or of new ones.
    fn look_up(&self, known: bool) -> Result<f64> {
        let began = Instant::now();
        for n in 0..LOOKUPS {
            let id = if known { 1 + n * (self.next - 2) / LOOKUPS } else { self.next + n };
            ensure!(self.opened.reader.seen(CONSUMER, mark(id))? == known, "id {id} should be known: {known}");
        }
        Ok(began.elapsed().as_secs_f64() * 1e6 / LOOKUPS as f64)
    }
}

/// What this process had the kernel write to a disk.
fn written_bytes() -> Result<f64> {
    let io = std::fs::read_to_string("/proc/self/io")?;
    let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(written.context("/proc/self/io has no write_bytes")?.parse::<u64>()? as f64)
}

fn main() -> Result<()> {
    let ids: u64 = arguments().next().map(|text| text.parse()).transpose()?.unwrap_or(IDS);
    let directory = TempDir::new()?;
    let mut store = Store::new(&directory)?;
    while store.next < ids {
        store.add()?;
    }
    let mut figures = store.measure()?;
    let stored = (store.next - 1) as f64;
    drop(store);
    let file = std::fs::metadata(directory.path().join("view.redb"))?.len() as f64;
    figures.insert("file_bytes", file / stored);
    let began = Instant::now();
    let opened = bed::open_in(&directory)?;
    figures.insert("open_ms", began.elapsed().as_secs_f64() * 1e3);
    drop(opened);
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}
