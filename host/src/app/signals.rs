//! The signals that end a host, and steps that they cut short.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listening for signals");
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// A step of the start or of the end that a signal cuts short; none: one did.
pub(super) async fn interruptible<T>(signals: &mut Signals, step: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = step => Some(done),
        signal = signals.next() => {
            tracing::info!(signal, "stopping at once: there is nothing under way that a restart would not find");
            None
        }
    }
}
