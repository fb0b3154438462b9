//! Folds the log into the view, publishes what that gives, and only then forgets what the overlay held of it.
//!
//! A checkpoint and the recovery at start are the same: fold all that is durable in the log and not in the view.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pelton_core::effects::Scope;
use pelton_core::ids::{ConsumerId, IdHash};
use pelton_core::time::Now;

use super::error::CheckpointError;
use super::files::Files;
use super::fold::{self, Changes};
use super::log::RawRecord;
use super::overlay::Overlay;
use super::reader::Reader;
use super::record::{self, BatchRecord};
use super::view::{self, Consumer, Expiry, Meta};

/// Records folded by one transaction, in bytes: large, because that is what makes it cheap, but all of them are in memory meanwhile.
const FOLD_BYTES_MAX: usize = 32 << 20;

/// Folds the log into the view. Owned by one thread.
pub struct Checkpointer {
    files: Arc<Files>,
    reader: Arc<Reader>,
    /// Told to the committer, which trims the log.
    folded: Arc<AtomicU64>,
    meta: Meta,
    consumers: BTreeMap<ConsumerId, Consumer>,
    processed_ids_ms: u64,
    clock: Clock,
    failed: bool,
}

/// What a checkpoint did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    /// The position up to which the log is in the view.
    pub position: u64,
    /// Records folded.
    pub batches: usize,
    /// Deliveries settled by them.
    pub messages: usize,
    /// Transactions that it took.
    pub transactions: usize,
    /// State entries deleted because their time was over.
    pub expired: usize,
}

/// How far time has certainly come.
struct Clock {
    last_tick_ms: u64,
    /// State that is over by this time may be deleted: milliseconds since 1970-01-01 UTC. The wall clock, but never further ahead of where it was when
    /// the store was opened than the clock that can't be set says, so that a wall clock that jumps ahead and back deletes nothing early.
    state_until_ms: u64,
}

impl Clock {
    fn new(now: Now) -> Self {
        Self { last_tick_ms: now.tick_ms, state_until_ms: now.wall_ms }
    }

    /// Moves on and gives back the milliseconds that passed.
    fn advance(&mut self, now: Now) -> u64 {
        let passed = now.tick_ms.saturating_sub(self.last_tick_ms);
        self.last_tick_ms = now.tick_ms;
        self.state_until_ms = now.wall_ms.min(self.state_until_ms.saturating_add(passed));
        passed
    }
}

impl Checkpointer {
    pub(super) fn new(
        files: Arc<Files>,
        reader: Arc<Reader>,
        meta: Meta,
        consumers: BTreeMap<ConsumerId, Consumer>,
        processed_ids_ms: u64,
        now: Now,
    ) -> Self {
        let folded = Arc::new(AtomicU64::new(meta.folded));
        Self { files, reader, folded, meta, consumers, processed_ids_ms, clock: Clock::new(now), failed: false }
    }

    /// Folds all that is durable in the log by now and not in the view yet, and lets go what is over by `now`.
    ///
    /// # Errors
    /// Nothing is lost then, and readers still see everything; but the overlay can only grow from here on, so the host must exit.
    pub fn run(&mut self, now: Now) -> Result<Folded, CheckpointError> {
        if self.failed {
            return Err(CheckpointError::AfterError);
        }
        self.failed = true;
        self.meta.running_ms += self.clock.advance(now);
        let mut total = Folded { position: self.meta.folded, ..Folded::default() };
        // What is appended meanwhile is for the next checkpoint: the transactions for it would get smaller and smaller, and each costs a page for nearly every key.
        let last = self.files.log.last();
        while self.step(&mut total)? && self.meta.folded < last {}
        self.failed = false;
        Ok(total)
    }

