//! A host at work, and its end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use flume::Sender;
use pelton_core::Input;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::run::End;
use super::signals::{Signals, interruptible};
use super::start::{Links, Threads};
use crate::admin::AdminServer;
use crate::config::HostConfig;
use crate::deploy::Deployer;
use crate::driver::Note;
use crate::telemetry::traces::Exporting;

/// Time for the connections to send what is left, after the drain.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Everything that runs, from [`super::start`].
pub(super) struct Host {
    pub(super) notes: Sender<Note>,
    pub(super) threads: Threads,
    pub(super) links: Links,
    pub(super) deploying: JoinHandle<Deployer>,
    pub(super) no_more_deployments: CancellationToken,
    pub(super) admin: Option<AdminServer>,
    pub(super) exporting: Option<Exporting>,
    pub(super) cancel: CancellationToken,
}

impl Host {
    /// Waits for a signal, or for something to break, and ends the host.
    pub(super) async fn run(mut self, config: &HostConfig, signals: &mut Signals) -> anyhow::Result<End> {
        tokio::select! {
            ended = &mut self.threads.ended => {
                ended.context("the driver thread broke")??;
                anyhow::bail!("the driver ended without being told to");
            }
            // It ends only after `no_more_deployments`.
            broken = &mut self.deploying => {
                broken.map(drop).context("the deployment task broke")?;
                anyhow::bail!("the deployment task ended without being told to");
            }
            signal = signals.next() => tracing::info!(signal, drain_ms = config.limits.drain_ms, "stopping: finishing what is under way"),
        }
        self.no_more_deployments.cancel();
        self.threads.shared.draining.store(true, Ordering::Relaxed);
        // If the driver is gone, `ended` says why.
        _ = self.notes.send(Note::Core(Input::Drain));
        let drain = tokio::time::timeout(Duration::from_millis(config.limits.drain_ms), &mut self.threads.ended);
        tokio::select! {
            drained = drain => match drained {
                Ok(ended) => ended.context("the driver thread broke")??,
                Err(_) => {
                    tracing::warn!(drain_ms = config.limits.drain_ms, "the deadline has passed: what is still under way is cut off and will be delivered again");
                    return Ok(End::CutOff);
                }
            },
            signal = signals.next() => {
                tracing::warn!(signal, "second signal: stopping at once");
                return Ok(End::AtOnce);
            }
        }
        let closed = interruptible(signals, self.close()).await;
        Ok(if closed.is_some() { End::Drained } else { End::AtOnce })
    }

    async fn close(self) {
        let Self { threads, links, deploying, admin, exporting, cancel, .. } = self;
        let Links { consuming, publishing, publisher, .. } = links;
        drop(admin);
        // The driver has ended, and with it the channels to the other threads.
        _ = tokio::task::spawn_blocking(move || threads.join()).await;
        let close = async {
            if let Ok(deployer) = deploying.await {
                deployer.close().await;
            }
            publisher.stop().await;
            publishing.close().await;
            if let Some(consuming) = Arc::into_inner(consuming) {
                consuming.close().await;
            }
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, close).await.is_err() {
            tracing::warn!("the nats connections did not close in time");
        }
        if let Some(exporting) = exporting {
            exporting.close().await;
        }
        cancel.cancel();
        tracing::info!("stopped");
    }
}
