//! Answers of the host as text for people.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets::NOTHING};

use super::settings::OfFile;
use crate::admin::{
    Attempt, ConsumerView, Content, DeadLetterView, DeployView, FailuresView, ParkedView, StatusView, VersionView,
};

/// Columns of reasons are cut at this many characters; `--json` and the single view have them whole.
const REASON_CHARS_MAX: usize = 60;
const VERSION_CHARS: usize = 12;

pub(super) fn status(status: &StatusView) -> String {
    let oldest =
        status.outbox.oldest_age_ms.map_or_else(String::new, |age| format!(", the oldest for {}", duration(age)));
    let mut text = format!(
        "pelton {}, up {}, {}\nnats: {}\noutbox: {} in flight, {} queued, {} waiting{oldest}\n\n",
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
        "PARKED",
        "KEYS",
        "APPLIED",
        "DUPLICATES",
        "DEAD",
        "OUTBOX",
        "OLDEST",
        "RATE",
        "HANDLER P50/P99",
        "END TO END P50/P99",
    ]);
    for consumer in &status.consumers {
        table.add_row(row(consumer));
    }
    align_numbers(&mut table, 4);
    // Writing to a String can't fail.
    _ = writeln!(text, "{}", trimmed(&table));
    for consumer in &status.consumers {
        let failures = failures(&consumer.failures);
        if !failures.is_empty() {
            _ = writeln!(text, "{}: failed attempts: {failures}", consumer.name);
        }
    }
    let held = status
        .consumers
        .iter()
        .flat_map(|consumer| holds(consumer).into_iter().map(move |hold| format!("{}: {hold}", consumer.name)));
    let problems = status
        .consumers
        .iter()
        .flat_map(|consumer| consumer.problems.iter().map(move |problem| format!("{}: {problem}", consumer.name)));
    let refusal =
        status.outbox.last_refusal.iter().map(|refusal| format!("outbox: the last refused publish: {refusal}"));
    for problem in status.ready.reasons.iter().cloned().chain(held).chain(problems).chain(files(status)).chain(refusal)
    {
        _ = writeln!(text, "! {}", problem.trim_end());
    }
    text.trim_end().to_owned()
}

/// The first digits of a version, which are enough to name it.
pub(super) fn short_version(version: &str) -> String {
    shorten(version, VERSION_CHARS)
}

/// The versions of a consumer.
pub(super) fn versions(versions: &[VersionView]) -> String {
    let mut table = table(&["VERSION", "STATE", "SINCE", "REASON"]);
    for version in versions {
        let reason = version.reason.as_deref().map_or_else(|| "-".into(), |reason| shorten(reason, REASON_CHARS_MAX));
        table.add_row(vec![short_version(&version.version), version.state.clone(), version.since.clone(), reason]);
    }
    trimmed(&table)
}

/// What a deployment came to.
pub(super) fn deployed(done: &DeployView) -> String {
    let mut table = table(&["CONSUMER", "STEP", "FROM", "TO", "RESULT"]);
    for step in &done.consumers {
        table.add_row(super::versions::line(step));
    }
    let mut text = if done.consumers.is_empty() { "no consumers".into() } else { trimmed(&table) };
    let reasons = done.consumers.iter().filter_map(|step| Some((step, step.reason.as_ref()?)));
    for (step, reason) in reasons.clone() {
        _ = write!(text, "\n! {}: {}", step.consumer, reason.trim_end());
    }
    for problem in done.files.iter().filter(|problem| !reasons.clone().any(|(_, reason)| reason.contains(*problem))) {
        _ = write!(text, "\n! {}", problem.trim_end());
    }
    text
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
        consumer.parked_rows.to_string(),
        consumer.parked_keys.to_string(),
        consumer.applied.to_string(),
        consumer.duplicates.to_string(),
        consumer.dead_letters.to_string(),
        consumer.outbox_pending.to_string(),
        consumer.outbox_age_ms.map_or_else(|| "-".into(), duration),
        format!("{:.1}/s", consumer.speed.rate),
        pair(consumer.speed.handler_p50_us, consumer.speed.handler_p99_us),
        pair(consumer.speed.end_to_end_p50_ms.map(to_us), consumer.speed.end_to_end_p99_ms.map(to_us)),
    ]
}

fn to_us(ms: u64) -> u64 {
    ms.saturating_mul(1_000)
}

/// Two percentiles in microseconds, in units for people.
fn pair(p50_us: Option<u64>, p99_us: Option<u64>) -> String {
    match (p50_us, p99_us) {
        (Some(p50_us), Some(p99_us)) => format!("{}/{}", spell(p50_us), spell(p99_us)),
        _ => "-".into(),
    }
}