    /// One transaction. Says whether there may be more to do.
    fn step(&mut self, total: &mut Folded) -> Result<bool, CheckpointError> {
        let raw = self.files.log.read_after(self.meta.folded, FOLD_BYTES_MAX).map_err(CheckpointError::Log)?;
        if raw.is_empty() && !self.something_is_over()? {
            return Ok(false);
        }
        let changes = fold::fold(decoded(self.meta.folded, &raw), &mut self.consumers)?;
        self.meta.folded += raw.len() as u64;
        self.meta.next_row = self.meta.next_row.max(changes.next_row);
        self.meta.next_park = self.meta.next_park.max(changes.next_park);
        self.meta.next_consumer = self.meta.next_consumer.max(changes.next_consumer);
        let over = Expiry { state_until_ms: self.clock.state_until_ms, processed_ids_ms: self.processed_ids_ms };
        let written = view::write(&self.files.view, &changes, &self.consumers, &mut self.meta, over);
        total.expired += written.map_err(CheckpointError::View)?;
        // Readers look into the overlay first and load the snapshot after that. So what the overlay is about to forget must be in the snapshot that they
        // load from here on; the other way round there would be a moment at which a value is in neither.
        let snapshot = self.reader.snapshot().renewed(&self.files.view, &self.meta).map_err(CheckpointError::View)?;
        self.reader.publish(snapshot);
        forget(self.reader.overlay(), &changes);
        self.folded.store(self.meta.folded, Ordering::Release);
        total.position = self.meta.folded;
        total.batches += raw.len();
        total.messages += changes.messages;
        total.transactions += 1;
        Ok(!raw.is_empty())
    }

    fn something_is_over(&self) -> Result<bool, CheckpointError> {
        let next = self.reader.snapshot().next_expiry_ms().map_err(CheckpointError::View)?;
        let generation_is_over = self.meta.running_ms - self.meta.generation_since_ms >= self.processed_ids_ms.max(1);
        Ok(generation_is_over || next.is_some_and(|next| next <= self.clock.state_until_ms))
    }

    pub(super) fn folded(&self) -> Arc<AtomicU64> {
        self.folded.clone()
    }

    pub(super) fn meta(&self) -> &Meta {
        &self.meta
    }

    /// What the next checkpoint would do, without doing it.
    #[cfg(test)]
    pub(super) fn fold_only<T>(&self, look: impl FnOnce(&Changes<'_>) -> T) -> T {
        let raw = self.files.log.read_after(self.meta.folded, usize::MAX).unwrap();
        look(&fold::fold(decoded(self.meta.folded, &raw), &mut self.consumers.clone()).unwrap())
    }

    #[cfg(test)]
    pub(super) fn log_file(&self) -> &super::log::LogFile {
        &self.files.log
    }

    pub(super) fn consumers(&self) -> &BTreeMap<ConsumerId, Consumer> {
        &self.consumers
    }
}

/// Records that follow this position, one by one.
fn decoded(folded: u64, raw: &[RawRecord]) -> impl Iterator<Item = Result<(u64, BatchRecord<'_>), CheckpointError>> {
    (folded + 1..).zip(raw).map(|(expected, raw)| {
        if raw.position != expected {
            return Err(CheckpointError::Gap { position: expected });
        }
        let record = record::decode(&raw.bytes).map_err(|error| CheckpointError::Log(error.into()))?;
        Ok((expected, record))
    })
}

/// Takes what is in the view now from the overlay. What has been written anew meanwhile stays.
fn forget(overlay: &Overlay, changes: &Changes<'_>) {
    for entries in changes.state.chunk_by(|a, b| (a.consumer, a.scope_key) == (b.consumer, b.scope_key)) {
        let Some(first) = entries.first() else { continue };
        let scope = Scope { consumer: ConsumerId(first.consumer), key: first.scope_key.map(Arc::from) };
        overlay.forget_state(&scope, entries.iter().map(|entry| (entry.space.into(), entry.key, entry.writes)));
    }
    for mark in &changes.marks {
        overlay.forget_mark(ConsumerId(mark.consumer), IdHash(mark.hash), mark.writes);
    }
    for change in &changes.dead_letters {
        overlay
            .forget_dead_letter((ConsumerId(change.consumer), change.sequence, change.published_at_ms), change.writes);
    }
    for change in &changes.parked {
        overlay.forget_parked(&(ConsumerId(change.consumer), change.place.to_place()), change.writes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_that_jumps_ahead_is_trusted_only_as_far_as_time_passed() {
        let mut clock = Clock::new(Now { tick_ms: 0, wall_ms: 1_000 });
        assert_eq!(clock.advance(Now { tick_ms: 10, wall_ms: 999_000 }), 10);
        assert_eq!(clock.state_until_ms, 1_010);
        clock.advance(Now { tick_ms: 20, wall_ms: 1_020 });
        assert_eq!(clock.state_until_ms, 1_020);
        clock.advance(Now { tick_ms: 30, wall_ms: 500 });
        assert_eq!(clock.state_until_ms, 500, "a clock set back must not delete what it says is not over");
    }
}
