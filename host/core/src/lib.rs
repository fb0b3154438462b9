//! Every decision of the Pelton host, and no I/O: no runtime, no clock, no randomness.

pub mod batch;
pub mod breaks;
pub mod cursor;
pub mod effects;
pub mod grants;
pub mod ids;
mod machine;
pub mod message;
pub mod plan;
pub mod policy;
pub mod time;
pub mod transaction;

pub use machine::{
    Action, Arrival, ConsumerStatus, Core, Counters, HaltReason, Input, Job, JobResult, KnownConsumer, LaneId,
    OutboxRow, Recovered, Run, Settings, Start, Status,
};
