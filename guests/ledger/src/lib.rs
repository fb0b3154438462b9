//! Keeps a ledger per key, so that a checker can tell from its events alone whether each message was applied exactly once and in order.
//! Needed by the crash rounds, the bench and the end-to-end tests of order and exactly-once.
//!
//! Payload: `{"n": u64}` with optional fields: `pad` (ignored, makes messages large), `fails` (attempts up to this number fail with *retry* after having made
//! their effects), `poison` (rejected after having made its effects). While `[config] broken_key` names a key, every attempt of it fails with *retry*.
//! State: one entry "ledger" of about 100 bytes. Event, to `OUT.KEY` with OUT from `[config] out` ("ledger.out" by default) and `none` for a message
//! without a key: `{"key", "id", "sequence", "n", "count", "chain"}`. `count` is the number of messages applied for the key so far, this one included; `chain` is 16 hex
//! digits: FNV-1a (64 bits) over the 8 little-endian bytes of each applied `n`, one after the other.

use pelton_sdk::{Failure, Message, Result, context, outbox, state};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Entry {
    n: u64,
    #[serde(default)]
    fails: u32,
    #[serde(default)]
    poison: bool,
}

#[derive(Serialize, Deserialize)]
struct Ledger {
    count: u64,
    last: u64,
    chain: String,
    pad: String,
}

#[derive(Serialize)]
struct Applied<'a> {
    key: &'a str,
    id: &'a str,
    sequence: u64,
    n: u64,
    count: u64,
    chain: &'a str,
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

pelton_sdk::consumer!(handle);

fn handle(message: Message) -> Result {
    let entry: Entry = message.json()?;
    let before: Option<Ledger> = state::get("ledger")?;
    let (count, chain) = match &before {
        Some(ledger) => (ledger.count + 1, u64::from_str_radix(&ledger.chain, 16)?),
        None => (1, FNV_OFFSET),
    };
    let chain = format!("{:016x}", fold(chain, entry.n));
    state::set("ledger", &Ledger { count, last: entry.n, chain: chain.clone(), pad: "-".repeat(32) })?;

    let key = message.key.as_deref().unwrap_or("none");
    let out = context::config("out");
    let subject = format!("{}.{key}", out.as_deref().unwrap_or("ledger.out"));
    let Message { id, sequence, .. } = &message;
    outbox::emit(subject, &Applied { key, id, sequence: *sequence, n: entry.n, count, chain: &chain })?;

    if context::config("broken_key").is_some_and(|broken| broken == key) {
        return Err(Failure::retry("the key is broken, as the configuration says"));
    }
    if entry.poison {
        return Err(Failure::reject("poison, as the payload asked"));
    }
    if message.attempt <= entry.fails {
        return Err(Failure::retry("fails, as the payload asked"));
    }
    Ok(())
}

fn fold(chain: u64, n: u64) -> u64 {
    n.to_le_bytes().iter().fold(chain, |chain, byte| (chain ^ u64::from(*byte)).wrapping_mul(FNV_PRIME))
}