/// A time in microseconds with two or three digits that count.
#[expect(clippy::cast_precision_loss, reason = "it is rounded to three digits")]
fn spell(us: u64) -> String {
    let (value, unit) = match us {
        0..1_000 => return format!("{us}µs"),
        1_000..1_000_000 => (us as f64 / 1e3, "ms"),
        1_000_000..60_000_000 => (us as f64 / 1e6, "s"),
        _ => return duration(us / 1_000),
    };
    if value < 10.0 { format!("{value:.1}{unit}") } else { format!("{value:.0}{unit}") }
}

/// Kinds of failed attempts that there were, the most frequent first.
fn failures(failures: &FailuresView) -> String {
    let FailuresView { retry, reject, park, trap, timeout, limit } = *failures;
    let kinds =
        [("retry", retry), ("reject", reject), ("park", park), ("trap", trap), ("timeout", timeout), ("limit", limit)];
    let mut kinds: Vec<_> = kinds.into_iter().filter(|(_, count)| *count > 0).collect();
    kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", ")
}

/// Who keeps a consumer from working, since when and why.
pub(super) fn holds(consumer: &ConsumerView) -> Vec<String> {
    let words = |hold: &crate::admin::HoldView| {
        let who = if hold.by == "operator" { "paused by an operator" } else { "paused by its breaker" };
        let why = if hold.reason.is_empty() { String::new() } else { format!(": {}", hold.reason) };
        format!("{who} since {}{why}", hold.since)
    };
    consumer.holds.iter().map(words).collect()
}

pub(super) fn consumers(consumers: &[ConsumerView]) -> String {
    if consumers.is_empty() {
        return "no consumers".into();
    }
    let mut table = table(&["CONSUMER", "PHASE", "HOLDS", "LAG", "PARKED", "KEYS", "DEAD"]);
    for consumer in consumers {
        let holds: Vec<&str> = consumer.holds.iter().map(|hold| hold.by.as_str()).collect();
        table.add_row(vec![
            consumer.name.clone(),
            consumer.phase.clone(),
            if holds.is_empty() { "-".into() } else { holds.join(",") },
            consumer.pending.saturating_add(consumer.held as u64).to_string(),
            consumer.parked_rows.to_string(),
            consumer.parked_keys.to_string(),
            consumer.dead_letters.to_string(),
        ]);
    }
    align_numbers(&mut table, 3);
    let mut text = trimmed(&table);
    for consumer in consumers {
        for line in holds(consumer).iter().chain(&consumer.problems) {
            _ = write!(text, "\n! {}: {}", consumer.name, line.trim_end());
        }
    }
    text
}

pub(super) fn parked(messages: &[ParkedView]) -> String {
    if messages.is_empty() {
        return "no parked messages".into();
    }
    let mut table = table(&["CONSUMER", "ID", "SEQUENCE", "KEY", "CAUSE", "ATTEMPTS", "SINCE", "UNTIL", "LAST ERROR"]);
    for message in messages {
        table.add_row(vec![
            message.consumer.clone(),
            message.id.to_string(),
            message.sequence.to_string(),
            message.key.clone().unwrap_or_else(|| "-".into()),
            message.cause.clone(),
            message.attempts.to_string(),
            message.parked_at.clone(),
            message.until.clone().unwrap_or_else(|| "-".into()),
            first_line(&message.reason),
        ]);
    }
    trimmed(&table)
}

pub(super) fn parked_message(message: &ParkedView) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| _ = writeln!(text, "{name:<9} {value}");
    line("consumer", &message.consumer);
    line("parked as", &message.id.to_string());
    line("stream", &message.stream);
    line("sequence", &message.sequence.to_string());
    line("id", &message.message_id);
    line("subject", &message.subject);
    line("key", message.key.as_deref().unwrap_or("-"));
    if let Some(version) = message.entity_version {
        line("version", &version.to_string());
    }
    line("published", &message.published_at);
    line("because", &because(message));
    if let Some(behind) = &message.behind {
        line("behind", &format!("{} (sequence {}, {})", behind.id, behind.sequence, behind.cause));
    }
    line("since", &message.parked_at);
    line("until", message.until.as_deref().unwrap_or("something else brings it back"));
    line("releases", &message.releases.to_string());
    line("attempts", &message.attempts.to_string());
    history(&message.history, &mut line);
    content(&message.content, message.payload_bytes, &mut line);
    text.trim_end().to_owned()
}

