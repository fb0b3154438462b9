//! The admin server: what an operator, or the command line, can ask a running host and have it do. On loopback, or with a token.

mod actions;
mod api;
mod client;
mod consumers;
mod dead_letters;
mod failed;
mod messages;
mod metrics;
mod openapi;
mod outbox;
mod pages;
mod parked;
mod rewind;
mod routes;
mod secret;
mod server;
mod state;
mod versions;
mod views;
mod words;

pub use api::{
    ConsumerDetailView, ConsumerView, FailuresView, HealthView, HoldView, OutboxView, SpeedView, StatusView,
};
pub use client::{Client, ClientError, Filter, PAYLOAD_BYTES_MAX, Pages, Which};
pub use failed::{ErrorCode, ErrorView};
pub use messages::{
    Attempt, BehindView, Content, DeadLetterView, DoneView, ExplainView, KeyParkedView, KeyRunningView, ParkedView,
    ResumedView,
};
pub use outbox::OutboxRowView;
pub use rewind::RewindView;
pub use secret::Secret;
pub use server::{Admin, AdminServer};
pub use state::{StateChange, StateChanges, StateView};
pub use versions::{DeployView, DeployWhat, RollBackTo, RolledBackView, StepView, VersionView};
