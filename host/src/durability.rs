//! The two threads that write: the committer, which appends batches to the commit log, and the checkpointer, which folds the log into the view.
//!
//! A failed append leaves the outcome unknown, so it is fatal: nothing of the batch is settled with JetStream, and the next start finds what is durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use flume::{Receiver, RecvTimeoutError, Sender, bounded};
use pelton_core::Input;
use pelton_core::batch::Batch;

use crate::clock::{Clock, Stopwatch};
use crate::driver::Note;
use crate::faults;
use crate::guard::PanicGuard;
use crate::store::{Checkpointer, Log, Reader};
use crate::telemetry::meters::Meters;
use crate::telemetry::traces::Traces;

/// When the view is brought up to date.
#[derive(Clone, Debug)]
pub struct CheckpointSettings {
    /// At the latest after this long.
    pub interval: Duration,
    /// As soon as half of this many bytes of the overlay wait to be folded, or half of them were appended to the log, which bounds its file where many messages
    /// change little; when the overlay holds all of them, pulls wait.
    pub overlay_bytes_max: usize,
    /// Where commits and checkpoints are counted.
    pub meters: Arc<Meters>,
    /// Where commits are traced; none: they are not.
    pub traces: Option<Arc<Traces>>,
}

/// The running threads.
pub struct Durability {
    committer: JoinHandle<()>,
    checkpointer: JoinHandle<()>,
}

impl Durability {
    /// Waits for both threads; they end when the sending side of the batches is dropped. The last thing done is a checkpoint.
    pub fn join(self) {
        // A thread that panicked has told the driver.
        _ = self.committer.join();
        _ = self.checkpointer.join();
    }
}

/// When enough waits to be folded. What a checkpoint is folding by now doesn't count, though it is in the overlay until its end: a second one for the little
/// that came since would write a page for nearly each key of it.
struct Due {
    /// So many bytes are enough.
    enough: usize,
    /// Appended to the log since it was last due.
    appended: usize,
}

impl Due {
    /// Something was appended; says whether a checkpoint is due.
    fn appended(&mut self, bytes: usize, overlay: usize, folding: usize) -> bool {
        self.appended += bytes;
        let due = overlay.saturating_sub(folding).max(self.appended) >= self.enough;
        if due {
            self.appended = 0;
        }
        due
    }
}

/// What both threads have.
struct Shared {
    reader: Arc<Reader>,
    notes: Sender<Note>,
    settings: CheckpointSettings,
    /// Bytes of the overlay when the running checkpoint began; none runs: 0. A hint for `Due`, that nothing else depends on.
    folding: AtomicUsize,
}

/// Starts both threads. Batches are committed in the order in which they come.
///
/// # Errors
/// If a thread can't be started.
pub fn start(
    log: Log,
    checkpointer: Checkpointer,
    reader: &Arc<Reader>,
    settings: CheckpointSettings,
    clock: Clock,
    batches: Receiver<Arc<Batch>>,
    notes: &Sender<Note>,
) -> std::io::Result<Durability> {
    // One pending wake-up is enough: a checkpoint folds all that is there.
    let (wake, woken) = bounded(1);
    let shared =
        Arc::new(Shared { reader: Arc::clone(reader), notes: notes.clone(), settings, folding: AtomicUsize::new(0) });
    let for_committer = Arc::clone(&shared);
    let committer = std::thread::Builder::new()
        .name("committer".into())
        .spawn(move || commit_all(log, &for_committer, &batches, &wake))?;
    let checkpointer = std::thread::Builder::new()
        .name("checkpointer".into())
        .spawn(move || checkpoint_all(checkpointer, &shared, clock, &woken))?;
    Ok(Durability { committer, checkpointer })
}

