//! The Pelton host: runs NATS JetStream consumers that are WebAssembly components.

pub mod config;
pub mod ingest;
pub mod telemetry;
