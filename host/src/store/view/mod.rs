//! The view: the net result of the log up to a position, in the redb file `view.redb`.
//!
//! One table a file, its key encoding beside it; all keys sort as their parts do. [`write`] is the only code that changes tables, at run time and in
//! recovery; [`Snapshot`] is what readers see.

mod consumers;
mod dead_letters;
mod ids;
mod meta;
mod outbox;
mod parked;
mod snapshot;
mod state;
mod write;

pub(super) use consumers::Consumer;
pub(super) use meta::{FORMAT_VERSION, Meta};
pub(super) use snapshot::Snapshot;
pub(super) use write::{Expiry, create, write};
