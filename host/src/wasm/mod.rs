//! The sandbox: the one module that knows wasmtime.
//!
//! One [`Sandbox`] serves the whole host. [`Sandbox::load`] turns a component's bytes into a verified [`Plugin`]; [`Sandbox::run`] makes a
//! fresh instance of it, hands it one message and gives back its effects or its failure. Both are synchronous: loading belongs on a
//! thread that may be busy for seconds, running on an executor thread with a stack of [`EXECUTOR_STACK_BYTES`].
//!
//! A plug-in can't stop, crash, starve or bloat the host: time is limited by epochs, memory and tables by the pool and a limiter, what a
//! call carries by wasmtime, what an attempt does by its transaction, what it writes by the budget of its lines. A
//! store is made for one attempt and dropped with it, unless a manifest chooses that instances serve several ([`Sandbox::run_kept`]).

mod attempt;
mod clock;
mod cost;
mod ended;
mod engine;
mod gate;
mod generated;
mod growth;
mod host;
mod lines;
mod load;
mod output;
mod precompiled;
mod sandbox;
mod verify;
mod warm;
mod wasi;

pub use attempt::{Identity, RunLimits};
pub use clock::EPOCH_TICK_MS;
pub use engine::{EXECUTOR_STACK_BYTES, SandboxError, Settings};
pub use lines::Line;
pub use load::{LoadTerms, Plugin};
pub use output::{LogBudget, Output};
pub use sandbox::{Sandbox, Told};
pub use verify::LoadError;
pub use warm::{KEPT_PER_THREAD, Kept, Outcome, Serves};

#[cfg(test)]
mod tests;
