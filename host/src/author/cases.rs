//! A file of cases: what goes in, and what is expected to come out.
//!
//! ```toml
//! [[case]]
//! name = "the third order makes a regular"
//! state = { orders = 2 }
//!
//! [case.message]
//! subject = "orders.new"
//! json = { customer = "alice" }
//!
//! [case.expect]
//! state = { orders = 3 }
//! events = [{ subject = "regulars.alice", json = 3 }]
//! ```
//!
//! What `expect` doesn't name is not looked at; what it names must be the whole of it. Without `outcome` the case expects `applied`.

use std::path::Path;

use serde_json::Value;

use super::BadInput;
use super::bench::Conditions;
use super::effects::APPLIED;
use super::entries;
use super::expect::{Expect, ExpectedEvent, OUTCOMES};
use super::fields::{Fields, Problems, read_file};
use super::memory::Memory;
use super::message::Described;

/// The time of a case that names none: 2026-01-01T00:00:00Z.
const NOW_MS: u64 = 1_767_225_600_000;

/// A file of cases.
pub(super) struct CaseFile {
    /// The consumer whose plug-in is run; none: the only one.
    pub(super) consumer: Option<String>,
    pub(super) cases: Vec<Case>,
}

/// One case.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) message: Described,
    pub(super) memory: Memory,
    /// Values that win over those of the manifest's `[config]`.
    pub(super) config: Vec<(String, String)>,
    pub(super) conditions: Conditions,
    pub(super) expect: Expect,
}

impl CaseFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(super) fn read(file: &Path) -> Result<Self, BadInput> {
        Self::parse(&read_file(file)?, &file.display().to_string())
    }

    fn parse(value: &Value, name: &str) -> Result<Self, BadInput> {
        let problems = Problems::default();
        let mut consumer = None;
        let mut cases = Vec::new();
        if let Some(mut fields) = Fields::of(&problems, "", value) {
            consumer = fields.text("consumer").map(str::to_owned);
            let given = fields.list("case").unwrap_or_default();
            if given.is_empty() {
                fields.report("case", "there is none: begin one with [[case]]");
            }
            for (index, value) in given.iter().enumerate() {
                let place = place_of(index, value);
                cases.extend(Fields::of(&problems, &place, value).and_then(case));
            }
            fields.finish();
        }
        problems.conclude(name)?;
        Ok(Self { consumer, cases })
    }
}

/// A case is told by its name, or else by its number.
fn place_of(index: usize, value: &Value) -> String {
    let name = value.get("name").and_then(Value::as_str);
    name.map_or_else(|| format!("case {}", index + 1), |name| format!("case \"{name}\""))
}

fn case(mut fields: Fields<'_, '_>) -> Option<Case> {
    let name = fields.required_text("name", "say what the case shows");
    let message = fields.section("message");
    if message.is_none() {
        fields.report("message", "is missing: add subject, and json or payload");
    }
    let message = message.and_then(|message| Described::read(message, None));
    let mut memory = Memory::default();
    for (key, value) in fields.object("state").into_iter().flatten() {
        match entries::read(&value.to_string()) {
            Ok(value) => memory.set(key, value),
            Err(problem) => fields.report(&format!("state.{key}"), problem),
        }
    }
    fields.texts("marks").unwrap_or_default().iter().for_each(|id| memory.mark(id));
    let config = config(&mut fields);
    let now_ms = fields.number("now_ms").unwrap_or(NOW_MS);
    let attempt = fields.number("attempt").unwrap_or(1);
    let attempt = u32::try_from(attempt).ok().filter(|attempt| *attempt > 0);
    if attempt.is_none() {
        fields.report("attempt", "attempts are counted from 1");
    }
    let seed = fields.number("seed").unwrap_or(0);
    let expect = match fields.section("expect") {
        Some(section) => expect(section),
        None => Expect::default(),
    };
    fields.finish();
    let conditions = Conditions { now_ms, attempt: attempt?, seed };
    Some(Case { name: name?.to_owned(), message: message?, memory, config, conditions, expect })
}