fn because(message: &ParkedView) -> String {
    let words = match message.cause.as_str() {
        "exhausted" => "its attempts are used up; it holds its key",
        "retrying" => "it waits for its next attempt; it holds its key",
        "asked" => "the plug-in said that it is not its turn; its key goes on",
        "behind" => "it stands behind another one of its key",
        "replayed" => "it was a dead letter and is to be handled again",
        "gap" => {
            let missing = message.missing_version.map_or_else(|| "?".into(), |version| version.to_string());
            return format!("gap: version {missing} of its entity is missing; its key goes on");
        }
        other => return other.to_owned(),
    };
    format!("{}: {words}", message.cause)
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
            first_line(&letter.reason),
        ]);
    }
    trimmed(&table)
}

pub(super) fn dead_letter(letter: &DeadLetterView) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| _ = writeln!(text, "{name:<9} {value}");
    line("consumer", &letter.consumer);
    line("stream", &letter.stream);
    line("sequence", &letter.sequence.to_string());
    line("id", &letter.id);
    line("subject", &letter.subject);
    line("key", letter.key.as_deref().unwrap_or("-"));
    line("published", &letter.published_at);
    line("cause", &letter.cause);
    line("reason", &letter.reason);
    line("at", &letter.at);
    line("attempts", &letter.attempts.to_string());
    history(&letter.history, &mut line);
    content(&letter.content, letter.payload_bytes, &mut line);
    text.trim_end().to_owned()
}

pub(super) fn settings(files: &[OfFile]) -> String {
    let of_file = |of: &OfFile| {
        let title = of.consumer.as_ref().map_or_else(|| "host".to_owned(), |name| format!("consumer {name}"));
        let mut table = table(&["SETTING", "VALUE", "FROM"]);
        for setting in &of.settings {
            table.add_row(vec![setting.name.clone(), setting.value.to_string(), setting.source.to_string()]);
        }
        format!("{title}: {}\n{}", of.file.display(), trimmed(&table))
    };
    files.iter().map(of_file).collect::<Vec<_>>().join("\n\n")
}

fn history(history: &[Attempt], line: &mut impl FnMut(&str, &str)) {
    for attempt in history {
        let version = shorten(&attempt.version, VERSION_CHARS);
        line("", &format!("{} {version} {}: {}", attempt.at, attempt.kind, attempt.reason));
    }
}

/// Headers and payload, the payload with what it is: what is no text is shown in base64.
fn content(content: &Content, bytes: usize, line: &mut impl FnMut(&str, &str)) {
    for (name, value) in &content.headers {
        line("header", &format!("{name}: {value}"));
    }
    match (&content.payload, &content.payload_base64) {
        (Some(text), _) if bytes > 0 => {
            let is_json = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
            line("payload", &format!("{bytes} bytes, {}", if is_json { "JSON" } else { "text" }));
            line("", text);
        }
        (None, Some(base64)) => {
            line("payload", &format!("{bytes} bytes, in base64"));
            line("", base64);
        }
        _ => line("payload", "empty"),
    }
}

pub(super) fn first_line(reason: &str) -> String {
    shorten(reason.lines().next().unwrap_or_default(), REASON_CHARS_MAX)
}

pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header);
    table
}

fn align_numbers(table: &mut Table, first: usize) {
    for column in table.column_iter_mut().skip(first) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

pub(super) fn trimmed(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

pub(super) fn shorten(text: &str, chars_max: usize) -> String {
    let Some((cut, _)) = text.char_indices().nth(chars_max) else { return text.to_owned() };
    let kept = text.get(..cut).unwrap_or(text);
    if chars_max == VERSION_CHARS { kept.to_owned() } else { format!("{kept}…") }
}

pub(super) fn duration(ms: u64) -> String {
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
    fn times_are_told_in_the_unit_that_suits_them() {
        let shown = [7, 950, 1_250, 48_000, 2_500_000, 65_000_000].map(spell);
        assert_eq!(shown, ["7µs", "950µs", "1.2ms", "48ms", "2.5s", "1m5s"]);
        assert_eq!([pair(Some(80), Some(1_000)), pair(None, None)], ["80µs/1.0ms", "-"]);
    }

    #[test]
    fn kinds_of_failures_are_told_that_there_were_the_most_frequent_first() {
        let some = FailuresView { retry: 2, trap: 7, ..FailuresView::default() };
        assert_eq!([failures(&some), failures(&FailuresView::default())], ["7 trap, 2 retry", ""]);
    }

    #[test]
    fn long_reasons_are_cut_at_a_character() {
        assert_eq!(shorten("äöü", 2), "äö…");
        assert_eq!(shorten("äö", 2), "äö");
    }
}
