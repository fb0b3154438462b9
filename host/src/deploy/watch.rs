//! Watches the consumer directory and the directories of components, and says when something there has come to rest.
//!
//! What is watched is a directory on the disk, not a path: one that was deleted and made anew is another, and is watched anew.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::ModifyKind;
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, Debouncer, RecommendedCache, new_debouncer};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::mpsc;

/// Changes closer together than this are one: editors and compilers write in several steps.
const SETTLE: Duration = Duration::from_millis(200);

/// The system can't watch files.
#[derive(Debug, Error)]
#[error("can't watch files for changes: {0}; on Linux, see fs.inotify.max_user_watches and max_user_instances")]
pub struct WatchError(#[from] notify::Error);

/// What became of a call of [`Watcher::watch`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Something is watched that was not before: what changed there until now may have been missed.
    pub new: bool,
    /// Something can't be watched: worth another try in a while.
    pub failed: bool,
}

/// Device and inode.
type Identity = (u64, u64);

/// What the thread that gets events and the watcher both know. All paths are canonical as far as they exist.
#[derive(Default)]
struct Shared {
    /// The files whose change matters.
    files: BTreeSet<PathBuf>,
    /// What was removed or moved away since the last call, and with it the watches of directories at and below it.
    gone: BTreeSet<PathBuf>,
}

/// The watched directories.
pub struct Watcher {
    debouncer: Debouncer<RecommendedWatcher, RecommendedCache>,
    shared: Arc<Mutex<Shared>>,
    watched: BTreeMap<PathBuf, Identity>,
    /// Directories that can't be watched, so that each is told once.
    failed: BTreeSet<PathBuf>,
}

impl Watcher {
    /// A watcher of nothing, and the channel that gets a message when something changed. Changes that were not taken yet are one message.
    ///
    /// # Errors
    /// If the system has no means to watch files.
    pub fn new() -> Result<(Self, mpsc::Receiver<()>), WatchError> {
        let (sender, receiver) = mpsc::channel(1);
        let shared = Arc::new(Mutex::new(Shared::default()));
        let noticed = Arc::clone(&shared);
        let debouncer = new_debouncer(SETTLE, None, move |result: DebounceEventResult| {
            let mut noticed = noticed.lock();
            // An error of the watcher may hide a change: look, too.
            let changed = result.map_or(true, |events| {
                events.iter().for_each(|event| noticed.note_gone(event));
                events.iter().any(|event| noticed.matters(event))
            });
            if changed {
                // Full means that a look is due already.
                _ = sender.try_send(());
            }
        })?;
        Ok((Self { debouncer, shared, watched: BTreeMap::new(), failed: BTreeSet::new() }, receiver))
    }

    /// Watches the directories of these files and no others. Instead of a directory that does not exist yet, the nearest one above it is watched.
    pub fn watch<'a>(&mut self, files: impl Iterator<Item = &'a Path>) -> Watched {
        let places: Vec<Place> = files.filter_map(Place::of).collect();
        let gone = {
            let mut shared = self.shared.lock();
            shared.files = places.iter().map(|place| place.file.clone()).collect();
            std::mem::take(&mut shared.gone)
        };
        let wanted: BTreeMap<PathBuf, Identity> =
            places.into_iter().map(|place| (place.directory, place.identity)).collect();
        let goes_on = |directory: &PathBuf, identity: &Identity| {
            wanted.get(directory) == Some(identity) && !gone.iter().any(|gone| directory.starts_with(gone))
        };
        let debouncer = &mut self.debouncer;
        self.watched.retain(|directory, identity| {
            let goes_on = goes_on(directory, identity);
            if !goes_on {
                // It may be gone from the disk as well; then there is nothing left to end.
                _ = debouncer.unwatch(directory);
            }
            goes_on
        });
        self.failed.retain(|directory| wanted.contains_key(directory));
        let mut outcome = Watched::default();
        for (directory, identity) in wanted {
            if self.watched.contains_key(&directory) {
                continue;
            }
            match self.debouncer.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    outcome.new = true;
                    self.failed.remove(&directory);
                    self.watched.insert(directory, identity);
                }
                Err(error) => {
                    outcome.failed = true;
                    if self.failed.insert(directory.clone()) {
                        tracing::warn!(directory = %directory.display(), %error, "can't watch a directory for changes, trying again");
                    }
                }
            }
        }
        outcome
    }
}

impl Shared {
    fn note_gone(&mut self, event: &Event) {
        if matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))) {
            // Every watched directory is above a file, so nothing else can end a watch.
            self.gone.extend(event.paths.iter().filter(|path| self.leads_to_one(path)).cloned().collect::<Vec<_>>());
        }
    }

    /// Whether an event may change what runs. The host's own files, and what compilers write beside a component, don't.
    fn matters(&self, event: &Event) -> bool {
        // Events without a path say that others were lost.
        !matches!(event.kind, EventKind::Access(_))
            && (event.paths.is_empty() || event.need_rescan() || event.paths.iter().any(|path| self.leads_to_one(path)))
    }

    /// Whether the path is a manifest, one of the files, a directory above one, or a link, behind which any of them may lie.
    fn leads_to_one(&self, path: &Path) -> bool {
        path.extension().is_some_and(|extension| extension == "toml")
            || self.files.iter().any(|file| file.starts_with(path))
            || path.is_symlink()
    }
}

/// Where to watch for a file.
struct Place {
    /// The closest directory above it that exists, canonical: two paths to one directory are one watch.
    directory: PathBuf,
    identity: Identity,
    /// The file as events name it.
    file: PathBuf,
}

impl Place {
    fn of(file: &Path) -> Option<Self> {
        let file = std::path::absolute(file).ok()?;
        file.ancestors().skip(1).find_map(|ancestor| {
            let directory = ancestor.canonicalize().ok()?;
            let metadata = directory.metadata().ok().filter(std::fs::Metadata::is_dir)?;
            let file = directory.join(file.strip_prefix(ancestor).ok()?);
            Some(Self { directory, identity: (metadata.dev(), metadata.ino()), file })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(watcher: &mut Watcher, file: &Path) -> Watched {
        watcher.watch(std::iter::once(file))
    }

    const NEW: Watched = Watched { new: true, failed: false };

    #[tokio::test]
    async fn a_directory_that_appears_or_is_made_anew_is_watched() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("target/release");
        let file = directory.join("plugin.wasm");
        let (mut watcher, mut changes) = Watcher::new().unwrap();
        assert_eq!(watch(&mut watcher, &file), NEW);
        assert_eq!(watch(&mut watcher, &file), Watched::default());
        for _ in 0..2 {
            std::fs::create_dir_all(&directory).unwrap();
            changes.recv().await.unwrap();
            assert!(watch(&mut watcher, &file).new);
            std::fs::write(&file, "one").unwrap();
            changes.recv().await.unwrap();
            std::fs::remove_dir_all(root.path().join("target")).unwrap();
            changes.recv().await.unwrap();
            watch(&mut watcher, &file);
        }
    }

    #[test]
    fn only_what_leads_to_a_file_matters() {
        let shared = Shared { files: BTreeSet::from(["/a/b/plugin.wasm".into()]), ..Shared::default() };
        let matters =
            |path: &str| shared.matters(&Event::new(EventKind::Modify(ModifyKind::Any)).add_path(path.into()));
        for good in ["/a/b/plugin.wasm", "/a/b", "/a", "/a/c/some.toml"] {
            assert!(matters(good), "{good}");
        }
        for other in ["/a/b/plugin.wasm.tmp", "/a/commit.log", "/a/b/plugin"] {
            assert!(!matters(other), "{other}");
        }
    }
}
