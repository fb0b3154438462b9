//! What a case expects, and how what came out differs from it.

use serde::Serialize;
use serde_json::{Map, Value};

use super::diff::diff;
use super::effects::{APPLIED, Effects, Emitted, UNREADABLE};
use super::entries::Entries;

/// The outcomes that a case can expect.
pub(super) const OUTCOMES: [&str; 8] = [APPLIED, "retry", "reject", "park", "trap", "timeout", "limit", UNREADABLE];

/// What a case expects; none is not looked at.
pub(super) struct Expect {
    pub(super) outcome: String,
    /// A part of the reason.
    pub(super) reason: Option<String>,
    pub(super) after_ms: Option<u64>,
    /// All entries afterwards.
    pub(super) state: Option<Map<String, Value>>,
    /// All ids that are marked by the attempt, in any order.
    pub(super) marks: Option<Vec<String>>,
    /// All events in order.
    pub(super) events: Option<Vec<ExpectedEvent>>,
    /// All lines of the contract's log in order, as `LEVEL TEXT FIELDS`.
    pub(super) logs: Option<Vec<String>>,
}

impl Default for Expect {
    fn default() -> Self {
        let outcome = APPLIED.to_owned();
        Self { outcome, reason: None, after_ms: None, state: None, marks: None, events: None, logs: None }
    }
}

/// An event; of what is none nothing is expected, and of headers those that are not named.
pub(super) struct ExpectedEvent {
    pub(super) subject: String,
    pub(super) id: Option<String>,
    pub(super) key: Option<String>,
    pub(super) headers: Option<Map<String, Value>>,
    pub(super) json: Option<Value>,
    pub(super) payload: Option<String>,
    pub(super) payload_base64: Option<String>,
}

/// One thing that is not as expected.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// What: `outcome`, `reason`, `state`, …
    pub what: &'static str,
    /// As the case has it.
    pub expected: Value,
    /// As it came.
    pub actual: Value,
}

impl Difference {
    /// Its lines: those that only the case has begin with `-`, those that came instead with `+`.
    #[must_use]
    pub fn text(&self) -> String {
        diff(&pretty(&self.expected), &pretty(&self.actual))
    }
}

fn pretty(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => serde_json::to_string_pretty(value).unwrap_or_default(),
    }
}

impl Expect {
    /// Everything that came out otherwise.
    pub(super) fn differences(&self, effects: &Effects) -> Vec<Difference> {
        let mut found = Vec::new();
        let mut compare = |what, expected: Value, actual: Value| {
            if expected != actual {
                found.push(Difference { what, expected, actual });
            }
        };
        compare("outcome", self.outcome.as_str().into(), with_reason(&self.outcome, effects).into());
        if let Some(part) = &self.reason
            && !effects.reason.as_ref().is_some_and(|reason| reason.contains(part))
        {
            let actual = effects.reason.clone().map_or(Value::Null, Value::from);
            compare("reason", part.as_str().into(), actual);
        }
        if let Some(after_ms) = self.after_ms {
            compare("after_ms", after_ms.into(), effects.after_ms.into());
        }
        if let Some(state) = &self.state {
            compare("state", Value::Object(state.clone()), as_value(&effects.state_after));
        }
        if let Some(marks) = &self.marks {
            compare("marks", sorted(marks), sorted(&effects.marks));
        }
        if let Some(expected) = &self.events {
            let shown = expected.iter().map(ExpectedEvent::value).collect();
            let asked = |(index, event)| event_value(event, expected.get::<usize>(index));
            compare("events", Value::Array(shown), effects.events.iter().enumerate().map(asked).collect());
        }
        if let Some(logs) = &self.logs {
            let actual: Vec<String> = effects.logs.iter().filter_map(|line| line.text()).collect();
            compare("logs", logs.as_slice().into(), actual.into());
        }
        found
    }
}

/// The outcome; with its reason, if it is not the expected one.
fn with_reason(expected: &str, effects: &Effects) -> String {
    match &effects.reason {
        Some(reason) if effects.outcome != expected => format!("{}: {reason}", effects.outcome),
        _ => effects.outcome.clone(),
    }
}

