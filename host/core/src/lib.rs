//! Every decision of the Pelton host, and no I/O: no runtime, no clock, no randomness.

pub mod batch;
pub mod breaks;
pub mod cursor;
pub mod effects;
pub mod grants;
pub mod histogram;
pub mod ids;
mod machine;
pub mod message;
pub mod parked;
pub mod plan;
pub mod policy;
pub mod time;
pub mod trace;
pub mod transaction;

pub use machine::{
    Action, Arrival, ConsumerStatus, Core, Counters, Expected, Explanation, Failures, Fetch, HaltReason, Input, Job,
    JobResult, KeyParked, KeyRunning, KnownConsumer, LaneDoing, LaneId, Operation, OperationRefused, OutboxItem,
    OutboxPlace, OutboxRow, Probation, Recovered, Run, Settings, Start, Status, Turn, VersionRule, WaitsFor,
};
