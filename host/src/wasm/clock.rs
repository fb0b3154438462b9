//! The thread that moves the engine's epoch on. Deadlines are counted in its ticks.
//!
//! A thread of the operating system and not a task: a plug-in that spins on a runtime's workers must not be able to stop its timers.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::Engine;

/// The length of a tick, in milliseconds: an attempt ends at most this long after its time is over.
pub const EPOCH_TICK_MS: u64 = 10;

/// Ticks until its owner is dropped, which waits for the thread to end.
pub(super) struct EpochClock {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl EpochClock {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the operating system gives no thread.
    pub(super) fn start(engine: &Engine) -> std::io::Result<Self> {
        let (stop, stopped) = channel();
        let engine = engine.clone();
        let thread = std::thread::Builder::new().name("pelton-epoch".into()).spawn(move || {
            while stopped.recv_timeout(Duration::from_millis(EPOCH_TICK_MS)) == Err(RecvTimeoutError::Timeout) {
                engine.increment_epoch();
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for EpochClock {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The thread does nothing that could panic, and there is nobody to tell.
            drop(thread.join());
        }
    }
}

/// Ticks after which `timeout_ms` are over for certain: one more than it has, since the current tick has begun already.
pub(super) fn ticks(timeout_ms: u64) -> u64 {
    timeout_ms.div_ceil(EPOCH_TICK_MS).saturating_add(1)
}
