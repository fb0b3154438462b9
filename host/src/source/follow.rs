//! The task of one source: asks it at the start, when it is told to, when the source announces a change, and again after what failed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pelton_core::ids::Version;
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

use super::error::SourceError;
use super::kept::Arrived;
use super::object;
use super::sources::{Means, Wanted};
use crate::board::Board;
use crate::config::ComponentSource;
use crate::nats::ObjectWatch;

/// First pause after a failure; doubled each time.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_LONGEST: Duration = Duration::from_secs(60);
/// How often an object is looked at that announced nothing. What announces its changes is a hint.
const OBJECT_POLL: Duration = Duration::from_secs(30);

/// A source that at least one consumer wants. Dropped, its task ends.
pub(super) struct Following {
    shared: Arc<Shared>,
    answered: watch::Receiver<u64>,
    _task: AbortOnDropHandle<()>,
}

struct Shared {
    /// Wakes the task.
    again: Notify,
    /// Rises with each wish that the source be asked.
    asked: AtomicU64,
    wanters: Mutex<Wanters>,
}

/// The consumers that want the source, and what is wrong with it.
#[derive(Default)]
struct Wanters {
    consumers: BTreeMap<String, Wanted>,
    trouble: Option<String>,
}

impl Following {
    /// Begins to ask.
    pub(super) fn start(source: ComponentSource, means: Arc<Means>) -> Self {
        let shared = Arc::new(Shared { again: Notify::new(), asked: AtomicU64::new(1), wanters: Mutex::default() });
        let (sender, answered) = watch::channel(0);
        let announcements = match &source {
            ComponentSource::Object(object) => Some(means.objects.watch(&object.bucket, &object.name)),
            _ => None,
        };
        let task = Follower { source, means, shared: Arc::clone(&shared), answered: sender, announcements };
        Self { shared, answered, _task: AbortOnDropHandle::new(tokio::spawn(task.run())) }
    }

    /// Who wants it, and how.
    pub(super) fn wanters(&self) -> BTreeMap<String, Wanted> {
        self.shared.wanters.lock().consumers.clone()
    }

    /// Sets who wants it. Whoever is new, or wants it otherwise than before, has the source asked again.
    pub(super) fn want(&self, consumers: BTreeMap<String, Wanted>, board: &Board) {
        let mut wanters = self.shared.wanters.lock();
        for name in consumers.keys() {
            board.set_source(name, wanters.trouble.clone());
        }
        let news = consumers.iter().any(|(name, wanted)| wanters.consumers.get(name) != Some(wanted));
        let is_first = wanters.consumers.is_empty();
        wanters.consumers = consumers;
        drop(wanters);
        // The task asks by itself when it begins.
        if news && !is_first {
            drop(self.ask());
        }
    }

    /// Has the source asked. What is given back ends when it has answered, or could not.
    pub(super) fn ask(&self) -> impl Future<Output = ()> + use<> {
        let ticket = self.shared.asked.fetch_add(1, Ordering::Relaxed) + 1;
        self.shared.again.notify_one();
        let mut answered = self.answered.clone();
        // The task only ends with everything else; then there is nothing to wait for.
        async move { _ = answered.wait_for(|answered| *answered >= ticket).await }
    }
}

struct Follower {
    source: ComponentSource,
    means: Arc<Means>,
    shared: Arc<Shared>,
    answered: watch::Sender<u64>,
    announcements: Option<ObjectWatch>,
}

impl Follower {
    async fn run(mut self) {
        let mut pause = PAUSE_FIRST;
        loop {
            let ticket = self.shared.asked.load(Ordering::Relaxed);
            let outcome = self.ask().await;
            let wait = if outcome.is_ok() {
                pause = PAUSE_FIRST;
                self.poll()
            } else {
                let wait = pause;
                pause = (pause * 2).min(PAUSE_LONGEST);
                Some(wait)
            };
            self.tell(outcome).await;
            self.answered.send_replace(ticket);
            let announced = async {
                match &mut self.announcements {
                    Some(announcements) => announcements.changed().await,
                    None => std::future::pending().await,
                }
            };
            let waited = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.shared.again.notified() => {}
                () = announced => {}
                () = waited => {}
            }
        }
    }

    /// How long it takes until a source is asked again that has answered.
    fn poll(&self) -> Option<Duration> {
        if self.announcements.is_some() {
            return Some(OBJECT_POLL);
        }
        let wanters = self.shared.wanters.lock();
        let shortest = wanters.consumers.values().map(|wanted| wanted.poll_ms).filter(|poll| *poll > 0).min();
        shortest.map(Duration::from_millis)
    }

    /// Asks the source, and keeps what it has. The version that it has now, and whether that is news.
    async fn ask(&self) -> Result<(Version, bool), SourceError> {
        let limit = self.means.fetch_timeout;
        let (version, arrived) =
            tokio::time::timeout(limit, self.fetch()).await.map_err(|_| SourceError::TimedOut(limit))??;
        let is_news = arrived.is_some();
        let (kept, source) = (Arc::clone(&self.means.kept), self.source.clone());
        tokio::task::spawn_blocking(move || kept.note(&source, version, arrived)).await??;
        Ok((version, is_news))
    }

    async fn fetch(&self) -> Result<(Version, Option<Arrived>), SourceError> {
        match &self.source {
            ComponentSource::Object(object) => {
                object::fetch(&self.means.objects, &self.source, object, &self.means.kept).await
            }
            ComponentSource::Oci(image) => self.means.registries.fetch(&self.source, image, &self.means.kept).await,
            // Files are read where they are.
            ComponentSource::Path(_) => std::future::pending().await,
        }
    }

    /// In the log and on the board; each trouble once.
    async fn tell(&self, outcome: Result<(Version, bool), SourceError>) {
        let source = &self.source;
        let trouble = match outcome {
            Ok((version, is_news)) => {
                if is_news {
                    tracing::info!(%source, version = version.short(), "component fetched");
                }
                None
            }
            Err(error) => Some(self.trouble(&error).await),
        };
        let mut wanters = self.shared.wanters.lock();
        if wanters.trouble != trouble {
            match &trouble {
                Some(trouble) => tracing::warn!("{trouble}"),
                None => tracing::info!(%source, "the source of the component answers again"),
            }
            for name in wanters.consumers.keys() {
                self.means.board.set_source(name, trouble.clone());
            }
            wanters.trouble = trouble;
        }
    }

    async fn trouble(&self, error: &SourceError) -> String {
        let source = &self.source;
        match self.means.kept.version_of(source).await {
            Ok(Some(version)) => {
                format!(
                    "component {source}: {error}; version {} serves, as it was fetched before, and the source is asked again",
                    version.short()
                )
            }
            _ => {
                format!("component {source}: {error}; nothing of it was fetched before, and the source is asked again")
            }
        }
    }
}
