//! What an attempt did, as JSON: for scripts, and for comparing with what a case expects.

use std::collections::BTreeMap;

use bytes::Bytes;
use pelton_core::effects::{Event, Space};
use pelton_core::ids::Version;
use pelton_core::message::{Failure, Message};
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::bench::{Attempted, Conditions};
use super::entries::{self, Entries, Shown};
use super::memory::Memory;
use crate::wasm::Line;

/// The outcome of an attempt whose effects would be committed.
pub(super) const APPLIED: &str = "applied";
/// The outcome of a message that the host keeps from the plug-in.
pub(super) const UNREADABLE: &str = "unreadable";

/// Everything that there is to tell of one attempt.
#[derive(Clone, Debug, Serialize)]
pub struct Effects {
    /// `applied`; or how it failed: `retry`, `reject`, `park`, `trap`, `timeout`, `limit`; or `unreadable`: the plug-in never sees such a message.
    pub outcome: String,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The delay that the plug-in asked for, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_ms: Option<u64>,
    /// The message as the plug-in saw it.
    pub message: Seen,
    /// The plug-in's state entries that it found.
    pub state_before: Entries,
    /// The state entries that are left: unless it was applied, the same.
    pub state_after: Entries,
    /// Business ids that it marked.
    pub marks: Vec<String>,
    /// The events that it emitted, in order; none unless it was applied.
    pub events: Vec<Emitted>,
    /// The lines that it wrote; also a failed attempt's are kept.
    pub logs: Vec<Logged>,
    /// The digest of the component.
    pub version: String,
    /// The attempt's time, in milliseconds since 1970-01-01 UTC.
    pub now_ms: u64,
    /// From before the instance was made until the handler's end, in microseconds.
    pub time_us: u64,
    /// Linear memory of the instance at its end, in bytes.
    pub memory_bytes: usize,
}

/// What identifies a message.
#[derive(Clone, Debug, Serialize)]
pub struct Seen {
    id: String,
    subject: String,
    key: Option<String>,
    sequence: u64,
    attempt: u32,
}

/// An event as it would be published.
#[derive(Clone, Debug, Serialize)]
pub struct Emitted {
    pub(super) id: String,
    pub(super) subject: String,
    pub(super) key: Option<String>,
    pub(super) headers: BTreeMap<String, Value>,
    /// The payload, as it is, and under the name of the form that it is shown in: `json`, `payload` or `payload_base64`.
    #[serde(flatten, serialize_with = "shown")]
    pub(super) payload: Bytes,
}

/// A line that a plug-in wrote.
#[derive(Clone, Debug, Serialize)]
pub struct Logged {
    level: &'static str,
    source: &'static str,
    text: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    fields: String,
}

impl Effects {
    /// Whether its effects would be committed.
    #[must_use]
    pub fn is_applied(&self) -> bool {
        self.outcome == APPLIED
    }

    pub(super) fn of(
        message: &Message,
        version: Version,
        memory: &Memory,
        conditions: &Conditions,
        attempted: Attempted,
    ) -> Self {
        let Conditions { now_ms, attempt, .. } = *conditions;
        let mut effects = Self::none(message, memory, now_ms, attempt);
        effects.version = version.to_string();
        effects.time_us = attempted.told.time_us;
        effects.memory_bytes = attempted.told.memory_bytes;
        effects.logs = attempted.told.lines.into_iter().map(Logged::from).collect();
        match attempted.outcome {
            Ok(writes) => {
                effects.outcome = APPLIED.to_owned();
                let mut after = memory.clone();
                after.apply(&writes);
                effects.state_after = entries::show(&after, now_ms);
                let marks = writes.state.iter().filter(|write| write.space == Space::Mark);
                effects.marks = marks.map(|write| write.key.to_string()).collect();
                effects.events = writes.events.iter().map(|event| Emitted::of(event)).collect();
            }
            Err(failure) => {
                effects.outcome = failure.kind().to_owned();
                effects.reason = Some(failure.reason());
                effects.after_ms = match failure {
                    Failure::Retry { after_ms, .. } | Failure::Park { after_ms, .. } => after_ms,
                    Failure::Reject { .. } | Failure::Trap { .. } | Failure::Timeout { .. } | Failure::Limit { .. } => {
                        None
                    }
                };
            }
        }
        effects
    }

    /// Of a message that never reaches the plug-in.
    pub(super) fn unreadable(message: &Message, why: &str, memory: &Memory, conditions: &Conditions) -> Self {
        let none = Self::none(message, memory, conditions.now_ms, conditions.attempt);
        Self { outcome: UNREADABLE.to_owned(), reason: Some(why.to_owned()), ..none }
    }

    fn none(message: &Message, memory: &Memory, now_ms: u64, attempt: u32) -> Self {
        let state = entries::show(memory, now_ms);
        let seen = Seen {
            id: message.id.to_string(),
            subject: message.subject.to_string(),
            key: message.key.as_deref().map(str::to_owned),
            sequence: message.sequence,
            attempt,
        };
        Self {
            outcome: String::new(),
            reason: None,
            after_ms: None,
            message: seen,
            state_before: state.clone(),
            state_after: state,
            marks: Vec::new(),
            events: Vec::new(),
            logs: Vec::new(),
            version: String::new(),
            now_ms,
            time_us: 0,
            memory_bytes: 0,
        }
    }
}

impl Emitted {
    pub(super) fn of(event: &Event) -> Self {
        let mut headers: BTreeMap<String, Value> = BTreeMap::new();
        for (name, value) in &event.headers {
            let value = Value::from(value.as_ref());
            match headers.get_mut(name.as_ref()) {
                Some(Value::Array(values)) => values.push(value),
                Some(first) => *first = Value::Array(vec![first.take(), value]),
                None => _ = headers.insert(name.to_string(), value),
            }
        }
        Self {
            id: event.id.to_string(),
            subject: event.subject.to_string(),
            key: event.key.as_deref().map(str::to_owned),
            headers,
            payload: event.payload.clone(),
        }
    }

    /// The payload as openly as it can be shown.
    pub(super) fn shown(&self) -> Option<(String, Value)> {
        let (name, shown) = Shown::of(&self.payload).named();
        Some((name.to_owned(), serde_json::to_value(&shown).ok()?))
    }

    /// The payload as text, if it is text.
    pub(super) fn as_text(&self) -> Option<(String, Value)> {
        match std::str::from_utf8(&self.payload) {
            Ok(text) => Some(("payload".to_owned(), text.into())),
            Err(_) => self.shown(),
        }
    }

    /// The payload in base64.
    pub(super) fn as_base64(&self) -> Option<(String, Value)> {
        Some(("payload_base64".to_owned(), entries::to_base64(&self.payload).into()))
    }
}

fn shown<S: Serializer>(payload: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    let (name, shown) = Shown::of(payload).named();
    let mut map = serializer.serialize_map(Some(1))?;
    map.serialize_entry(name, &shown)?;
    map.end()
}

impl From<Line> for Logged {
    fn from(line: Line) -> Self {
        let Line { level, source, text, fields } = line;
        Self { level, source, text, fields }
    }
}

impl Logged {
    /// As a case writes it; none for what was not written through the contract's log.
    pub(super) fn text(&self) -> Option<String> {
        let Self { level, source, text, fields } = self;
        let space = if fields.is_empty() { "" } else { " " };
        (*source == "log").then(|| format!("{level} {text}{space}{fields}"))
    }
}
