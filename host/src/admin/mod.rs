//! The admin server: what an operator, or `pelton status`, can ask a running host. Loopback only.

mod api;
mod client;
mod server;
mod views;

pub use api::{Attempt, ConsumerView, DeadLetterView, HealthView, OutboxView, StatusView};
pub use client::{Client, ClientError};
pub use server::{Admin, AdminServer};
