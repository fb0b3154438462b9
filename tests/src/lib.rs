//! What Pelton is tested with: the harness that runs the real host against a real nats-server, the checker that judges what came
//! out, and the bodies of the task runner's commands.
//!
//! Nothing here knows the host from within: it is started as a program, fed through JetStream, and watched through its output, its
//! admin address and its exit status.

pub mod bench;
pub mod chain;
pub mod checker;
pub mod client;
pub mod collector;
pub mod crash;
pub mod demo;
pub mod faults;
pub mod host;
pub mod http;
pub mod load;
pub mod manifest;
pub mod metrics;
pub mod nats;
pub mod process;
pub mod progress;
pub mod random;
pub mod reader;
pub mod registry;
mod rig;
pub mod sim;
pub mod steps;
pub mod tools;
pub mod wait;
