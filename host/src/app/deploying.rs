//! The deployment task.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::deploy::{Deploy, Deployer, RETRY_AFTER, Watcher};

/// The task that looks at the consumer directory at the start and after every change.
pub(super) struct Deploying {
    pub(super) deployer: Deployer,
    pub(super) watcher: Watcher,
    pub(super) changes: mpsc::Receiver<()>,
    /// Whether changes are applied as they come; otherwise only when that is asked for.
    pub(super) watch: bool,
    /// Set once the directory was looked at, and what follows from it was done.
    pub(super) deployed: Arc<AtomicBool>,
    pub(super) stop: CancellationToken,
}

impl Deploying {
    /// Goes on until it is told to stop, also in the middle of a deployment; gives back what runs.
    pub(super) async fn run(mut self) -> Deployer {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.deploy_for_ever()).await;
        self.deployer
    }

    async fn deploy_for_ever(&mut self) {
        let mut asked = None;
        loop {
            let applied = self.deployer.apply(asked.take()).await;
            if applied.complete {
                self.deployed.store(true, Ordering::Relaxed);
            }
            if !self.watch {
                let again_at = applied.again_at.filter(|_| !applied.complete);
                asked = self.wait(again_at).await;
                continue;
            }
            let watched = self.watcher.watch(applied.files.iter().map(PathBuf::as_path));
            if watched.new {
                // What changed between the look and the watch would be missed: look again at once.
                continue;
            }
            let watch_again = watched.failed.then(|| Instant::now() + RETRY_AFTER);
            let again_at = applied.again_at.into_iter().chain(watch_again).min();
            asked = self.wait(again_at).await;
        }
    }

    /// Waits until another look is due, and serves on the way what needs none; gives back who asked for it.
    async fn wait(&mut self, again_at: Option<Instant>) -> Option<Deploy> {
        loop {
            let again = async {
                match again_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let request = tokio::select! {
                // The watcher lives as long as this task: its channel does not close before.
                _ = self.changes.recv(), if self.watch => return None,
                () = again => return None,
                request = self.deployer.asked() => request,
            };
            if let Some(deploy) = self.deployer.answer(request).await {
                return Some(deploy);
            }
        }
    }
}
