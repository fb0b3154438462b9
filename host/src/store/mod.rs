//! The store: what is durable, and the newest state that an attempt may see.
//!
//! - The *commit log* (`commit.log`) is the truth: each batch is one record, appended by one write and one sync. [`Log`] belongs to the committer's thread.
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
//! - The log is a file of our own and no database: an append to a table writes nine pages and syncs twice (see ARCHITECTURE.md, *Decisions*). Its only user is the fold,
//!   which reads it in order; `log/file.rs` says what is written and what a crash can leave.
//! - The view's commits have two phases (two syncs). With one phase, redb takes a last commit that fails its checksum for one that a crash interrupted, and goes back
//!   to the one before: then one damaged page would silently undo what was folded. With two phases it is an error. It also closes the door on values
//!   crafted to look like a valid commit.
//! - The view knows how far the log must reach at least, so a log that lost records which were folded is an error, too.
//! - No quick repair: each open reads both files whole and verifies all of them, since redb trusts a file that was closed cleanly and may serve or
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
