//! The state machine: what happens goes in as [`Input`], what is to be done comes out as [`Action`].

mod commit;
mod consumer;
mod core;
mod dispatch;
mod event;
mod lanes;
mod relay;
mod status;

pub use self::consumer::Counters;
pub use self::core::{Core, Recovered, Settings};
pub use self::event::{
    Action, Arrival, HaltReason, Input, Job, JobResult, KnownConsumer, LaneId, OutboxRow, Run, Start,
};
pub use self::status::{ConsumerStatus, Status};

#[cfg(test)]
mod tests;
