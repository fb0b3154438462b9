//! x
pub mod nats;