/// Texts, numbers and booleans, all read as text: as in a manifest.
fn config(fields: &mut Fields<'_, '_>) -> Vec<(String, String)> {
    let mut config = Vec::new();
    for (name, value) in fields.object("config").into_iter().flatten() {
        match value {
            Value::String(text) => config.push((name.clone(), text.clone())),
            Value::Number(_) | Value::Bool(_) => config.push((name.clone(), value.to_string())),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                fields.report(&format!("config.{name}"), "must be a string, a number, true or false");
            }
        }
    }
    config
}

fn expect(mut fields: Fields<'_, '_>) -> Expect {
    let outcome = fields.text("outcome").unwrap_or(APPLIED);
    if !OUTCOMES.contains(&outcome) {
        fields.report("outcome", format!("can't be {outcome:?}; choose one of {}", OUTCOMES.join(", ")));
    }
    let reason = fields.text("reason").map(str::to_owned);
    let after_ms = fields.number("after_ms");
    let state = fields.object("state").cloned();
    for (key, value) in state.iter().flatten() {
        if let Err(problem) = entries::read(&value.to_string()) {
            fields.report(&format!("state.{key}"), problem);
        }
    }
    let marks = fields.texts("marks");
    let logs = fields.texts("logs");
    let events = fields.list("events").map(|events| {
        let place = fields.place_of("events");
        let events = events.iter().enumerate();
        events.filter_map(|(index, value)| fields.item(&format!("{place}[{index}]"), value).map(event)).collect()
    });
    fields.finish();
    Expect { outcome: outcome.to_owned(), reason, after_ms, state, marks, events, logs }
}

fn event(mut fields: Fields<'_, '_>) -> ExpectedEvent {
    let event = ExpectedEvent {
        subject: fields.required_text("subject", "say where it goes").unwrap_or_default().to_owned(),
        id: fields.text("id").map(str::to_owned),
        key: fields.text("key").map(str::to_owned),
        headers: fields.object("headers").cloned(),
        json: fields.value("json").cloned(),
        payload: fields.text("payload").map(str::to_owned),
        payload_base64: fields.text("payload_base64").map(str::to_owned),
    };
    let given = [event.json.is_some(), event.payload.is_some(), event.payload_base64.is_some()];
    if given.into_iter().filter(|given| *given).count() > 1 {
        fields.report("payload", "there can be only one of json, payload and payload_base64");
    }
    fields.finish();
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of(text: &str) -> String {
        let value: Value = serde_json::from_str(text).unwrap();
        CaseFile::parse(&value, "c.json").map_or_else(|error| error.to_string(), |_| String::new())
    }

    #[test]
    fn a_case_needs_little_and_a_mistake_is_told_with_the_case_and_the_field() {
        assert_eq!(problems_of(r#"{"case":[{"name":"n","message":{"subject":"a"}}]}"#), "");
        assert_eq!(problems_of("{}"), "c.json: case: there is none: begin one with [[case]]");
        let text = problems_of(
            r#"{"case":[{"name":"n","mesage":{},"expect":{"outcom":"x","outcome":"ok","events":[{"subjet":"a"}]}},
               {"message":{"subject":"a","json":1,"payload":"1"},"state":{"k":{"$base64":"?"}},"attempt":0,"config":{"c":[]}}]}"#,
        );
        for part in [
            "case \"n\".message: is missing",
            "case \"n\".mesage: unknown field; did you mean \"message\"?",
            "case \"n\".expect.outcom: unknown field; did you mean \"outcome\"?",
            "case \"n\".expect.outcome: can't be \"ok\"; choose one of applied",
            "case \"n\".expect.events[0].subjet: unknown field; did you mean \"subject\"?",
            "case 2.name: is missing",
            "case 2.message.payload: there can be only one of",
            "case 2.state.k: $base64 is not base64",
            "case 2.attempt: attempts are counted from 1",
            "case 2.config.c: must be a string",
        ] {
            assert!(text.contains(part), "{part}\nin\n{text}");
        }
    }
}
