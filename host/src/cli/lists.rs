//! Answers about one consumer, its state, the outbox and findings, as text for people.

use std::fmt::Write;

use super::doctor::{Finding, Level};
use super::tables::{duration, first_line, holds, shorten, table, trimmed};
use crate::admin::{ConsumerDetailView, OutboxRowView, StateView};

/// Columns of values are cut at this many characters; `--json` and `state get` have them whole.
const VALUE_CHARS_MAX: usize = 60;

pub(super) fn state(entries: &[StateView]) -> String {
    if entries.is_empty() {
        return "no state".into();
    }
    let mut table = table(&["KEY", "ENTRY", "VALUE", "EXPIRES"]);
    for entry in entries {
        let value = match (&entry.value, &entry.value_base64) {
            (Some(text), _) => shorten(text.lines().next().unwrap_or_default(), VALUE_CHARS_MAX),
            (None, Some(base64)) => format!("base64 {}", shorten(base64, VALUE_CHARS_MAX)),
            (None, None) => String::new(),
        };
        table.add_row(vec![
            entry.key.clone().unwrap_or_else(|| "-".into()),
            entry.entry.clone(),
            value,
            entry.expires_at.clone().unwrap_or_else(|| "-".into()),
        ]);
    }
    trimmed(&table)
}

pub(super) fn outbox(rows: &[OutboxRowView]) -> String {
    if rows.is_empty() {
        return "the outbox is empty".into();
    }
    let mut table = table(&["CONSUMER", "ID", "SUBJECT", "KEY", "PLACE", "AGE", "REFUSALS", "REASON"]);
    for row in rows {
        table.add_row(vec![
            row.consumer.clone(),
            row.id.clone(),
            row.subject.clone(),
            row.key.clone().unwrap_or_else(|| "-".into()),
            row.place.clone(),
            duration(row.age_ms),
            row.refusals.to_string(),
            row.reason.as_deref().map_or_else(|| "-".into(), first_line),
        ]);
    }
    trimmed(&table)
}

pub(super) fn consumer(detail: &ConsumerDetailView) -> String {
    let ConsumerDetailView { consumer, number, stream_created, quiet, settled_above, rewound, keys, requested } =
        detail;
    let mut text = String::new();
    // Writing to a String can't fail.
    let mut line = |name: &str, value: &str| _ = writeln!(text, "{name:<11} {value}");
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    line("consumer", &format!("{} (number {number})", consumer.name));
    line("phase", &format!("{}{}", consumer.phase, if *quiet { ", nothing under way" } else { "" }));
    line("version", &or_none(&consumer.version));
    line("stream", &format!("{}, created {}", or_none(&consumer.stream), or_none(stream_created)));
    line(
        "cursor",
        &format!("everything up to {} is settled, {} is the highest delivered", consumer.floor, consumer.delivered),
    );
    if !settled_above.is_empty() {
        let stretches: Vec<String> = settled_above.iter().map(|(first, last)| format!("{first}-{last}")).collect();
        line("", &format!("settled above: {}", stretches.join(", ")));
    }
    if let Some((first, last)) = rewound {
        line("rewound", &format!("{first} to {last} are handled again"));
    }
    line("pending", &format!("{} not delivered, {requested} asked for", consumer.pending));
    line("held", &format!("{} messages, {} bytes, {keys} keys", consumer.held, consumer.held_bytes));
    line("attempts", &format!("{} running, {} keys wait for another", consumer.running, consumer.waiting_retry));
    line(
        "parked",
        &format!(
            "{} messages of {} keys, {} come back",
            consumer.parked_rows, consumer.parked_keys, consumer.keys_releasing
        ),
    );
    let oldest = consumer.outbox_age_ms.map_or_else(String::new, |age| format!(", the oldest for {}", duration(age)));
    line("outbox", &format!("{} events{oldest}", consumer.outbox_pending));
    line(
        "since start",
        &format!(
            "{} applied, {} duplicates, {} stale, {} retries, {} dead letters, {} published",
            consumer.applied,
            consumer.duplicates,
            consumer.stale,
            consumer.retries,
            consumer.dead_letters,
            consumer.published
        ),
    );
    for problem in holds(consumer).iter().chain(&consumer.problems) {
        line("!", problem.trim_end());
    }
    text.trim_end().to_owned()
}

pub(super) fn findings(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.level {
            Level::Ok => "ok  ",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        _ = writeln!(text, "{mark}  {}: {}", finding.thing, finding.text);
        if let Some(help) = &finding.help {
            _ = writeln!(text, "      help: {help}");
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    _ = write!(text, "{} ok, {} to look at, {} failed", count(Level::Ok), count(Level::Warn), count(Level::Fail));
    text
}
