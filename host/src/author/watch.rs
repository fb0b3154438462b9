//! Watches a plug-in's source, builds it when it has come to rest after a change, and says how that went. The component that comes of it is the deployer's
//! business: it watches that file.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, Debouncer, RecommendedCache, new_debouncer};

use super::build::compile;

/// Changes closer together than this are one: editors write in several steps.
const SETTLE: Duration = Duration::from_millis(150);
/// What is below the directory and no source: what compilers and hosts write there.
const NOT_SOURCE: [&str; 4] = ["target", "data", ".git", "node_modules"];

/// A watched directory; dropped, it is watched no longer.
pub(super) struct Source {
    directory: PathBuf,
    changes: Receiver<()>,
    _debouncer: Debouncer<RecommendedWatcher, RecommendedCache>,
}

impl Source {
    /// Begins to watch.
    ///
    /// # Errors
    /// If the system can't watch files.
    pub(super) fn watch(directory: &Path) -> anyhow::Result<Self> {
        let directory = directory.canonicalize()?;
        let (sender, changes) = channel();
        let root = directory.clone();
        let mut debouncer = new_debouncer(SETTLE, None, move |result: DebounceEventResult| {
            let changed = result.map_or(true, |events| {
                let changes = events.iter().filter(|event| !matches!(event.kind, EventKind::Access(_)));
                changes.flat_map(|event| &event.paths).any(|path| is_source(&root, path))
            });
            if changed {
                // Nobody waits any longer when the program ends.
                _ = sender.send(());
            }
        })?;
        // Not the whole: a compiler's output has many thousands of directories.
        debouncer.watch(&directory, RecursiveMode::NonRecursive)?;
        for entry in std::fs::read_dir(&directory)?.flatten().filter(|entry| entry.path().is_dir()) {
            if is_source(&directory, &entry.path()) {
                debouncer.watch(entry.path(), RecursiveMode::Recursive)?;
            }
        }
        Ok(Self { directory, changes, _debouncer: debouncer })
    }

    /// Builds after every change, for ever; `tell` gets a line about each build.
    pub(super) fn build_for_ever(&self, tell: impl Fn(&str)) {
        while self.changes.recv().is_ok() {
            // What came meanwhile is in this build.
            while self.changes.try_recv().is_ok() {}
            tell("the source has changed: building");
            match compile(&self.directory) {
                Ok(()) => tell("built"),
                Err(error) => tell(&format!("{error:#}; the version before goes on")),
            }
        }
    }
}

/// Whether a change there may change the component. Manifests and cases are not part of it.
fn is_source(root: &Path, path: &Path) -> bool {
    let Ok(below) = path.strip_prefix(root) else { return false };
    let Some(first) = below.components().next().map(|part| part.as_os_str().to_string_lossy()) else { return false };
    let hidden = below.components().any(|part| part.as_os_str().to_string_lossy().starts_with('.'));
    let other = NOT_SOURCE.iter().chain(&["tests", "consumers", "pelton.toml", "README.md", "Cargo.lock"]);
    !hidden && !other.into_iter().any(|name| first == *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_compilers_hosts_and_editors_write_beside_the_source_is_no_change_of_it() {
        let root = Path::new("/p");
        for path in ["src/lib.rs", "Cargo.toml", "src/deep/er/mod.rs", "wit/x.wit"] {
            assert!(is_source(root, &root.join(path)), "{path}");
        }
        for path in ["target/release/x.wasm", "data/commit.log", "Cargo.lock", "src/.lib.rs.swp", "tests/x.toml", ""] {
            assert!(!is_source(root, &root.join(path)), "{path}");
        }
    }

    #[test]
    fn a_change_is_noticed_also_in_a_directory_below() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("src/deep")).unwrap();
        let source = Source::watch(root.path()).unwrap();
        std::fs::write(root.path().join("src/deep/a.rs"), "x").unwrap();
        source.changes.recv_timeout(Duration::from_secs(30)).unwrap();
    }
}
