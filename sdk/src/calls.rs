//! Where the sdk's calls go: to the host in a component, to the in-memory host of [`crate::testing`] elsewhere.

#[cfg(target_family = "wasm")]
pub(crate) use crate::bindings::pelton::consumer::{context, idempotency, log, outbox, state};
#[cfg(not(target_family = "wasm"))]
pub(crate) use crate::testing::calls::{context, idempotency, log, outbox, state};
