//! The contract's imports, as functions of the attempt that runs on this thread. Each has the name and the type that the bindings give it.

use std::cell::RefCell;

use super::attempt::Transaction;
use super::limits::LimitPassed;

thread_local! {
    static RUNNING: RefCell<Option<Transaction>> = const { RefCell::new(None) };
}

/// Makes this the attempt that runs on the thread.
pub(super) fn begin(transaction: Transaction) {
    RUNNING.set(Some(transaction));
}

/// Ends the attempt that runs on the thread.
pub(super) fn end() -> Option<Transaction> {
    RUNNING.take()
}

/// Whether an attempt runs on the thread.
pub(super) fn is_running() -> bool {
    RUNNING.with_borrow(Option::is_some)
}

/// # Panics
/// If no attempt runs on this thread.
fn with<T>(call: impl FnOnce(&mut Transaction) -> T) -> T {
    let result = RUNNING.with_borrow_mut(|running| running.as_mut().map(call));
    match result {
        Some(result) => result,
        None => super::host::fail(
            "no message is being handled on this thread: run the handler with pelton_sdk::testing::Host",
        ),
    }
}

/// A call that passes a limit does not return.
fn within_limits<T>(call: impl FnOnce(&mut Transaction) -> Result<T, LimitPassed>) -> T {
    match with(call) {
        Ok(value) => value,
        // Unlike a panic it is not told on stderr: the attempt's outcome tells it.
        Err(passed) => std::panic::resume_unwind(Box::new(passed)),
    }
}

/// `state`
pub(crate) mod state {
    use super::super::attempt::Space;
    use super::within_limits;
    pub(crate) use crate::bindings::pelton::consumer::state::{Entry, Page};

    pub(crate) fn get(key: &str) -> Option<Vec<u8>> {
        within_limits(|attempt| attempt.get(Space::User, key))
    }

    pub(crate) fn set(key: &str, value: &[u8], ttl_ms: Option<u64>) {
        within_limits(|attempt| attempt.set(key, value, ttl_ms));
    }

    pub(crate) fn delete(key: &str) {
        within_limits(|attempt| attempt.delete(key));
    }

    pub(crate) fn list(prefix: &str, after: Option<&str>, limit: u32) -> Page {
        let (entries, next) = within_limits(|attempt| attempt.list(prefix, after, limit));
        Page { entries: entries.into_iter().map(|(key, value)| Entry { key, value }).collect(), next }
    }
}

/// `idempotency`
pub(crate) mod idempotency {
    use super::super::attempt::Space;
    use super::within_limits;

    pub(crate) fn seen(id: &str) -> bool {
        within_limits(|attempt| attempt.get(Space::Mark, id)).is_some()
    }

    pub(crate) fn mark(id: &str, ttl_ms: Option<u64>) {
        within_limits(|attempt| attempt.mark(id, ttl_ms));
    }
}

/// `outbox`
pub(crate) mod outbox {
    use super::within_limits;
    pub(crate) use crate::bindings::pelton::consumer::outbox::{EmitError, Event};

    pub(crate) fn emit(event: &Event) -> Result<String, EmitError> {
        within_limits(|attempt| attempt.emit(event))
    }
}

/// `context`
pub(crate) mod context {
    use super::with;

    pub(crate) fn now_ms() -> u64 {
        with(|attempt| attempt.now_ms)
    }

    pub(crate) fn attempt() -> u32 {
        with(|attempt| attempt.message.attempt)
    }

    pub(crate) fn time_left_ms() -> u64 {
        with(|attempt| attempt.terms.limits.timeout_ms)
    }

    pub(crate) fn consumer() -> String {
        with(|attempt| attempt.terms.consumer.clone())
    }

    pub(crate) fn version() -> String {
        with(|attempt| attempt.terms.version.clone())
    }

    pub(crate) fn config(name: &str) -> Option<String> {
        with(|attempt| attempt.terms.config.get(name).cloned())
    }
}

/// `log`
pub(crate) mod log {
    use super::with;
    pub(crate) use crate::bindings::pelton::consumer::log::Level;

    pub(crate) fn log(level: Level, message: &str, fields: &[(String, String)]) {
        let level = match level {
            Level::Trace => "TRACE",
            Level::Debug => "DEBUG",
            Level::Info => "INFO",
            Level::Warn => "WARN",
            Level::Error => "ERROR",
        };
        with(|attempt| attempt.log(level, message, fields));
    }
}
