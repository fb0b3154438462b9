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

use std::ops::Bound;

pub(super) use consumers::Consumer;
pub(super) use meta::{FORMAT_VERSION, Meta};
pub(super) use snapshot::Snapshot;
pub(super) use state::Entry as StateEntry;
pub(super) use write::{Expiry, create, write};

/// The bounds of all keys that begin with a consumer's number.
fn keys_of(consumer: u32) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let first = Bound::Included(consumer.to_be_bytes().to_vec());
    let end = consumer.checked_add(1).map_or(Bound::Unbounded, |next| Bound::Excluded(next.to_be_bytes().to_vec()));
    (first, end)
}
