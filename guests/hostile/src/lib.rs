//! Attacks the host in the way that the payload names. Needed by the tests of the sandbox: whatever it does, the host lives, says what it was, and the
//! consumers beside it are unharmed.
//!
//! Payload: `{"do": BEHAVIOUR}`, "ok" by default; other fields are ignored, so that one message can be meant for this plug-in and for `ledger`. Before it misbehaves it makes effects:
//! it counts `applied` up and emits its event, so that a test sees whether anything of an attempt that failed remains.
//! Event, to `OUT.KEY` with OUT from `[config] out` ("hostile.out" by default) and `none` for a message without a key: `{"do", "applied", "found"}`.
//! `applied` counts the key's applied messages, this one included; `found` names what `crafted-keys` got at that is not its own.

mod calls;
mod outside;
mod spend;

use pelton_sdk::{Message, Result, context, outbox, state};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Order {
    #[serde(default)]
    r#do: Behaviour,
}

#[derive(Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Behaviour {
    /// Returns ok.
    #[default]
    Ok,
    /// Never returns.
    Loop,
    /// Copies memory without end.
    MemoryCopy,
    /// Calls the host without end.
    HostCalls,
    /// Calls itself without end.
    Recursion,
    /// Grows its memory until it is refused, page by page, and touches all of it.
    Grow,
    /// Allocates without end.
    Allocate,
    /// Executes `unreachable`.
    Unreachable,
    /// Ends the process, with status 0.
    Exit,
    /// Panics.
    Panic,
    /// Passes a list of 8 MiB to the host.
    ListTooLong,
    /// Passes a list that lies outside of its memory.
    ListOutside,
    /// Passes a list of 200,000 headers.
    ManyHeaders,
    /// Passes a string that is not UTF-8.
    InvalidUtf8,
    /// Sets a million entries.
    MillionPuts,
    /// Emits a million events.
    MillionEmits,
    /// Reads a million times.
    MillionGets,
    /// Marks a million ids.
    MillionMarks,
    /// Sets 990 entries that no earlier message of the key has set, and returns ok.
    Fill,
    /// Lists all entries that there are, again and again.
    Scan,
    /// Sets a value that is one byte too long.
    BigValue,
    /// Sets a key that is one byte too long.
    BigKey,
    /// Emits an event that is one byte too long.
    BigEvent,
    /// Emits with a header that holds a line break and, behind it, a header of the host's.
    CrlfHeader,
    /// Emits to the API of JetStream: deletes the stream that it reads from.
    EmitJsApi,
    /// Emits to another client's inbox.
    EmitInbox,
    /// Emits to a subject with a wildcard for one token.
    EmitWildcard,
    /// Emits to a subject with a wildcard for the rest.
    EmitFullWildcard,
    /// Emits to where another consumer's events go.
    EmitNotGranted,
    /// Looks for other consumers' state under keys that are made to reach it, and overwrites what it believes to be theirs.
    CraftedKeys,
    /// Writes 4 MiB to standard output and as much to standard error, then returns ok.
    StdoutFlood,
    /// Logs 10,000 lines, then returns ok.
    LogFlood,
    /// Sleeps for as long as can be asked for.
    Sleep,
    /// Reads a file of the host's machine.
    OpenFile,
    /// Writes a file.
    CreateFile,
}

#[derive(Serialize)]
struct Done {
    r#do: Behaviour,
    applied: u64,
    found: Vec<String>,
}

pelton_sdk::consumer!(handle);

fn handle(message: Message) -> Result {
    let order: Order = message.json()?;
    let applied = state::get::<u64>("applied")?.unwrap_or(0) + 1;
    state::set("applied", &applied)?;
    let found = match order.r#do {
        Behaviour::CraftedKeys => calls::reach_for_others(),
        _ => Vec::new(),
    };
    let key = message.key.as_deref().unwrap_or("none");
    let out = context::config("out");
    let subject = format!("{}.{key}", out.as_deref().unwrap_or("hostile.out"));
    outbox::emit(subject, &Done { r#do: order.r#do, applied, found })?;
    behave(order.r#do, applied)
}

fn behave(behaviour: Behaviour, applied: u64) -> Result {
    match behaviour {
        Behaviour::Ok | Behaviour::CraftedKeys => Ok(()),
        Behaviour::Loop => spend::turn_without_end(),
        Behaviour::MemoryCopy => spend::copy_without_end(),
        Behaviour::HostCalls => spend::call_without_end(),
        Behaviour::Recursion => spend::recurse(applied),
        Behaviour::Grow => spend::grow_to_the_cap(),
        Behaviour::Allocate => spend::allocate_without_end(),
        Behaviour::Unreachable => core::arch::wasm32::unreachable(),
        Behaviour::Exit => std::process::exit(0),
        Behaviour::Panic => panic!("asked to panic"),
        Behaviour::ListTooLong => calls::list_too_long(),
        Behaviour::ListOutside => calls::list_outside(),
        Behaviour::ManyHeaders => calls::many_headers(),
        Behaviour::InvalidUtf8 => calls::invalid_utf8(),
        Behaviour::MillionPuts => calls::million_puts(),
        Behaviour::MillionEmits => calls::million_emits(),
        Behaviour::MillionGets => calls::million_gets(),
        Behaviour::MillionMarks => calls::million_marks(),
        Behaviour::Fill => calls::fill(applied),
        Behaviour::Scan => calls::scan(),
        Behaviour::BigValue => calls::big_value(),
        Behaviour::BigKey => calls::big_key(),
        Behaviour::BigEvent => calls::big_event(),
        Behaviour::CrlfHeader => calls::crlf_header(),
        Behaviour::EmitJsApi => calls::emit("$JS.API.STREAM.DELETE.IN"),
        Behaviour::EmitInbox => calls::emit("_INBOX.someone.else"),
        Behaviour::EmitWildcard => calls::emit("out.hostile.*"),
        Behaviour::EmitFullWildcard => calls::emit("out.hostile.>"),
        Behaviour::EmitNotGranted => calls::emit("out.sound-1.forged"),
        Behaviour::StdoutFlood => outside::flood_stdout(),
        Behaviour::LogFlood => outside::flood_log(),
        Behaviour::Sleep => outside::sleep_forever(),
        Behaviour::OpenFile => outside::open_file(),
        Behaviour::CreateFile => outside::create_file(),
    }
}
