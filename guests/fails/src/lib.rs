//! Fails in the way that the payload names. Needed by the tests of failures, limits, retries, parking and dead letters.
//!
//! Payload: `{"do": BEHAVIOUR}` with optional `n` (any number), `after_ms` (for `retry` and `park`), `until_ms` (for `park`). Before it fails it makes
//! effects: it counts `applied` up, marks its id and emits its event, so that a test sees whether anything of a failed attempt remains.
//! Event, to `OUT.KEY` with OUT from `[config] out` ("fails.out" by default) and `none` for a message without a key:
//! `{"id", "do", "n", "attempt", "applied", "marked", "error"}`. `applied` counts the key's applied messages, this one included; `marked`: whether the id was marked
//! before this attempt (it never is); `error`: what the refused call said, for `emit-ungranted-caught` only.

mod limits;

use std::time::Duration;

use pelton_sdk::outbox::{self, Event};
use pelton_sdk::{Failure, Message, Result, context, idempotency, state};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Order {
    r#do: Behaviour,
    #[serde(default)]
    n: u64,
    after_ms: Option<u64>,
    until_ms: Option<u64>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Behaviour {
    /// Returns ok.
    Ok,
    /// Asks for another attempt, every time.
    Retry,
    /// Asks for another attempt twice, then returns ok.
    #[serde(rename = "retry-until-attempt-3")]
    RetryUntilAttempt3,
    /// Rejects.
    Reject,
    /// Parks until `until_ms` by the context's time, or every time if there is none.
    Park,
    /// Returns an error of std's through `?`.
    Error,
    /// Panics.
    Panic,
    /// Panics at the first attempt, then returns ok.
    PanicOnce,
    /// Never returns.
    Spin,
    /// Allocates without end.
    Oom,
    /// Calls itself without end.
    Recurse,
    /// Ends the process, with status 0.
    Exit,
    /// Sets a value of 2 MiB.
    BigValue,
    /// Sets a key of 10,000 bytes.
    BigKey,
    /// Sets 20,000 entries.
    ManyPuts,
    /// Emits 2,000 events.
    ManyEmits,
    /// Emits an event of 2 MiB.
    BigEvent,
    /// Reads entries without end.
    BigList,
    /// Emits to `ungranted.KEY`.
    EmitUngranted,
    /// The same, tells of the error in its event and returns ok.
    EmitUngrantedCaught,
    /// Emits to a subject with a wildcard.
    BadSubject,
    /// Emits with a header that holds a line break.
    BadHeader,
    /// Emits with a `Nats-Msg-Id` of its own.
    ReservedHeader,
    /// Writes 4 MiB to standard output and as much to standard error, then returns ok.
    StdoutFlood,
    /// Logs 10,000 lines, then returns ok.
    LogFlood,
}

#[derive(Serialize)]
struct Done<'a> {
    id: &'a str,
    r#do: Behaviour,
    n: u64,
    attempt: u32,
    applied: u64,
    marked: bool,
    error: Option<String>,
}

pelton_sdk::consumer!(handle);

fn handle(message: Message) -> Result {
    let order: Order = message.json()?;
    let marked = !idempotency::first(&message.id);
    let applied = state::get::<u64>("applied")?.unwrap_or(0) + 1;
    state::set("applied", &applied)?;
    let error = match order.r#do {
        Behaviour::EmitUngrantedCaught => outbox::emit("ungranted.caught", &0).err().map(|error| error.to_string()),
        _ => None,
    };
    let key = message.key.as_deref().unwrap_or("none");
    let out = context::config("out");
    let subject = format!("{}.{key}", out.as_deref().unwrap_or("fails.out"));
    let Message { id, attempt, .. } = &message;
    outbox::emit(subject, &Done { id, r#do: order.r#do, n: order.n, attempt: *attempt, applied, marked, error })?;
    behave(&order, &message)
}

fn behave(order: &Order, message: &Message) -> Result {
    let after = order.after_ms.map(Duration::from_millis);
    match order.r#do {
        Behaviour::Ok | Behaviour::EmitUngrantedCaught => {}
        Behaviour::RetryUntilAttempt3 if message.attempt >= 3 => {}
        Behaviour::Retry | Behaviour::RetryUntilAttempt3 => {
            let reason = format!("asked to retry at attempt {}", message.attempt);
            return Err(Failure::Retry { reason, after });
        }
        Behaviour::Reject => return Err(Failure::reject("asked to reject")),
        Behaviour::Park if order.until_ms.is_some_and(|until_ms| context::now_ms() >= until_ms) => {}
        Behaviour::Park => return Err(Failure::Park { reason: "asked to park".to_owned(), after }),
        Behaviour::Error => drop("not a number".parse::<u64>()?),
        Behaviour::Panic => panic!("asked to panic"),
        Behaviour::PanicOnce => assert!(message.attempt > 1, "asked to panic once"),
        Behaviour::Spin => limits::spin(),
        Behaviour::Oom => limits::allocate_without_end(),
        Behaviour::Recurse => drop(limits::recurse(message.sequence)),
        Behaviour::Exit => std::process::exit(0),
        Behaviour::BigValue => state::set_bytes("big", &vec![b'x'; 2 << 20]),
        Behaviour::BigKey => state::set_bytes(&"k".repeat(10_000), b"x"),
        Behaviour::ManyPuts => (0..20_000).for_each(|n| state::set_bytes(&format!("many/{n}"), b"x")),
        Behaviour::ManyEmits => {
            for n in 0..2_000 {
                outbox::emit("fails.out.many", &n)?;
            }
        }
        Behaviour::BigEvent => drop(Event::bytes("fails.out.big", vec![b'x'; 2 << 20]).emit()?),
        Behaviour::BigList => limits::list_without_end(),
        Behaviour::EmitUngranted => drop(outbox::emit("ungranted.subject", &0)?),
        Behaviour::BadSubject => drop(outbox::emit("fails.out.*", &0)?),
        Behaviour::BadHeader => drop(Event::bytes("fails.out.header", "x").header("good-name", "bad\r\nvalue").emit()?),
        Behaviour::ReservedHeader => {
            drop(Event::bytes("fails.out.header", "x").header("Nats-Msg-Id", "mine").emit()?);
        }
        Behaviour::StdoutFlood => limits::flood_stdout(),
        Behaviour::LogFlood => limits::flood_log(),
    }
    Ok(())
}
