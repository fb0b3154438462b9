//! The admin server: what an operator, or the command line, can ask a running host and have it do. Loopback only.

mod actions;
mod api;
mod client;
mod consumers;
mod dead_letters;
mod failed;
mod messages;
mod pages;
mod parked;
mod server;
mod versions;
mod views;
mod words;

pub use api::{ConsumerView, FailuresView, HealthView, HoldView, OutboxView, StatusView};
pub use client::{Client, ClientError, Filter, PAYLOAD_BYTES_MAX, Pages, Which};
pub use messages::{
    Attempt, BehindView, Content, DeadLetterView, DoneView, ExplainView, KeyParkedView, KeyRunningView, ParkedView,
    ResumedView,
};
pub use server::{Admin, AdminServer};
pub use versions::{DeployView, DeployWhat, RollBackTo, RolledBackView, StepView, VersionView};