fn as_value(entries: &Entries) -> Value {
    serde_json::to_value(entries).unwrap_or_default()
}

fn sorted(texts: &[String]) -> Value {
    let mut texts = texts.to_vec();
    texts.sort();
    texts.into()
}

impl ExpectedEvent {
    fn value(&self) -> Value {
        let Self { subject, id, key, headers, json, payload, payload_base64 } = self;
        let mut value = Map::from_iter([("subject".to_owned(), subject.as_str().into())]);
        let mut add = |name: &str, given: Option<Value>| {
            if let Some(given) = given {
                value.insert(name.to_owned(), given);
            }
        };
        let text = |text: &Option<String>| text.clone().map(Value::from);
        add("id", text(id));
        add("key", text(key));
        add("headers", headers.clone().map(Value::Object));
        add("json", json.clone());
        add("payload", text(payload));
        add("payload_base64", text(payload_base64));
        Value::Object(value)
    }
}

/// What was asked for of an event that came; all but what the host adds of one that nobody expected.
fn event_value(event: &Emitted, expected: Option<&ExpectedEvent>) -> Value {
    let mut value = Map::from_iter([("subject".to_owned(), event.subject.as_str().into())]);
    let key = event.key.clone().map_or(Value::Null, Value::from);
    let Some(expected) = expected else {
        value.insert("key".to_owned(), key);
        value.extend(event.shown());
        return Value::Object(value);
    };
    if expected.id.is_some() {
        value.insert("id".to_owned(), event.id.as_str().into());
    }
    if expected.key.is_some() {
        value.insert("key".to_owned(), key);
    }
    if let Some(wanted) = &expected.headers {
        let named = event.headers.iter().filter(|(name, _)| wanted.contains_key(*name));
        let named = named.map(|(name, value)| (name.clone(), value.clone()));
        value.insert("headers".to_owned(), Value::Object(named.collect()));
    }
    if expected.payload.is_some() {
        value.extend(event.as_text());
    } else if expected.payload_base64.is_some() {
        value.extend(event.as_base64());
    } else if expected.json.is_some() {
        value.extend(event.shown());
    }
    Value::Object(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn emitted(payload: &[u8]) -> Emitted {
        let event = pelton_core::effects::Event {
            id: "i".into(),
            subject: "a.b".into(),
            key: Some("k".into()),
            headers: vec![("x".into(), "1".into()), ("y".into(), "2".into()), ("x".into(), "3".into())],
            payload: bytes::Bytes::copy_from_slice(payload),
        };
        Emitted::of(&event)
    }

    fn expected(subject: &str) -> ExpectedEvent {
        let subject = subject.to_owned();
        ExpectedEvent { subject, id: None, key: None, headers: None, json: None, payload: None, payload_base64: None }
    }

    #[test]
    fn only_what_is_named_of_an_event_is_compared() {
        let same = |payload: &[u8], expected: ExpectedEvent| {
            expected.value() == event_value(&emitted(payload), Some(&expected))
        };
        assert!(same(b"{}", expected("a.b")));
        assert!(!same(b"{}", expected("a.c")));
        let json = |text: &str| ExpectedEvent { json: serde_json::from_str(text).ok(), ..expected("a.b") };
        assert!(same(b"{\"a\": 1}", json("{\"a\":1}")));
        assert!(!same(b"{\"a\": 1}", json("{\"a\":2}")));
        assert!(!same(b"a", json("{\"a\":2}")));
        let text = |text: &str| ExpectedEvent { payload: Some(text.to_owned()), ..expected("a.b") };
        assert!(same(b"1.10", text("1.10")) && !same(b"1.10", text("1.1")) && !same(b"\xff", text("?")));
        assert!(same(b"\xff", ExpectedEvent { payload_base64: Some("/w==".to_owned()), ..expected("a.b") }));
        assert!(!same(b"x", ExpectedEvent { key: Some("other".to_owned()), ..expected("a.b") }));
        let headers = |text: &str| ExpectedEvent { headers: serde_json::from_str(text).ok(), ..expected("a.b") };
        assert!(same(b"x", headers("{\"x\":[\"1\",\"3\"]}")));
        assert!(!same(b"x", headers("{\"z\":\"1\"}")));
    }
}
