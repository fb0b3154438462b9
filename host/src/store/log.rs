//! The commit log: position → encoded batch, in the file `commit.log`. One write and one sync for each batch.
//!
//! Positions begin at 1 and rise by one. What is folded into the view is written over by later records; the last record stays, so that a log that
//! went back can be told from one that was trimmed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pelton_core::batch::Batch;

use super::error::AppendError;
use super::files::Files;
use super::record::{self, BatchRecord};

mod file;
mod places;

pub(super) use file::{LogFile, NoLog, RawRecord};

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
    /// What was written for it, in bytes.
    pub bytes: usize,
    /// How many folded records were let go of on this occasion.
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
        buffer.resize(file::HEADER_BYTES, 0);
        let mut record = record::encode(&BatchRecord::from(batch), buffer).map_err(AppendError::Encode)?;
        let folded = self.folded.load(Ordering::Acquire);
        let trimmed = self.files.log.append(self.next, &mut record, folded).map_err(AppendError::Write)?;
        let appended = Appended { position: self.next, bytes: record.len(), trimmed };
        if record.capacity() <= BUFFER_KEPT_BYTES {
            self.buffer = record;
        }
        self.next += 1;
        self.failed = false;
        Ok(appended)
    }
}
