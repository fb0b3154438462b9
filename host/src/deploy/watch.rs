//! Watches the consumer directory and the directories of components, and says when something there has come to rest.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, Debouncer, RecommendedCache, new_debouncer};
use thiserror::Error;
use tokio::sync::mpsc;

/// Changes closer together than this are one: editors and compilers write in several steps.
const SETTLE: Duration = Duration::from_millis(200);

/// The system can't watch files.
#[derive(Debug, Error)]
#[error("can't watch files for changes: {0}; on Linux, see fs.inotify.max_user_watches and max_user_instances")]
pub struct WatchError(#[from] notify::Error);

/// The watched directories.
pub struct Watcher {
    debouncer: Debouncer<RecommendedWatcher, RecommendedCache>,
    watched: BTreeSet<PathBuf>,
}

impl Watcher {
    /// A watcher of nothing, and the channel that gets a message when something changed. Changes that were not taken yet are one message.
    ///
    /// # Errors
    /// If the system has no means to watch files.
    pub fn new() -> Result<(Self, mpsc::Receiver<()>), WatchError> {
        let (sender, receiver) = mpsc::channel(1);
        let debouncer = new_debouncer(SETTLE, None, move |result: DebounceEventResult| {
            // An error of the watcher may hide a change: look, too.
            let changed =
                result.map_or(true, |events| events.iter().any(|event| !matches!(event.kind, EventKind::Access(_))));
            if changed {
                // Full means that a look is due already.
                _ = sender.try_send(());
            }
        })?;
        Ok((Self { debouncer, watched: BTreeSet::new() }, receiver))
    }

    /// Watches the directories of these files and no others. A directory that does not exist yet is waited for.
    pub fn watch<'a>(&mut self, files: impl Iterator<Item = &'a Path>) {
        let wanted: BTreeSet<PathBuf> = files.filter_map(nearest_directory).collect();
        for gone in self.watched.difference(&wanted) {
            // It may be gone from the disk as well; then there is nothing left to end.
            _ = self.debouncer.unwatch(gone);
        }
        for new in wanted.difference(&self.watched) {
            if let Err(error) = self.debouncer.watch(new, RecursiveMode::NonRecursive) {
                tracing::warn!(directory = %new.display(), %error, "can't watch a directory, its changes need a restart");
            }
        }
        self.watched = wanted;
    }
}

/// The closest directory above a file that exists.
fn nearest_directory(file: &Path) -> Option<PathBuf> {
    let existing = file.ancestors().skip(1).find(|directory| directory.is_dir() || directory.as_os_str().is_empty())?;
    Some(if existing.as_os_str().is_empty() { PathBuf::from(".") } else { existing.to_path_buf() })
}
