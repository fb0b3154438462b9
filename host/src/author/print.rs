//! What `pelton dev` prints: a message with its effects, as text.

use std::io::{self, Write as _};

use bytes::Bytes;
use parking_lot::Mutex;
use pelton_core::effects::{Event, Space, StateWrite, WriteSet};
use pelton_core::message::{Failure, Message};

use super::entries::{self, Shown};
use crate::observe::{Observed, What};
use crate::telemetry::printable;
use crate::wasm::Line;

/// More characters of a value are not printed.
const VALUE_CHARS_MAX: usize = 400;

/// Standard output, for two threads.
#[derive(Default)]
pub(super) struct Printer {
    turn: Mutex<()>,
}

impl Printer {
    /// A line of `pelton dev` itself.
    pub(super) fn say(&self, text: &str) {
        self.print(&format!("dev: {text}\n"));
    }

    /// A block that nothing comes between.
    pub(super) fn print(&self, block: &str) {
        let _turn = self.turn.lock();
        let mut out = io::stdout().lock();
        // Who closed the output doesn't want to see it.
        _ = out.write_all(block.as_bytes()).and_then(|()| out.flush());
    }
}

/// A message and all that became of it, a line each.
pub(super) fn lines(observed: &Observed) -> String {
    let Observed { consumer, message, attempt, what } = observed;
    let mut lines = vec![head(consumer, message, *attempt)];
    match what {
        What::Attempted { version, outcome, before, told } => {
            lines.extend(told.lines.iter().map(log_line));
            match outcome {
                Ok(writes) => lines.extend(effects(writes, before)),
                Err(failure) => lines.push(format!("  failed  {}", failed(failure))),
            }
            let word = if outcome.is_ok() { "applied" } else { "nothing of it is kept" };
            let milliseconds = told.time_us as f64 / 1_000.0;
            lines.push(format!("  {word} by version {} in {milliseconds:.1} ms", version.short()));
        }
        What::Duplicate => lines.push("  skipped: its id was applied before".to_owned()),
        What::Stale => lines.push("  skipped: its entity has a newer version".to_owned()),
        What::Gap(expected) => lines.push(format!("  set aside: version {expected} of its entity is not there yet")),
    }
    lines.push(String::new());
    lines.join("\n")
}

fn head(consumer: &str, message: &Message, attempt: u32) -> String {
    let key = message.key.as_deref().map_or_else(String::new, |key| format!(" key {}", printable(key)));
    let again = if attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
    let payload = shown(&message.payload);
    format!("{consumer} <- {} id {}{key}{again}: {payload}", printable(&message.subject), printable(&message.id))
}

fn effects<'a>(writes: &'a WriteSet, before: &'a [Option<Bytes>]) -> impl Iterator<Item = String> + 'a {
    let mut before = before.iter();
    let state = writes.state.iter().filter_map(move |write| change(write, &mut before));
    state.chain(writes.events.iter().map(|event| emitted(event)))
}

fn change<'a>(write: &StateWrite, before: &mut impl Iterator<Item = &'a Option<Bytes>>) -> Option<String> {
    let key = printable(&write.key);
    match write.space {
        Space::User => {
            let text = |value: Option<&Bytes>| value.map_or_else(|| "nothing".to_owned(), |bytes| shown(bytes));
            let was = before.next().and_then(Option::as_ref);
            let is = write.value.as_ref().map(|value| &value.bytes);
            Some(format!("  state   {key}: {} -> {}", text(was), text(is)))
        }
        Space::Mark => Some(format!("  mark    {key}")),
        Space::Host => None,
    }
}

fn emitted(event: &Event) -> String {
    format!("  event   {}: {}", printable(&event.subject), shown(&event.payload))
}

fn log_line(line: &Line) -> String {
    let Line { level, source, text, fields } = line;
    let space = if fields.is_empty() { "" } else { " " };
    format!("  {source:<7} {level} {text}{space}{fields}")
}

fn failed(failure: &Failure) -> String {
    format!("{}: {}", failure.kind(), printable(&failure.reason()))
}

fn shown(bytes: &[u8]) -> String {
    let text = match Shown::of(bytes) {
        Shown::Json(json) => entries::compact(json.get()),
        Shown::Text(text) if text.is_empty() => "(empty)".to_owned(),
        Shown::Text(text) => format!("{text:?}"),
        Shown::Base64(text) => format!("base64 {text}"),
    };
    let mut cut: String = text.chars().take(VALUE_CHARS_MAX).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    printable(&cut).into_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pelton_core::batch::StreamIdentity;
    use pelton_core::effects::StateValue;
    use pelton_core::ids::Version;

    use super::*;
    use crate::wasm::Told;

    fn observed(outcome: Result<WriteSet, Failure>, before: Vec<Option<Bytes>>) -> Observed {
        let message = Message {
            id: "order-1".into(),
            mark: None,
            subject: "orders.new".into(),
            key: Some("al\u{1b}ice".into()),
            headers: Vec::new(),
            payload: "{\"customer\": \"alice\"}".into(),
            sequence: 1,
            published_at_ms: 0,
            stream: Arc::new(StreamIdentity { name: "ORDERS".into(), created_ns: 0 }),
            entity_version: None,
        };
        let told = Told { time_us: 1_250, ..Told::default() };
        let what = What::Attempted { version: Version([0xab; 32]), outcome, before, told };
        Observed { consumer: "regulars".into(), message: Arc::new(message), attempt: 2, what }
    }

    #[test]
    fn a_message_is_shown_with_what_it_changed_and_emitted() {
        let value = StateValue { bytes: "3".into(), expires_at_ms: None };
        let state = vec![StateWrite { space: Space::User, key: "orders".into(), value: Some(value) }];
        let event = Event {
            id: "x".into(),
            subject: "regulars.alice".into(),
            key: None,
            headers: Vec::new(),
            payload: "3".into(),
        };
        let writes = WriteSet { state, events: vec![Arc::new(event)] };
        let text = lines(&observed(Ok(writes), vec![Some("2".into())]));
        let expected = "regulars <- orders.new id order-1 key al\\u{1b}ice, attempt 2: {\"customer\":\"alice\"}\n  state   orders: 2 -> 3\n  \
                        event   regulars.alice: 3\n  applied by version abababababab in 1.2 ms\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_failure_is_shown_with_its_kind_and_reason() {
        let text = lines(&observed(Err(Failure::Reject { reason: "no\ncustomer".into() }), Vec::new()));
        assert!(text.contains("  failed  reject: no\\ncustomer\n  nothing of it is kept"), "{text}");
    }
}