fn commit_all(mut log: Log, shared: &Shared, batches: &Receiver<Arc<Batch>>, wake: &Sender<()>) {
    let Shared { reader, notes, settings, folding } = shared;
    let _guard = PanicGuard::new("committer", notes.clone());
    let mut due = Due { enough: settings.overlay_bytes_max / 2, appended: 0 };
    for batch in batches {
        faults::point("before-commit");
        let watch = Stopwatch::start();
        let appended = match log.append(&batch) {
            Ok(appended) => appended.bytes,
            Err(error) => {
                let error = anyhow::Error::new(error).context(
                    "committing a batch; nothing of it was acknowledged, and a restart goes on from what is durable",
                );
                _ = notes.send(Note::Fatal(error));
                return;
            }
        };
        settings.meters.commit_us.record(watch.elapsed_us());
        settings.meters.commit_outcomes.record(batch.settlements.len() as u64);
        if let Some(traces) = &settings.traces {
            traces.committed(&batch);
        }
        faults::point("after-commit");
        if !batch.published.is_empty() {
            faults::point("after-row-removal");
        }
        let bytes = reader.overlay_bytes();
        if bytes >= settings.overlay_bytes_max {
            _ = notes.send(Note::Core(Input::OverlayFull(true)));
        }
        if due.appended(appended, bytes, folding.load(Ordering::Relaxed)) {
            // Full means that a wake-up is pending already.
            _ = wake.try_send(());
        }
        if notes.send(Note::Core(Input::Committed)).is_err() {
            return;
        }
    }
}

fn checkpoint_all(mut checkpointer: Checkpointer, shared: &Shared, clock: Clock, woken: &Receiver<()>) {
    let Shared { reader, notes, settings, folding } = shared;
    let _guard = PanicGuard::new("checkpointer", notes.clone());
    loop {
        let last = matches!(woken.recv_timeout(settings.interval), Err(RecvTimeoutError::Disconnected));
        folding.store(reader.overlay_bytes(), Ordering::Relaxed);
        // It was asked for once more before that could be seen; what that was about is folded now.
        _ = woken.try_recv();
        let watch = Stopwatch::start();
        let folded = checkpointer.run(clock.now());
        folding.store(0, Ordering::Relaxed);
        settings.meters.checkpoint_us.record(watch.elapsed_us());
        if let Err(error) = folded {
            let error = anyhow::Error::new(error).context("folding the commit log into the view");
            if let Err(unheard) = notes.send(Note::Fatal(error))
                && let Note::Fatal(error) = unheard.0
            {
                // The driver ends before the last checkpoint. The log has everything; the next start folds it, or says the same.
                tracing::error!(error = format!("{error:#}"), "the last checkpoint failed");
            }
            return;
        }
        if reader.overlay_bytes() < settings.overlay_bytes_max {
            _ = notes.send(Note::Core(Input::OverlayFull(false)));
        }
        if last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use flume::unbounded;
    use tempfile::TempDir;

    use super::*;
    use crate::store::{self, Opened, Settings};

    /// For a test that would wait for ever.
    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_being_folded_asks_for_no_second_checkpoint() {
        let mut due = Due { enough: 100, appended: 0 };
        assert!(!due.appended(40, 99, 0));
        assert!(due.appended(1, 100, 0), "by the overlay");
        assert!(!due.appended(1, 199, 100), "100 of them are being folded");
        assert!(due.appended(1, 200, 100), "as many have come since");
        assert!(!due.appended(99, 0, 0));
        assert!(due.appended(1, 0, 0), "by the log, counted from where it was last due");
    }

    #[test]
    fn what_is_appended_is_folded_though_the_overlay_stays_empty_and_the_time_has_not_come() {
        let directory = TempDir::new().unwrap();
        let place =
            Settings { directory: directory.path().to_owned(), cache_bytes: 1 << 20, processed_ids_ms: 1_000_000 };
        let clock = Clock::start();
        let Opened { reader, log, checkpointer, .. } = store::open(&place, clock.now()).unwrap();
        let settings = CheckpointSettings {
            interval: Duration::from_secs(1_000_000),
            overlay_bytes_max: 64 << 10,
            meters: Arc::default(),
            traces: None,
        };
        let ((to_committer, batches), (notes, heard)) = (unbounded(), unbounded());
        let running = start(log, checkpointer, &reader, settings, clock, batches, &notes).unwrap();
        // Each takes a block of 4 KiB.
        (0..8).for_each(|_| to_committer.send(Arc::default()).unwrap());
        // A checkpoint says at its end that there is room.
        let is_checkpoint = |note: &Note| matches!(note, Note::Core(Input::OverlayFull(false)));
        while !is_checkpoint(&heard.recv_timeout(LIMIT).unwrap()) {}
        drop(to_committer);
        running.join();
    }
}
