//! A host's life: open the store, start the embedded server if there is one, start, run, end.

use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::host::Host;
use super::signals::{Signals, interruptible};
use super::start::mark_ttl_ms;
use crate::clock::Clock;
use crate::config::{HostConfig, NatsServer};
use crate::nats::{EmbeddedServer, EmbeddedSettings};
use crate::observe::Observer;
use crate::store::{self, Opened};

/// Time that the embedded server has to stop by itself.
const SERVER_STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// How the host came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Everything under way was finished.
    Drained,
    /// The deadline passed first; what was cut off is delivered again at the next start.
    CutOff,
    /// A second signal.
    AtOnce,
}

/// Runs a host until a signal ends it.
///
/// # Errors
/// If it can't start, or something breaks that it can't go on without.
pub async fn run(config: HostConfig) -> anyhow::Result<End> {
    run_observed(config, None).await
}

/// The same, with somebody watching every attempt.
///
/// # Errors
/// As for [`run`].
pub async fn run_observed(config: HostConfig, observer: Option<Observer>) -> anyhow::Result<End> {
    let mut signals = Signals::new()?;
    let cancel = CancellationToken::new();
    // However this function is left, everything that listens to the token ends.
    let _cancelled_at_the_end = cancel.clone().drop_guard();
    let Some(opened) = interruptible(&mut signals, open_store(&config)).await else { return Ok(End::Drained) };
    let opened = opened?;
    let Some(server) = interruptible(&mut signals, start_server(&config)).await else { return Ok(End::Drained) };
    let server = server?;
    let end = serve(&config, opened, server.as_ref(), (&cancel, observer), &mut signals).await;
    // Also after an error: nobody else would end the child.
    if let Some(server) = server {
        interruptible(&mut signals, server.stop()).await;
    }
    end
}

async fn serve(
    config: &HostConfig,
    opened: Opened,
    server: Option<&EmbeddedServer>,
    (cancel, observer): (&CancellationToken, Option<Observer>),
    signals: &mut Signals,
) -> anyhow::Result<End> {
    match interruptible(signals, Host::start(config, opened, server, cancel, observer)).await {
        Some(host) => host?.run(config, signals).await,
        None => Ok(End::Drained),
    }
}

async fn open_store(config: &HostConfig) -> anyhow::Result<Opened> {
    let settings = store::Settings {
        directory: config.store.path.clone(),
        cache_bytes: config.store.cache_bytes,
        processed_ids_ms: mark_ttl_ms(config),
    };
    let opening = tokio::task::spawn_blocking(move || store::open(&settings, Clock::start().now()));
    Ok(opening.await.context("the thread that opens the store broke")??)
}

async fn start_server(config: &HostConfig) -> anyhow::Result<Option<EmbeddedServer>> {
    let NatsServer::Embedded { binary, port } = &config.nats.server else { return Ok(None) };
    let settings = EmbeddedSettings {
        binary: binary.clone(),
        port: *port,
        data_directory: config.store.path.clone(),
        sync_always: false,
        stop_timeout: SERVER_STOP_TIMEOUT,
    };
    Ok(Some(EmbeddedServer::start(settings).await?))
}
