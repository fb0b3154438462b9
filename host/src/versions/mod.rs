//! What the host remembers of the versions of each consumer: their bytes, and a ledger of which served, which was refused, and why.
//!
//! All of it lies below the data directory, in `versions/`. A restart can therefore go on with the version that served although its file is gone or broken, and a
//! version that was taken back stays away.

mod ledger;
mod shelf;

pub use ledger::{Entry, Ledger, State};
pub use shelf::Versions;
