//! The composition root: builds everything, owns every task and thread, and brings them down in order.
//!
//! Order of the end: no new work, running attempts end, their outcomes are committed and settled, events in flight are acknowledged, a last
//! checkpoint, the connections, and the embedded server last. Whatever does not end in time is cut off: nothing depends on a clean end.

mod deploying;
mod host;
mod run;
mod signals;
mod start;

pub use run::{End, run, run_observed};
pub(crate) use start::connect_settings;
