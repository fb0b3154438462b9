//! Write a Pelton consumer in Rust: one function that gets a message and reads and writes state, emits events, or fails.
//!
//! A whole plug-in, which counts the orders of each customer and tells when one is a regular (`src/lib.rs`):
//!
//! ```
//! use pelton_sdk::{Message, Result, context, outbox, state};
//!
//! #[derive(serde::Deserialize)]
//! struct Order {
//!     customer: String,
//! }
//!
//! pelton_sdk::consumer!(handle);
//!
//! fn handle(message: Message) -> Result {
//!     let order: Order = message.json()?; // not such JSON: a dead letter
//!     let orders = state::get::<u64>("orders")?.unwrap_or(0) + 1;
//!     state::set("orders", &orders)?;
//!     if orders == context::config_parsed("regular_from")?.unwrap_or(10) {
//!         outbox::emit(format!("regulars.{}", order.customer), &orders)?;
//!     }
//!     Ok(())
//! }
//! ```
//!
//! Its `Cargo.toml`:
//!
//! ```toml
//! [package]
//! name = "regulars"
//! edition = "2024"
//!
//! [lib]
//! crate-type = ["cdylib"]
//!
//! [dependencies]
//! pelton-sdk = { path = "../pelton/sdk" }
//! serde = { version = "1", features = ["derive"] }
//!
//! [profile.release]
//! opt-level = "s"
//! lto = true
//! strip = true
//! ```
//!
//! `rustup target add wasm32-wasip2` once, then `cargo build --release --target wasm32-wasip2`:
//! `target/wasm32-wasip2/release/regulars.wasm` is the component that a manifest names. No other tool is needed. Only the interfaces that the
//! plug-in uses are imported.
//!
//! # What an attempt is
//! The handler is called once per message, for each ordering key in stream order (or by version). Its effects (state, marks, events) become durable
//! together when it returns `Ok(())`; otherwise all of them are discarded. It is called again if an attempt failed or the host died before the
//! attempt was durable, and never after that. Each attempt has a fresh instance: what must survive goes through [`state`].
//!
//! # Failing
//! - `?` on any error is [`Failure::reject`], with the error's causes: an attempt is a function of message and state, so what failed unexpectedly would
//!   fail again. The message becomes a dead letter, which the host keeps.
//! - `.map_err(Failure::retry)?`, or `return Err(Failure::retry("…"))`: again, later; it counts as an attempt. After the last one the key is parked, with this
//!   message and all later ones, until it is released; or what else the manifest's `retry.on_exhausted` says.
//! - [`Failure::park`]: not its turn yet. It is set aside, later messages of its key go on, and it is looked at again once one of them has been applied.
//! - A panic is a trap, and is retried like that. So are running out of time and passing a limit.
//!
//! # Testing
//! `pelton_sdk::testing` is an in-memory host for `cargo test`: it runs the handler natively, with the same semantics. Cases in TOML
//! or JSON, run by `pelton test`, go through the component itself.
//!
//! # Memory
//! The feature `allocator` (on by default) sets a global allocator whose first 512 KiB need no growth of the instance's memory, which makes attempts
//! several times cheaper for the host. To use another allocator: `default-features = false`.

#[cfg(any(test, all(feature = "allocator", target_family = "wasm", not(target_feature = "atomics"))))]
mod allocator;
#[doc(hidden)]
pub mod bindings;
mod calls;
pub mod context;
mod failure;
pub mod idempotency;
pub mod log;
mod message;
pub mod outbox;
pub mod state;
#[cfg(not(target_family = "wasm"))]
pub mod testing;

pub use failure::Failure;
pub use message::{Message, PayloadError};

/// What a handler returns, and what helps to write its parts: `Result<T>` fails with a [`Failure`].
pub type Result<T = (), E = Failure> = std::result::Result<T, E>;

#[cfg(all(feature = "allocator", target_family = "wasm", not(target_feature = "atomics")))]
#[global_allocator]
static ALLOCATOR: allocator::Arena = allocator::Arena::new();

/// Makes a function the plug-in's handler: `pelton_sdk::consumer!(handle);`, once in the crate. The function takes a [`Message`] and returns a
/// [`Result`].
#[macro_export]
macro_rules! consumer {
    ($handle:path) => {
        const _: () = {
            struct Consumer;

            impl $crate::__private::Guest for Consumer {
                fn handle(
                    message: $crate::__private::Message,
                ) -> ::core::result::Result<(), $crate::__private::Failure> {
                    $crate::__private::run($handle, message)
                }
            }

    $crate::bindings::export_handler!(Consumer with_types_in $crate::bindings);
        };
    };
}

/// For [`consumer!`] only: no part of the sdk's promises.
#[doc(hidden)]
pub mod __private {
    pub use crate::bindings::exports::pelton::consumer::handler::{Failure, Guest, Message};

    /// Calls the author's function with the sdk's types.
    ///
    /// # Errors
    /// What it fails with.
    pub fn run(handle: fn(crate::Message) -> crate::Result, message: Message) -> Result<(), Failure> {
        handle(crate::Message::from_wit(message)).map_err(crate::Failure::into_wit)
    }
}
