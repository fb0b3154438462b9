//! Every decision of the Pelton host, and no I/O: no runtime, no clock, no randomness.

pub mod batch;
pub mod cursor;
pub mod effects;
pub mod grants;
pub mod ids;
pub mod message;
pub mod policy;
pub mod time;
pub mod transaction;
