//! Counts all messages in one entry. Needed by the tests of `state.scope = "consumer"`: the counts of all keys are then 1, 2, 3, … without a gap,
//! whereas with the scope "key" each key has a count of its own.
//!
//! Event, to `[config] out` ("shared-counter.out" by default): `{"key", "id", "sequence", "count"}`.

use pelton_sdk::outbox::Event;
use pelton_sdk::{Message, Result, context, state};

#[derive(serde::Serialize)]
struct Counted<'a> {
    key: Option<&'a str>,
    id: &'a str,
    sequence: u64,
    count: u64,
}

pelton_sdk::consumer!(handle);

fn handle(message: Message) -> Result {
    let count = state::get::<u64>("count")?.unwrap_or(0) + 1;
    state::set("count", &count)?;
    let out = context::config("out");
    let Message { id, key, sequence, .. } = &message;
    let counted = Counted { key: key.as_deref(), id, sequence: *sequence, count };
    Event::json(out.as_deref().unwrap_or("shared-counter.out"), &counted)?.key("counts").emit()?;
    Ok(())
}
