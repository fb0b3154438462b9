//! Counts the orders of each key: the work that the benchmark measures, with exactly three calls of the host (read, write, emit). What it does with a message is in
//! `work.rs`.
//!
//! Payload: `{"n": u64}` with an optional `state_bytes`, the size of the key's state (100 by default); whatever else is in it makes it large. State: one entry
//! "counter". Event, to `out.SUBJECT` with the message's subject: `{"key", "id", "sequence", "n", "count", "chain"}`, as `ledger` emits them.

mod work;

use pelton_sdk::outbox::Event;
use pelton_sdk::{Failure, Message, Result, state};

pelton_sdk::consumer!(handle);

fn handle(message: Message) -> Result {
    let Some(key) = message.key.as_deref() else { return Err(Failure::reject("a message without a key")) };
    let before = state::get_bytes("counter");
    let done = work::handle(&message.payload, before.as_deref(), key, &message.id, message.sequence)?;
    state::set_bytes("counter", &done.state);
    Event::bytes(format!("out.{}", message.subject), done.event).emit()?;
    Ok(())
}
