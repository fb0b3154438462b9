//! The state machine: what happens goes in as [`Input`], what is to be done comes out as [`Action`].

mod breaker;
mod commit;
mod consumer;
mod core;
mod dispatch;
mod event;
mod explain;
mod hold;
mod lanes;
mod operate;
mod outcome;
mod pace;
mod parking;
mod probation;
mod publishing;
mod reading;
mod relay;
mod rewind;
mod status;

pub use self::consumer::{Counters, Failures};
pub use self::core::{Core, Recovered, Settings};
pub use self::event::{
    Action, Arrival, Fetch, HaltReason, Input, Job, JobResult, KnownConsumer, LaneId, OutboxRow, Run, Start, Turn,
    VersionRule,
};
pub use self::explain::{Explanation, KeyParked, KeyRunning, LaneDoing, WaitsFor};
pub use self::operate::{Expected, Operation, OperationRefused};
pub use self::probation::Probation;
pub use self::relay::{OutboxItem, OutboxPlace};
pub use self::status::{ConsumerStatus, Status};

#[cfg(test)]
mod tests;
