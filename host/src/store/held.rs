//! A storage backend that holds all writes in memory until the file has been found to be sound.
//!
//! redb writes to a file as soon as it opens it: it notes that the file is in use, and repairs what a crash left. A file that turns out to be
//! damaged, or of another format, must stay as it was, so that it can be looked at and restored. Hence nothing reaches it before
//! [`Hold::release`].

use std::io;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::{RwLock, RwLockReadGuard};
use redb::{BackendError, StorageBackend};

#[derive(Debug)]
enum Operation {
    Write { offset: u64, data: Box<[u8]> },
    SetLen(u64),
    Sync,
}

#[derive(Debug, Default)]
struct Held {
    /// In order, so that a crash while they are released leaves what it leaves without the hold.
    operations: Vec<Operation>,
    /// The length that the file would have; none: unchanged.
    length: Option<u64>,
    /// The smallest length that it would have had on the way: everything of the file behind it is gone.
    valid: Option<u64>,
}

#[derive(Debug)]
struct Shared<B> {
    backend: B,
    /// None once released.
    held: RwLock<Option<Held>>,
}

/// Given to redb in place of the backend.
#[derive(Debug)]
pub(super) struct HeldBackend<B>(Arc<Shared<B>>);

/// Lets the writes through.
#[derive(Debug)]
pub(super) struct Hold<B>(Arc<Shared<B>>);

/// Puts a hold on a backend.
pub(super) fn hold<B: StorageBackend>(backend: B) -> (HeldBackend<B>, Hold<B>) {
    let shared = Arc::new(Shared { backend, held: RwLock::new(Some(Held::default())) });
    (HeldBackend(shared.clone()), Hold(shared))
}

impl<B: StorageBackend> Hold<B> {
    /// Does what was held, in order, and holds nothing from here on.
    pub(super) fn release(self) -> io::Result<()> {
        let mut held = self.0.held.write();
        let backend = &self.0.backend;
        for operation in held.take().map(|held| held.operations).unwrap_or_default() {
            match operation {
                Operation::Write { offset, data } => backend.write(offset, &data)?,
                Operation::SetLen(length) => backend.set_len(length)?,
                Operation::Sync => backend.sync_data()?,
            }
        }
        Ok(())
    }
}

impl<B: StorageBackend> HeldBackend<B> {
    /// Holds the operation and changes the lengths, or says that nothing is held any more.
    fn hold(&self, operation: impl FnOnce() -> Operation, lengths: impl FnOnce(&mut Held, u64)) -> io::Result<bool> {
        if self.0.held.read().is_none() {
            return Ok(false);
        }
        let mut held = self.0.held.write();
        let Some(held) = held.as_mut() else { return Ok(false) };
        let length = held.length.map_or_else(|| self.0.backend.len(), Ok)?;
        lengths(held, length);
        held.operations.push(operation());
        Ok(true)
    }

    fn read_held(&self, held: &Held, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let file = self.0.backend.len()?;
        let length = held.length.unwrap_or(file);
        let end = offset.saturating_add(out.len() as u64);
        if end > length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let from_file = held.valid.unwrap_or(file).min(file).min(end).saturating_sub(offset);
        let (from_file, zeroes) = out.split_at_mut(usize::try_from(from_file).unwrap_or(usize::MAX));
        if !from_file.is_empty() {
            self.0.backend.read(offset, from_file)?;
        }
        zeroes.fill(0);
        for operation in &held.operations {
            match operation {
                Operation::Write { offset: at, data } => overlap(offset, out, *at, data),
                Operation::SetLen(length) => {
                    let kept = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX);
                    out.iter_mut().skip(kept).for_each(|byte| *byte = 0);
                }
                Operation::Sync => {}
            }
        }
        Ok(())
    }

    fn released(&self) -> RwLockReadGuard<'_, Option<Held>> {
        self.0.held.read()
    }
}

/// Copies what a write at `at` changed of the bytes at `offset`.
fn overlap(offset: u64, out: &mut [u8], at: u64, data: &[u8]) {
    let skip_data = usize::try_from(offset.saturating_sub(at)).unwrap_or(usize::MAX);
    let skip_out = usize::try_from(at.saturating_sub(offset)).unwrap_or(usize::MAX);
    let changed = out.iter_mut().skip(skip_out).zip(data.iter().skip(skip_data));
    changed.for_each(|(out, data)| *out = *data);
}

impl<B: StorageBackend> StorageBackend for HeldBackend<B> {
    fn len(&self) -> io::Result<u64> {
        match self.released().as_ref().and_then(|held| held.length) {
            Some(length) => Ok(length),
            None => self.0.backend.len(),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match self.released().as_ref() {
            Some(held) => self.read_held(held, offset, out),
            None => self.0.backend.read(offset, out),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let lengths = |held: &mut Held, length: u64| {
            held.valid = Some(held.valid.unwrap_or(length).min(len));
            held.length = Some(len);
        };
        if self.hold(|| Operation::SetLen(len), lengths)? { Ok(()) } else { self.0.backend.set_len(len) }
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.hold(|| Operation::Sync, |_, _| ())? { Ok(()) } else { self.0.backend.sync_data() }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let lengths = |held: &mut Held, length: u64| {
            held.valid = Some(held.valid.unwrap_or(length));
            held.length = Some(length.max(offset.saturating_add(data.len() as u64)));
        };
        if self.hold(|| Operation::Write { offset, data: data.into() }, lengths)? {
            Ok(())
        } else {
            self.0.backend.write(offset, data)
        }
    }

    fn close(&self) -> io::Result<()> {
        self.0.backend.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.backend.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.backend.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.backend.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.backend.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.backend.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.backend.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redb::backends::InMemoryBackend;

    use super::*;

    fn content(backend: &impl StorageBackend) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(backend.len().unwrap()).unwrap()];
        backend.read(0, &mut bytes).unwrap();
        bytes
    }

    proptest! {
        #[test]
        fn what_is_held_reads_as_if_it_was_written_and_is_written_on_release(
            steps in prop::collection::vec((0_u64..64, 1_usize..20, any::<u8>(), prop::bool::weighted(0.3)), 0..20),
        ) {
            let (held, hold) = hold(InMemoryBackend::new());
            held.0.backend.set_len(40).unwrap();
            held.0.backend.write(0, &[7; 40]).unwrap();
            let mut model = vec![7_u8; 40];
            for (offset, length, byte, cut) in steps {
                if cut {
                    held.set_len(offset).unwrap();
                    model.resize(offset as usize, 0);
                } else if offset as usize + length <= model.len() {
                    held.write(offset, &vec![byte; length]).unwrap();
                    model[offset as usize..offset as usize + length].fill(byte);
                }
                prop_assert_eq!(&content(&held), &model);
            }
            prop_assert_eq!(content(&held.0.backend), vec![7; 40], "something was written too early");
            hold.release().unwrap();
            prop_assert_eq!(content(&held.0.backend), model);
        }
    }
}
