//! Room on the disk: looks at it now and then, and has the core begin nothing new while there is too little.
//!
//! A commit that finds the disk full ends the host, since what became of it is not known. This keeps a disk that fills up from getting that far: what was
//! begun is still committed and folded, and work goes on by itself when there is room again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flume::Sender;
use pelton_core::Input;
use tokio::time::MissedTickBehavior;

use crate::driver::Note;

/// How often it is looked at.
const EVERY: Duration = Duration::from_millis(500);
/// Stands for "enough": more than any disk has.
const ENOUGH: u64 = u64::MAX;

/// What was seen last.
#[derive(Debug)]
pub struct Room {
    /// The data directory.
    directory: PathBuf,
    /// Bytes that have to be free; 0: nobody looks.
    free_bytes_min: u64,
    /// Bytes that were free when there were too few; else [`ENOUGH`].
    low: AtomicU64,
}

impl Room {
    /// Of the disk that the data directory is on.
    #[must_use]
    pub fn new(directory: &Path, free_bytes_min: u64) -> Arc<Self> {
        Arc::new(Self { directory: directory.to_owned(), free_bytes_min, low: AtomicU64::new(ENOUGH) })
    }

    /// Why the host can't go on for now, with the way out; none: there is room.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let free = self.low.load(Ordering::Relaxed);
        (free != ENOUGH).then(|| {
            format!(
                "the disk of {} has {free} bytes of room, and {} have to be free: free some, and the host goes on by itself \
                 (store.free_bytes_min)",
                self.directory.display(),
                self.free_bytes_min
            )
        })
    }

    /// Looks, and tells the core of every change, until it is dropped. A disk that can't be asked counts as one with room: the next commit will tell.
    pub async fn watch(self: Arc<Self>, notes: Sender<Note>) {
        if self.free_bytes_min == 0 {
            return;
        }
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            let low = self.free_bytes().filter(|free| *free < self.free_bytes_min);
            let before = self.low.swap(low.unwrap_or(ENOUGH), Ordering::Relaxed);
            let was_low = before != ENOUGH;
            if low.is_some() == was_low {
                continue;
            }
            match self.problem() {
                Some(problem) => tracing::error!("{problem}"),
                None => tracing::info!("there is room on the disk again"),
            }
            // The driver is gone only when the host is on its way out.
            _ = notes.send(Note::Core(Input::DiskLow(low.is_some())));
        }
    }

    fn free_bytes(&self) -> Option<u64> {
        let of = rustix::fs::statvfs(&self.directory).ok()?;
        Some(of.f_bavail.saturating_mul(of.f_frsize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn too_little_room_is_told_once_and_names_the_disk_and_the_way_out() {
        let directory = tempfile::tempdir().unwrap();
        let (notes, told) = flume::unbounded();
        let room = Room::new(directory.path(), 1 << 60);
        let watching = tokio::spawn(Arc::clone(&room).watch(notes));
        tokio::time::sleep(EVERY * 5).await;
        let told: Vec<_> = told.try_iter().collect();
        assert!(matches!(told.as_slice(), [Note::Core(Input::DiskLow(true))]), "{}", told.len());
        let problem = room.problem().unwrap();
        assert!(
            problem.contains(directory.path().to_str().unwrap()) && problem.contains("free_bytes_min"),
            "{problem}"
        );
        watching.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_with_room_is_no_news() {
        let directory = tempfile::tempdir().unwrap();
        for free_bytes_min in [0, 1] {
            let (notes, told) = flume::unbounded();
            let room = Room::new(directory.path(), free_bytes_min);
            let watching = tokio::spawn(Arc::clone(&room).watch(notes));
            tokio::time::sleep(EVERY * 5).await;
            assert!(told.is_empty() && room.problem().is_none());
            watching.abort();
        }
    }
}
