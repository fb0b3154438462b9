//! The Pelton host: runs message consumers, written as WebAssembly components, on NATS JetStream.
//!
//! Every decision is made in [`pelton_core`]; this crate is the shell around it. `ARCHITECTURE.md` beside it tells how the parts go together.

pub mod admin;
pub mod app;
pub mod author;
pub mod board;
pub mod cli;
pub mod clock;
pub mod config;
pub mod deploy;
pub mod deployed;
pub mod doctor;
pub mod driver;
pub mod durability;
pub mod executor;
pub mod faults;
pub mod guard;
pub mod ingest;
pub mod intake;
#[cfg(feature = "native-bench")]
mod native;
pub mod nats;
pub mod observe;
pub mod relay;
pub mod room;
pub mod scheduling;
pub mod source;
pub mod store;
pub mod telemetry;
pub mod versions;
pub mod wasm;
