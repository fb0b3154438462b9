//! Keeps a count in its own memory, as no plug-in should. Needed by the tests of `isolation`: the count tells which attempt of its instance an event comes from.
//! A payload `fail` is rejected.
//!
//! Event, to `OUT.KEY` with OUT from `[config] out` ("remembers.out" by default): `{"id", "attempt_of_instance"}`.

use std::sync::atomic::{AtomicU64, Ordering};

use pelton_sdk::{Failure, Message, Result, context, outbox};

static ATTEMPTS: AtomicU64 = AtomicU64::new(0);

#[derive(serde::Serialize)]
struct Remembered<'a> {
    id: &'a str,
    attempt_of_instance: u64,
}

pelton_sdk::consumer!(handle);

fn handle(message: Message) -> Result {
    let attempt_of_instance = ATTEMPTS.fetch_add(1, Ordering::Relaxed) + 1;
    if message.payload == b"fail" {
        return Err(Failure::reject("asked to"));
    }
    let out = context::config("out");
    let key = message.key.as_deref().unwrap_or("none");
    let subject = format!("{}.{key}", out.as_deref().unwrap_or("remembers.out"));
    outbox::emit(subject, &Remembered { id: &message.id, attempt_of_instance })?;
    Ok(())
}
