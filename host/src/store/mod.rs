//! The store: what is durable, and the newest state that an attempt may see.
//!
//! - The *commit log* (`log.redb`) is the truth: each batch is one record, appended by one durable commit. [`Log`] belongs to the committer's thread.
//! - The *view* (`view.redb`) is the net result of the log up to a position, in tables. [`Checkpointer`] folds the log into it, in few and large
//!   transactions, and has a file of its own so that it never delays a commit. What was written and deleted in between never reaches it.
//! - The *overlay* is memory: what was executed and the view doesn't hold yet. [`Reader`] reads the overlay, then the view.
//!
//! Parked messages and dead letters lie in all three like state does: executors, releases and operators see at once what is not durable yet, and
//! read it in pages, whatever there is of it.
//!
//! Recovery is a checkpoint: open the view, fold the rest of the log. Nothing else changes the view's tables.
//!
//! Decisions:
//! - Commits have two phases (two syncs). With one phase, redb takes a last commit that fails its checksum for one that a crash interrupted, and goes back
//!   to the one before: then one damaged page would silently undo a batch that was settled. With two phases it is an error. It also closes the door on values
//!   crafted to look like a valid commit. Measured, the CPU is the same and each append waits for one more sync: 0.12 ms on an idle disk, more on a busy one,
//!   which larger batches make up for.
//! - No quick repair: each open reads both files whole and verifies every page, since redb trusts a file that was closed cleanly and may serve or
//!   panic on damaged pages. The allocator state that quick repair saves with each commit would not be used.
//! - Nothing is written to either file before both were found to be sound (see `held`).
//! - What is written is a function of the batches, the seed and the times given: a simulator runs this very store on a disk of its own (see `simulated`).
//!
//! `redb` is named nowhere else in the host.

mod checkpoint;
mod error;
mod files;
mod fold;
mod held;
mod log;
mod open;
mod overlay;
mod reader;
mod record;
#[cfg(any(test, feature = "fault-injection"))]
mod simulated;
mod sizes;
mod view;

pub use checkpoint::{Checkpointer, Folded};
pub use error::{AppendError, CheckpointError, OpenError, StoreFailure};
pub use log::{Appended, Log};
pub use open::{Opened, OutboxRow, Recovered, RecoveredConsumer, Settings, open};
pub use reader::{
    DeadLetterQuery, ParkedQuery, Reader, StatePage, StatePlace, StoredDeadLetter, StoredParked, StoredState,
};
pub use record::{RecordError, encode_batch};
#[cfg(any(test, feature = "fault-injection"))]
pub use simulated::{SimulatedDisk, create_simulated, open_simulated};
pub use sizes::file_sizes;

#[cfg(test)]
mod tests;
