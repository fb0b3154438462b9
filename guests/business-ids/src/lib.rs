//! Applies each business request once, however many messages carry it. Needed by the tests of `idempotency`.
//!
//! Payload: `{"request": ID}` with optional `fails` (attempts up to this number fail with *retry* after having marked the id) and `forget_ms` (how
//! long the mark is kept). Event, to `OUT.KEY` with OUT from `[config] out` ("business-ids.out" by default) and `none` for a message without a key:
//! `{"id", "request", "outcome", "count"}` with outcome "applied" or "repeated"; `count` is the number of requests applied for the key so far.

use std::time::Duration;

use pelton_sdk::{Failure, Message, Result, context, idempotency, outbox, state};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Request {
    request: String,
    #[serde(default)]
    fails: u32,
    forget_ms: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Applied,
    Repeated,
}

#[derive(Serialize)]
struct Answer<'a> {
    id: &'a str,
    request: &'a str,
    outcome: Outcome,
    count: u64,
}

pelton_sdk::consumer!(handle);

fn handle(message: Message) -> Result {
    let request: Request = message.json()?;
    let mut count = state::get::<u64>("count")?.unwrap_or(0);
    let outcome = if idempotency::seen(&request.request) {
        Outcome::Repeated
    } else {
        match request.forget_ms {
            Some(forget_ms) => idempotency::mark_for(&request.request, Duration::from_millis(forget_ms)),
            None => idempotency::mark(&request.request),
        }
        count += 1;
        state::set("count", &count)?;
        Outcome::Applied
    };
    let out = context::config("out");
    let key = message.key.as_deref().unwrap_or("none");
    let subject = format!("{}.{key}", out.as_deref().unwrap_or("business-ids.out"));
    outbox::emit(subject, &Answer { id: &message.id, request: &request.request, outcome, count })?;
    if message.attempt <= request.fails {
        return Err(Failure::retry("fails, as the payload asked"));
    }
    Ok(())
}
