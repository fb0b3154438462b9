//! A narrow way to watch attempts: what each did, told by the executors as it happens. Used by `pelton dev`; in a host that nobody watches there is no
//! observer, and an executor asks no more than whether there is one.
//!
//! Whoever watches never slows the host: what doesn't fit the channel is counted and dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use flume::{Receiver, Sender, TrySendError, bounded};
use pelton_core::effects::{Space, WriteSet};
use pelton_core::ids::Version;
use pelton_core::message::{Failure, Message};
use pelton_core::transaction::{ReadError, StateView};

use crate::wasm::Told;

/// Attempts that wait to be looked at.
const WAITING_MAX: usize = 1_024;

/// What became of a message that an executor had in hand.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The consumer's name.
    pub consumer: Box<str>,
    /// The message.
    pub message: Arc<Message>,
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// What became of it.
    pub what: What,
}

/// What became of a message.
#[derive(Clone, Debug)]
pub enum What {
    /// An attempt was made.
    Attempted {
        /// The version that made it.
        version: Version,
        /// Its effects, or how it failed.
        outcome: Result<WriteSet, Failure>,
        /// Of each of its state changes, in their order, what was there before.
        before: Vec<Option<Bytes>>,
        /// What it wrote and used.
        told: Told,
    },
    /// Its id was applied before.
    Duplicate,
    /// Its entity has a newer version.
    Stale,
    /// It waits for this version of its entity.
    Gap(u64),
}

/// Where executors tell what they did.
#[derive(Debug)]
pub struct Observer {
    sender: Sender<Observed>,
    missed: Arc<AtomicU64>,
}

/// The other end.
#[derive(Debug)]
pub struct Observations {
    receiver: Receiver<Observed>,
    missed: Arc<AtomicU64>,
}

/// An observer and what comes of it.
#[must_use]
pub fn channel() -> (Observer, Observations) {
    let (sender, receiver) = bounded(WAITING_MAX);
    let missed = Arc::new(AtomicU64::new(0));
    (Observer { sender, missed: Arc::clone(&missed) }, Observations { receiver, missed })
}

impl Observer {
    /// Tells; drops and counts it if nobody keeps up. That nobody listens any more is the end of the program.
    pub fn tell(&self, observed: Observed) {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(observed) {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was there before each state change of an attempt.
    ///
    /// # Errors
    /// [`ReadError`] if the store can't be read: the host has to stop.
    pub fn before(
        view: &dyn StateView,
        scope: &pelton_core::effects::Scope,
        outcome: &Result<WriteSet, Failure>,
        now_ms: u64,
    ) -> Result<Vec<Option<Bytes>>, ReadError> {
        let Ok(writes) = outcome else { return Ok(Vec::new()) };
        let changes = writes.state.iter().filter(|write| write.space == Space::User);
        changes.map(|write| view.get(scope, write.space, &write.key, now_ms)).collect()
    }
}

impl Observations {
    /// The next one; none: the host is gone.
    #[must_use]
    pub fn next(&self) -> Option<Observed> {
        self.receiver.recv().ok()
    }

    /// How many were dropped since this was asked last.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed.swap(0, Ordering::Relaxed)
    }
}
