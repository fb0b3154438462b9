//! The two threads that write: the committer, which appends batches to the commit log, and the checkpointer, which folds the log into the view.
//!
//! A failed append leaves the outcome unknown, so it is fatal: nothing of the batch is settled with JetStream, and the next start finds what is durable.

use std::sync::Arc;
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
    /// As soon as the overlay holds half of this many bytes, or half of them were appended to the log, which bounds its file where many messages change little;
    /// when the overlay holds all of them, pulls wait.
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
    let for_committer = (Arc::clone(reader), notes.clone(), settings.clone());
    let committer = std::thread::Builder::new()
        .name("committer".into())
        .spawn(move || commit_all(log, &for_committer.0, &for_committer.2, &batches, &for_committer.1, &wake))?;
    let for_checkpointer = (Arc::clone(reader), notes.clone());
    let checkpointer = std::thread::Builder::new().name("checkpointer".into()).spawn(move || {
        checkpoint_all(checkpointer, &for_checkpointer.0, &settings, clock, &woken, &for_checkpointer.1);
    })?;
    Ok(Durability { committer, checkpointer })
}

fn commit_all(
    mut log: Log,
    reader: &Reader,
    settings: &CheckpointSettings,
    batches: &Receiver<Arc<Batch>>,
    notes: &Sender<Note>,
    wake: &Sender<()>,
) {
    let _guard = PanicGuard::new("committer", notes.clone());
    let mut appended_bytes = 0;
    for batch in batches {
        faults::point("before-commit");
        let watch = Stopwatch::start();
        match log.append(&batch) {
            Ok(appended) => appended_bytes += appended.bytes,
            Err(error) => {
                let error = anyhow::Error::new(error).context(
                    "committing a batch; nothing of it was acknowledged, and a restart goes on from what is durable",
                );
                _ = notes.send(Note::Fatal(error));
                return;
            }
        }
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
        if bytes.max(appended_bytes) >= settings.overlay_bytes_max / 2 {
            appended_bytes = 0;
            // Full means that a wake-up is pending already.
            _ = wake.try_send(());
        }
        if notes.send(Note::Core(Input::Committed)).is_err() {
            return;
        }
    }
}

fn checkpoint_all(
    mut checkpointer: Checkpointer,
    reader: &Reader,
    settings: &CheckpointSettings,
    clock: Clock,
    woken: &Receiver<()>,
    notes: &Sender<Note>,
) {
    let _guard = PanicGuard::new("checkpointer", notes.clone());
    loop {
        let last = matches!(woken.recv_timeout(settings.interval), Err(RecvTimeoutError::Disconnected));
        let watch = Stopwatch::start();
        let folded = checkpointer.run(clock.now());
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
