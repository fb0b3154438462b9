//! All sources that are wanted: a task for each that is reached over the network, and the bytes of all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use parking_lot::Mutex;

use super::error::SourceError;
use super::follow::Following;
use super::kept::Kept;
use super::oci::Registries;
use super::path;
use crate::board::Board;
use crate::config::{ComponentSource, Manifest, OciConfig};
use crate::nats::Objects;

/// How a consumer wants its component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where it comes from.
    pub source: ComponentSource,
    /// How often it is asked again without a reason, in milliseconds; 0: never.
    pub poll_ms: u64,
    /// When the manifest was written: writing it again is a deployment.
    pub written: Option<SystemTime>,
}

impl Wanted {
    /// What a manifest wants, as it is now. Blocks on the disk.
    #[must_use]
    pub fn by(manifest: &Manifest) -> Self {
        Self {
            source: manifest.component.clone(),
            poll_ms: manifest.component_poll_ms,
            written: manifest.file.metadata().and_then(|metadata| metadata.modified()).ok(),
        }
    }
}

/// What the tasks work with.
pub(super) struct Means {
    pub(super) kept: Arc<Kept>,
    pub(super) objects: Objects,
    pub(super) registries: Registries,
    pub(super) board: Arc<Board>,
    pub(super) fetch_timeout: Duration,
}

/// The sources of all components.
pub struct Sources {
    bytes_max: usize,
    means: Arc<Means>,
    following: Mutex<BTreeMap<ComponentSource, Following>>,
}

impl Sources {
    /// Nothing is asked before it is wanted. `directory` is made if it is missing; components have up to `bytes_max` bytes.
    ///
    /// # Errors
    /// If the directory can't be made.
    pub fn new(
        directory: PathBuf,
        bytes_max: usize,
        oci: OciConfig,
        objects: Objects,
        board: Arc<Board>,
    ) -> Result<Self, SourceError> {
        let kept = Arc::new(Kept::open(directory, bytes_max)?);
        let fetch_timeout = Duration::from_millis(oci.fetch_timeout_ms);
        let means = Arc::new(Means { kept, objects, registries: Registries::new(oci), board, fetch_timeout });
        Ok(Self { bytes_max, means, following: Mutex::default() })
    }

    /// The bytes of a component: of a file as it is now, of all others as they were fetched last. Blocks on the disk, never on the network.
    ///
    /// # Errors
    /// If they are not there, or too many.
    pub fn read(&self, source: &ComponentSource) -> anyhow::Result<Vec<u8>> {
        match source {
            ComponentSource::Path(file) => path::read(file, self.bytes_max),
            ComponentSource::Oci(_) | ComponentSource::Object(_) => self.means.kept.read(source),
        }
    }

    /// The file that changes when the component does.
    #[must_use]
    pub fn watched_file(&self, source: &ComponentSource) -> PathBuf {
        match source {
            ComponentSource::Path(file) => file.clone(),
            ComponentSource::Oci(_) | ComponentSource::Object(_) => self.means.kept.note_file(source),
        }
    }

    /// Follows what these consumers want, and nothing else. Of others whose manifests can't be read it is not known what they want now: what they
    /// wanted before goes on.
    pub fn follow<'a>(&self, wanted: BTreeMap<String, Wanted>, unreadable: impl Iterator<Item = &'a String>) {
        let unknown: BTreeSet<&String> = unreadable.filter(|name| !wanted.contains_key(*name)).collect();
        let mut by_source: BTreeMap<ComponentSource, BTreeMap<String, Wanted>> = BTreeMap::new();
        let remote = wanted.into_iter().filter(|(_, wanted)| wanted.source.path().is_none());
        for (name, wanted) in remote {
            by_source.entry(wanted.source.clone()).or_default().insert(name, wanted);
        }
        let mut following = self.following.lock();
        let before: BTreeMap<String, (ComponentSource, Wanted)> = following
            .iter()
            .flat_map(|(source, one)| one.wanters().into_iter().map(|(name, how)| (name, (source.clone(), how))))
            .collect();
        for (name, (source, how)) in before.iter().filter(|(name, _)| unknown.contains(name)) {
            by_source.entry(source.clone()).or_default().insert(name.clone(), how.clone());
        }
        let changed = by_source.keys().ne(following.keys());
        following.retain(|source, one| {
            let goes_on = by_source.contains_key(source);
            if !goes_on {
                // Its task ends a moment later, and says nothing more on the board.
                one.want(BTreeMap::new(), &self.means.board);
            }
            goes_on
        });
        let named: BTreeSet<&String> = by_source.values().flat_map(BTreeMap::keys).collect();
        for name in before.keys().filter(|name| !named.contains(name)) {
            self.means.board.set_source(name, None);
        }
        for (source, consumers) in by_source {
            let start = || Following::start(source.clone(), Arc::clone(&self.means));
            following.entry(source.clone()).or_insert_with(start).want(consumers, &self.means.board);
        }
        if changed && unknown.is_empty() {
            self.prune(following.keys().cloned().collect());
        }
    }

    fn prune(&self, wanted: BTreeSet<ComponentSource>) {
        let kept = Arc::clone(&self.means.kept);
        // Nothing waits for it: what it did not delete is deleted the next time.
        drop(tokio::task::spawn_blocking(move || {
            if let Err(error) = kept.prune(&wanted) {
                tracing::warn!(%error, "can't delete components that nobody needs any more");
            }
        }));
    }

    /// Asks every source that may have something else by now, and waits until all have answered, or until `limit` has passed.
    pub async fn ask_again(&self, limit: Duration) {
        let asked: Vec<_> = self.following.lock().values().map(Following::ask).collect();
        // Who is late is told of when the answer comes.
        _ = tokio::time::timeout(limit, join_all(asked)).await;
    }
}
