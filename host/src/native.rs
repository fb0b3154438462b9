//! The handler of guests/order-counter compiled into the host, in place of a component: against it the benchmark measures what the sandbox costs.
//!
//! Only with the feature `native-bench`, which no release has, and only for consumers whose manifest says `native = true` in `[config]`.

use std::sync::Arc;

use pelton_core::effects::WriteSet;
use pelton_core::message::Failure;
use pelton_core::transaction::{CallError, ReadError, Transaction};

use crate::wasm::Identity;

#[path = "../../guests/order-counter/src/work.rs"]
mod work;

/// Whether the consumer's messages are handled here.
pub(crate) fn is_chosen(identity: &Identity) -> bool {
    identity.config.get("native").is_some_and(|value| value == "true")
}

/// Makes an attempt, as [`crate::wasm::Sandbox::run`] does.
///
/// # Errors
/// [`ReadError`] if the store can't be read.
pub(crate) fn run(mut transaction: Transaction) -> Result<Result<WriteSet, Failure>, ReadError> {
    match handle(&mut transaction) {
        Ok(Ok(())) => Ok(Ok(transaction.into_writes())),
        Ok(Err(reason)) => Ok(Err(Failure::Reject { reason: reason.into() })),
        Err(CallError::Limit(limit)) => Ok(Err(Failure::Limit { reason: limit.to_string().into() })),
        Err(CallError::Read(error)) => Err(error),
    }
}

/// What order-counter does, call by call. The inner error is a rejection.
fn handle(transaction: &mut Transaction) -> Result<Result<(), String>, CallError> {
    let message = Arc::clone(transaction.message());
    let Some(key) = message.key.as_deref() else { return Ok(Err("a message without a key".to_owned())) };
    let before = transaction.get("counter")?;
    let done = match work::handle(&message.payload, before.as_deref(), key, &message.id, message.sequence) {
        Ok(done) => done,
        Err(error) => return Ok(Err(error.to_string())),
    };
    transaction.set("counter", done.state.into(), None)?;
    let emitted = transaction.emit(&format!("out.{}", message.subject), done.event.into(), &[], None)?;
    Ok(emitted.map(|_| ()).map_err(|refused| format!("an event was refused: {refused:?}")))
}
