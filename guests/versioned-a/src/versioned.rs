//! What `versioned-a` and `versioned-b` have in common: all but the label.
//!
//! Event, to `OUT.KEY` with OUT from `[config] out` ("versioned.out" by default) and `none` for a message without a key:
//! `{"label", "version", "id", "sequence", "count"}`. `count` is the number of the key's messages applied so far by either version: state outlives a swap.

use pelton_sdk::{Message, Result, context, outbox, state};

#[derive(serde::Serialize)]
struct Served<'a> {
    label: &'a str,
    version: &'a str,
    id: &'a str,
    sequence: u64,
    count: u64,
}

/// Counts the message and says who did.
pub(crate) fn serve(label: &str, message: &Message) -> Result {
    let count = state::get::<u64>("count")?.unwrap_or(0) + 1;
    state::set("count", &count)?;
    let out = context::config("out");
    let key = message.key.as_deref().unwrap_or("none");
    let subject = format!("{}.{key}", out.as_deref().unwrap_or("versioned.out"));
    let Message { id, sequence, .. } = message;
    outbox::emit(subject, &Served { label, version: &context::version(), id, sequence: *sequence, count })?;
    Ok(())
}
