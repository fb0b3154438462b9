//! Emits each message as it came: the payload's bytes and the headers. Needed by the tests of what a plug-in sees of a message and of what the relay
//! publishes.
//!
//! Event, to `[config] out` ("echo.out" by default): the message's payload and headers (those of NATS, of the host and of tracing aside, which are the host's to
//! set), and what the plug-in saw, in headers: `echo-id`, `echo-subject`, `echo-key` (absent if none), `echo-sequence`, `echo-published-at-ms`, `echo-attempt`,
//! `echo-consumer`, `echo-version`, and `echo-config-NAME` for each name listed in `[config] names` (separated by commas).

use pelton_sdk::outbox::Event;
use pelton_sdk::{Message, Result, context};

pelton_sdk::consumer!(handle);

fn handle(message: Message) -> Result {
    let out = context::config("out");
    let mut event = Event::bytes(out.as_deref().unwrap_or("echo.out"), message.payload)
        .header("echo-id", message.id)
        .header("echo-subject", message.subject)
        .header("echo-sequence", message.sequence.to_string())
        .header("echo-published-at-ms", message.published_at_ms.to_string())
        .header("echo-attempt", message.attempt.to_string())
        .header("echo-consumer", context::consumer())
        .header("echo-version", context::version());
    if let Some(key) = message.key {
        event = event.header("echo-key", key);
    }
    for name in context::config("names").unwrap_or_default().split(',').filter(|name| !name.is_empty()) {
        if let Some(value) = context::config(name) {
            event = event.header(format!("echo-config-{name}"), value);
        }
    }
    for (name, value) in message.headers.into_iter().filter(|(name, _)| !is_the_hosts(name)) {
        event = event.header(name, value);
    }
    event.emit()?;
    Ok(())
}

fn is_the_hosts(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.starts_with("nats-") || name.starts_with("pelton-") || name == "traceparent" || name == "tracestate"
}
