//! The commit log: position → encoded batch, in the redb file `log.redb`. One insert and one durable commit for each batch.
//!
//! Positions begin at 1 and rise by one. What is folded into the view is removed by the committer's own transactions, a few records at a time, so
//! that the file has one writer; the last record stays, so that a log that went back can be told from one that was trimmed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pelton_core::batch::Batch;
use redb::{
    AccessGuard, Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition, TableError,
    WriteTransaction,
};

use super::error::{AppendError, StoreFailure};
use super::files::{Files, begin};
use super::record::{self, BatchRecord};
use super::view::FORMAT_VERSION;

const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<&str, u64> = TableDefinition::new("log-meta");

/// Folded records that one append removes. More than one, so that the log shrinks while it is written to; few, so that no append is slow.
const TRIMMED_MAX: usize = 64;

/// The memory kept for the next encoded batch, in bytes; a larger one is given back.
const BUFFER_KEPT_BYTES: usize = 4 << 20;

/// The writing end of the commit log. Owned by the committer's thread.
pub struct Log {
    files: Arc<Files>,
    next: u64,
    /// The position up to which the checkpointer has the log in the view.
    folded: Arc<AtomicU64>,
    buffer: Vec<u8>,
    failed: bool,
}

/// A batch that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its position in the log.
    pub position: u64,
    /// The size of its record, in bytes.
    pub bytes: usize,
    /// How many folded records were removed on this occasion.
    pub trimmed: usize,
}

impl Log {
    pub(super) fn new(files: Arc<Files>, last: u64, folded: Arc<AtomicU64>) -> Self {
        Self { files, next: last + 1, folded, buffer: Vec::new(), failed: false }
    }

    /// Makes a batch durable; it is when this returns.
    ///
    /// # Errors
    /// Whatever the error, it is unknown whether the batch is durable, and every later call fails too: the host must settle nothing of it and exit.
    pub fn append(&mut self, batch: &Batch) -> Result<Appended, AppendError> {
        if self.failed {
            return Err(AppendError::AfterError);
        }
        // Unless it gets to the end, by an error or by a panic that someone catches.
        self.failed = true;
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let record = record::encode(&BatchRecord::from(batch), buffer).map_err(AppendError::Encode)?;
        let trimmed = self.commit(&record).map_err(AppendError::Write)?;
        let appended = Appended { position: self.next, bytes: record.len(), trimmed };
        if record.capacity() <= BUFFER_KEPT_BYTES {
            self.buffer = record;
        }
        self.next += 1;
        self.failed = false;
        Ok(appended)
    }

    fn commit(&self, record: &[u8]) -> Result<usize, StoreFailure> {
        let transaction = begin(&self.files.log)?;
        transaction.open_table(LOG)?.insert(self.next, record)?;
        let trimmed = trim(&transaction, self.folded.load(Ordering::Acquire), TRIMMED_MAX)?;
        transaction.commit()?;
        Ok(trimmed)
    }
}

/// Removes at most `max` records below this position.
fn trim(transaction: &WriteTransaction, below: u64, max: usize) -> Result<usize, StoreFailure> {
    let mut table = transaction.open_table(LOG)?;
    let mut trimmed = 0;
    while trimmed < max && table.first()?.is_some_and(|(position, _)| position.value() < below) {
        table.pop_first()?;
        trimmed += 1;
    }
    Ok(trimmed)
}

/// Removes all records below this position: after recovery, when nobody waits for an append.
pub(super) fn trim_all(log: &Database, below: u64) -> Result<(), StoreFailure> {
    let is_trimmed = {
        let table = log.begin_read()?.open_table(LOG)?;
        table.first()?.is_none_or(|(position, _)| position.value() >= below)
    };
    if is_trimmed {
        return Ok(());
    }
    let transaction = begin(log)?;
    trim(&transaction, below, usize::MAX)?;
    transaction.commit()?;
    Ok(())
}

/// What a log says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogMeta {
    pub(super) format: u64,
    /// The same as its view's.
    pub(super) seed: u64,
    /// The position of the last record; 0: there was none yet.
    pub(super) last: u64,
}

/// Makes the tables of a new log.
pub(super) fn create(log: &Database, seed: u64) -> Result<(), StoreFailure> {
    let transaction = begin(log)?;
    transaction.open_table(LOG)?;
    {
        let mut meta = transaction.open_table(META)?;
        meta.insert("format", FORMAT_VERSION)?;
        meta.insert("seed", seed)?;
    }
    transaction.commit()?;
    Ok(())
}

/// What the log says of itself; none if this is not a log.
pub(super) fn load_meta(log: &Database) -> Result<Option<LogMeta>, StoreFailure> {
    let transaction = log.begin_read()?;
    let table = match transaction.open_table(META) {
        Ok(table) => table,
        Err(TableError::Storage(error)) => return Err(error.into()),
        Err(_) => return Ok(None),
    };
    let value = |name: &str| Ok::<_, StoreFailure>(table.get(name)?.map(|value| value.value()));
    let (Some(format), Some(seed)) = (value("format")?, value("seed")?) else { return Ok(None) };
    if format != FORMAT_VERSION {
        return Ok(Some(LogMeta { format, seed, last: 0 }));
    }
    let records = transaction.open_table(LOG)?;
    let last = records.last()?.map_or(0, |(position, _)| position.value());
    Ok(Some(LogMeta { format, seed, last }))
}

/// Records of the log, as they lie in redb's pages.
pub(super) struct RawRecords {
    /// Position and bytes of each, in order.
    pub(super) records: Vec<(u64, AccessGuard<'static, &'static [u8]>)>,
    /// Keeps the transaction that the records were read in alive, and so their pages from being used anew.
    _table: ReadOnlyTable<u64, &'static [u8]>,
}

/// The durable records behind a position, in order, until they are `bytes_max` bytes; at least one if there is one.
pub(super) fn read_after(log: &Database, position: u64, bytes_max: usize) -> Result<RawRecords, StoreFailure> {
    let table = log.begin_read()?.open_table(LOG)?;
    let mut records = Vec::new();
    let mut bytes = 0;
    for row in table.range(position + 1..)? {
        let (position, record) = row?;
        bytes += record.value().len();
        records.push((position.value(), record));
        if bytes >= bytes_max {
            break;
        }
    }
    Ok(RawRecords { records, _table: table })
}

/// How many records there are.
#[cfg(test)]
pub(super) fn count(log: &Database) -> u64 {
    use redb::ReadableTableMetadata;
    log.begin_read().unwrap().open_table(LOG).unwrap().len().unwrap()
}
