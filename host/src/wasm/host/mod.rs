//! The contract's imports, one file per interface, each a thin step from the guest's types to the core's transaction.
//!
//! A limit that is passed and a store that can't be read come out as errors and end the attempt; see [`super::ended`].

mod context;
mod idempotency;
mod log;
mod outbox;
mod state;

use super::attempt::Attempt;
use super::generated::pelton::consumer::types;

impl types::Host for Attempt {}
