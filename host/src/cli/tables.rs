//! Answers of the host as text for people.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets::NOTHING};

use crate::admin::{ConsumerView, DeadLetterView, StatusView};

/// Columns of reasons are cut at this many characters; `--json` and the single view have them whole.
const REASON_CHARS_MAX: usize = 60;
const VERSION_CHARS: usize = 12;

pub(super) fn status(status: &StatusView) -> String {
    let mut text = format!(
        "pelton {}, up {}, {}\nnats: {}\noutbox: {} in flight, {} queued, {} waiting\n\n",
        status.version,
        duration(status.uptime_ms),
        if status.ready.ok { "ready" } else { "not ready" },
        status.nats,
        status.outbox.in_flight,
        status.outbox.queued,
        status.outbox.waiting,
    );
    let mut table = table(&[
        "CONSUMER",
        "PHASE",
        "VERSION",
        "STREAM",
        "FLOOR",
        "PENDING",
        "HELD",
        "RETRYING",
        "APPLIED",
        "DUPLICATES",
        "DEAD",
        "OUTBOX",
    ]);
    for consumer in &status.consumers {
        table.add_row(row(consumer));
    }
    align_numbers(&mut table, 4);
    // Writing to a String can't fail.
    _ = writeln!(text, "{}", trimmed(&table));
    let problems = status
        .consumers
        .iter()
        .flat_map(|consumer| consumer.problems.iter().map(move |problem| format!("{}: {problem}", consumer.name)));
    let refusal =
        status.outbox.last_refusal.iter().map(|refusal| format!("outbox: the last refused publish: {refusal}"));
    for problem in status.ready.reasons.iter().cloned().chain(problems).chain(files(status)).chain(refusal) {
        _ = writeln!(text, "! {}", problem.trim_end());
    }
    text.trim_end().to_owned()
}

/// What is wrong with files and is not shown with a consumer already.
fn files(status: &StatusView) -> impl Iterator<Item = String> {
    let shown = |problem: &str| {
        status.consumers.iter().flat_map(|consumer| &consumer.problems).any(|shown| shown.contains(problem))
    };
    status.files.iter().filter(move |problem| !shown(problem)).cloned()
}

fn row(consumer: &ConsumerView) -> Vec<String> {
    vec![
        consumer.name.clone(),
        consumer.phase.clone(),
        consumer.version.as_deref().map_or_else(|| "-".into(), |version| shorten(version, VERSION_CHARS)),
        consumer.stream.clone().unwrap_or_else(|| "-".into()),
        consumer.floor.to_string(),
        consumer.pending.to_string(),
        consumer.held.to_string(),
        consumer.waiting_retry.to_string(),
        consumer.applied.to_string(),
        consumer.duplicates.to_string(),
        consumer.dead_letters.to_string(),
        consumer.outbox_pending.to_string(),
    ]
}

pub(super) fn dead_letters(letters: &[DeadLetterView]) -> String {
    if letters.is_empty() {
        return "no dead letters".into();
    }
    let mut table = table(&["CONSUMER", "SEQUENCE", "KEY", "CAUSE", "ATTEMPTS", "AT", "REASON"]);
    for letter in letters {
        table.add_row(vec![
            letter.consumer.clone(),
            letter.sequence.to_string(),
            letter.key.clone().unwrap_or_else(|| "-".into()),
            letter.cause.clone(),
            letter.attempts.to_string(),
            letter.at.clone(),
            shorten(letter.reason.lines().next().unwrap_or_default(), REASON_CHARS_MAX),
        ]);
    }
    trimmed(&table)
}

pub(super) fn dead_letter(letter: &DeadLetterView) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| _ = writeln!(text, "{name:<9} {value}");
    line("consumer", &letter.consumer);
    line("sequence", &letter.sequence.to_string());
    line("id", &letter.id);
    line("subject", &letter.subject);
    line("key", letter.key.as_deref().unwrap_or("-"));
    line("cause", &letter.cause);
    line("reason", &letter.reason);
    line("at", &letter.at);
    line("attempts", &letter.attempts.to_string());
    for attempt in &letter.history {
        let version = shorten(&attempt.version, VERSION_CHARS);
        line("", &format!("{} {version} {}: {}", attempt.at, attempt.kind, attempt.reason));
    }
    for (name, value) in &letter.headers {
        line("header", &format!("{name}: {value}"));
    }
    match (&letter.payload, &letter.payload_hex) {
        (Some(payload), _) => line("payload", payload),
        (None, Some(hex)) => line("payload", &format!("(hex) {hex}")),
        (None, None) => line("payload", "-"),
    }
    text.trim_end().to_owned()
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header);
    table
}

fn align_numbers(table: &mut Table, first: usize) {
    for column in table.column_iter_mut().skip(first) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

fn trimmed(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

fn shorten(text: &str, chars_max: usize) -> String {
    let Some((cut, _)) = text.char_indices().nth(chars_max) else { return text.to_owned() };
    let kept = text.get(..cut).unwrap_or(text);
    if chars_max == VERSION_CHARS { kept.to_owned() } else { format!("{kept}…") }
}

fn duration(ms: u64) -> String {
    let seconds = ms / 1_000;
    match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (0, hours, minutes, _) => format!("{hours}h{minutes}m"),
        (days, hours, ..) => format!("{days}d{hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_parts_at_most() {
        let shown = [5_000, 65_000, 3_700_000, 90_000_000].map(duration);
        assert_eq!(shown, ["5s", "1m5s", "1h1m", "1d1h"]);
    }

    #[test]
    fn long_reasons_are_cut_at_a_character() {
        assert_eq!(shorten("äöü", 2), "äö…");
        assert_eq!(shorten("äö", 2), "äö");
    }
}
