//! Steps that use all of the sdk. The payload is a JSON list of them, each a list that begins with the step's name; `handle` is also compiled natively, by
//! the test that compares both hosts. What a step gives back is logged, so that a difference shows at the step where it begins.

use std::time::Duration;

use pelton_sdk::outbox::Event;
use pelton_sdk::{Failure, Message, Result, context, idempotency, log, state};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Step {
    Get(String),
    /// Key, bytes to write, time to live in milliseconds.
    Set(String, usize, Option<u64>),
    Delete(String),
    /// Prefix, after, limit.
    List(String, Option<String>, u32),
    /// Prefix; all pages.
    ListAll(String),
    Seen(String),
    Mark(String, Option<u64>),
    /// Subject, bytes of payload, headers, key.
    Emit(String, usize, Vec<(String, String)>, Option<String>),
    Log(String, Vec<(String, String)>),
    Context,
    Config(String),
    /// Sets so many entries.
    Fill(usize),
    Retry(String, Option<u64>),
    Reject(String),
    Park(String, Option<u64>),
    Panic,
}

/// Takes the steps one after the other.
pub(crate) fn handle(message: Message) -> Result {
    let steps: Vec<Step> = message.json()?;
    log::info("begins", &[("attempt", &message.attempt), ("headers", &format!("{:?}", message.headers))]);
    steps.into_iter().try_for_each(take)
}

fn take(step: Step) -> Result {
    let said = match &step {
        Step::Get(key) => format!("{:?}", state::get_bytes(key).map(|bytes| bytes.len())),
        Step::Set(key, length, ttl_ms) => {
            let value = vec![b'x'; *length];
            match ttl_ms {
                Some(ttl_ms) => state::set_bytes_for(key, &value, Duration::from_millis(*ttl_ms)),
                None => state::set_bytes(key, &value),
            }
            String::new()
        }
        Step::Delete(key) => {
            state::delete(key);
            String::new()
        }
        Step::List(prefix, after, limit) => {
            let page = state::page(prefix, after.as_deref(), *limit);
            let keys: Vec<_> = page.entries.iter().map(|entry| (entry.key.as_str(), entry.value.len())).collect();
            format!("{keys:?} {:?}", page.next)
        }
        Step::ListAll(prefix) => format!("{}", state::list(prefix).count()),
        Step::Seen(id) => idempotency::seen(id).to_string(),
        Step::Mark(id, ttl_ms) => {
            match ttl_ms {
                Some(ttl_ms) => idempotency::mark_for(id, Duration::from_millis(*ttl_ms)),
                None => idempotency::mark(id),
            }
            String::new()
        }
        Step::Emit(subject, length, headers, key) => emit(subject, *length, headers, key.as_deref()),
        Step::Log(text, fields) => {
            let fields: Vec<log::Field<'_>> =
                fields.iter().map(|(name, value)| (name.as_str(), value as &dyn std::fmt::Display)).collect();
            log::warn(text, &fields);
            String::new()
        }
        Step::Context => format!("{} {} {}", context::now_ms(), context::attempt(), context::consumer()),
        Step::Config(name) => format!("{:?}", context::config(name)),
        Step::Fill(entries) => {
            (0..*entries).for_each(|n| state::set_bytes(&format!("fill/{n:05}"), b"x"));
            String::new()
        }
        Step::Retry(reason, after_ms) => {
            return Err(Failure::Retry { reason: reason.clone(), after: after_ms.map(Duration::from_millis) });
        }
        Step::Reject(reason) => return Err(Failure::reject(reason)),
        Step::Park(reason, after_ms) => {
            return Err(Failure::Park { reason: reason.clone(), after: after_ms.map(Duration::from_millis) });
        }
        Step::Panic => panic!("asked to panic"),
    };
    log::debug("took", &[("step", &format!("{step:?}")), ("said", &said)]);
    Ok(())
}

fn emit(subject: &str, length: usize, headers: &[(String, String)], key: Option<&str>) -> String {
    let mut event = Event::bytes(subject, vec![b'e'; length]);
    for (name, value) in headers {
        event = event.header(name, value);
    }
    if let Some(key) = key {
        event = event.key(key);
    }
    match event.emit() {
        Ok(id) => id,
        Err(error) => error.to_string(),
    }
}
