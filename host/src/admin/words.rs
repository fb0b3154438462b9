//! Why a key is where it is, in sentences for an operator: what its consumer does, what is in memory, what is parked, and what would free it.

use std::sync::Arc;

use pelton_core::batch::HoldBy;
use pelton_core::message::FailedAttempt;
use pelton_core::parked::{ParkCause, Parked};
use pelton_core::{Explanation, KeyParked, KeyRunning, LaneDoing, WaitsFor};

use super::views::time;

/// What the sentences are made from.
pub(super) struct Facts<'a> {
    pub(super) consumer: &'a str,
    pub(super) key: &'a str,
    pub(super) explanation: &'a Explanation,
    /// Why the consumer is halted.
    pub(super) halted: Option<&'a str>,
    /// What else keeps it from reading.
    pub(super) problems: Vec<String>,
    /// Messages of the stream that were not delivered yet.
    pub(super) pending: u64,
    /// The first parked messages of the key.
    pub(super) first: &'a [Arc<Parked>],
    /// The one that holds the key, wherever it stands.
    pub(super) holder: Option<&'a Parked>,
    pub(super) dead_letters: u64,
    pub(super) dead_letters_more: bool,
    /// Milliseconds since 1970-01-01 UTC.
    pub(super) now_ms: u64,
}

/// The sentences: first the key, then its consumer, then its dead letters.
pub(super) fn explain(facts: &Facts<'_>) -> Vec<String> {
    let Explanation { running, parked, .. } = facts.explanation;
    let mut text = Vec::new();
    if let Some(running) = running {
        in_memory(facts, running, &mut text);
    }
    if let Some(parked) = parked {
        on_disk(facts, parked, &mut text);
    }
    if running.is_none() && parked.is_none() {
        let Facts { consumer, key, .. } = facts;
        // What a consumer that does not read let go of will be delivered again.
        text.push(if facts.explanation.phase == "running" {
            format!("Nothing of key {key:?} waits: every message of it that was delivered to consumer {consumer} has its outcome.")
        } else {
            format!("Nothing of key {key:?} is in the hands of consumer {consumer}, and nothing is parked.")
        });
        if facts.pending > 0 {
            text.push(format!(
                "Not delivered yet: {} of the stream, which may be of this key.",
                messages(facts.pending)
            ));
        }
    }
    of_consumer(facts, &mut text);
    of_dead_letters(facts, &mut text);
    text
}

fn in_memory(facts: &Facts<'_>, running: &KeyRunning, text: &mut Vec<String>) {
    let Facts { key, .. } = facts;
    let (sequence, next) = (running.sequence, running.attempts.saturating_add(1));
    text.push(match running.doing {
        LaneDoing::Running => format!("Message {sequence} of key {key:?} is being handled now (attempt {next})."),
        LaneDoing::Ready(waits_for) => format!(
            "Message {sequence} of key {key:?} is ready for attempt {next} and waits {}.",
            ready(facts, waits_for)
        ),
        LaneDoing::Backoff { for_ms } => format!(
            "Message {sequence} of key {key:?} waits for attempt {next}, which begins {}.",
            when(facts.now_ms, for_ms)
        ),
        LaneDoing::Blocked => format!(
            "Message {sequence} of key {key:?} has the same id as a message of another key that is being handled now, and waits for its outcome."
        ),
    });
    if let Some(last) = &running.last_failure {
        text.push(last_failure(last, running.attempts));
    }
    let behind = (running.messages as u64).saturating_sub(1);
    if behind > 0 {
        text.push(format!("Behind it in memory: {} of the key.", messages(behind)));
    }
}

/// What a message waits for that could be handled.
fn ready(facts: &Facts<'_>, waits_for: WaitsFor) -> String {
    match waits_for {
        WaitsFor::Turn => "for its turn on an executor".into(),
        WaitsFor::Consumer => "until its consumer goes on".into(),
        WaitsFor::Rate { for_ms } => {
            format!("for the consumer's rate limit, which allows the next attempt {}", when(facts.now_ms, for_ms))
        }
        WaitsFor::Keys { keys_max } => {
            format!(
                "because {} of its consumer are being handled, as many as may be at a time",
                counted(keys_max as u64, "key")
            )
        }
        WaitsFor::SharedState => "for another message of its consumer, since all of them share their state".into(),
        WaitsFor::Memory => {
            "because effects in memory are not durable, or not folded, yet: the disk does not keep up".into()
        }
        WaitsFor::Disk => {
            "because the disk of the data directory has too little room: free some, and it goes on by itself".into()
        }
    }
}

fn on_disk(facts: &Facts<'_>, parked: &KeyParked, text: &mut Vec<String>) {
    if let Some(row) = facts.holder {
        of_holder(facts, parked, row, text);
    } else if parked.cause.is_some() {
        text.push(format!(
            "Parked, and held by one that stands behind many: {} of key {:?}; `pelton parked list {} --key {:?}` shows them.",
            messages(parked.rows),
            facts.key,
            facts.consumer,
            facts.key
        ));
    } else if parked.held {
        text.push(format!("Parked, and held by nothing any more: {} of key {:?}.", messages(parked.rows), facts.key));
    }
    if parked.aside > 0 {
        of_aside(facts, parked, text);
    }
    if parked.being_released {
        text.push("Its parked messages are being brought back now, in order, or wait for their turn to be.".into());
    }
}

fn of_holder(facts: &Facts<'_>, parked: &KeyParked, row: &Parked, text: &mut Vec<String>) {
    let Facts { consumer, key, .. } = facts;
    let Parked { id, message, attempts, .. } = row;
    let (sequence, since) = (message.sequence, time(row.parked_at_ms));
    if row.cause == ParkCause::Retrying {
        text.push(format!(
            "Key {key:?} is parked since {since}: message {sequence} (parked as {}) waits for attempt {}, and more came meanwhile than is kept in memory.",
            id.0,
            attempts.saturating_add(1)
        ));
    } else {
        text.push(format!(
            "Key {key:?} is parked since {since}: message {sequence} (parked as {}) failed {attempts} times and used up its attempts{}.",
            id.0,
            match row.releases {
                0 => String::new(),
                releases => format!(", again after {} that brought it back", counted(u64::from(releases), "release")),
            }
        ));
    }
    if let Some(last) = row.history.last() {
        text.push(last_failure(last, *attempts));
    }
    let behind = parked.rows.saturating_sub(parked.aside).saturating_sub(1);
    text.push(match behind {
        0 => "No other message of the key is parked behind it; whatever comes will be.".into(),
        _ => format!("Parked behind it, in order: {} of the key; whatever comes joins them.", messages(behind)),
    });
    if parked.being_released {
        return;
    }
    let until = row.until_ms.map(|until| until.saturating_sub(facts.now_ms)).or(parked.released_in_ms);
    let by_itself = match until {
        Some(for_ms) => format!("It is tried again {}", when(facts.now_ms, for_ms)),
        None => "It is not tried again by itself".into(),
    };
    text.push(format!(
        "{by_itself}; a new version of the plug-in (unless the manifest says otherwise) or `pelton parked release {consumer} --key {key:?}` \
         brings the key back before; `pelton parked edit` changes the message {0} first, and `pelton parked drop {consumer} {0}` frees the key without it.",
        id.0
    ));
}

fn of_aside(facts: &Facts<'_>, parked: &KeyParked, text: &mut Vec<String>) {
    let Facts { consumer, key, .. } = facts;
    text.push(format!("Set aside while the key goes on: {} of key {key:?}.", messages(parked.aside)));
    for row in facts.first.iter().filter(|row| row.cause.is_aside()) {
        let Parked { id, message, until_ms, parked_at_ms, .. } = &**row;
        let until = until_ms.map_or_else(String::new, |until| format!(", at the latest at {}", time(until)));
        let since = time(*parked_at_ms);
        text.push(match row.cause {
            ParkCause::Gap { expected } => format!(
                "Message {} (version {}, parked as {} since {since}) waits for version {expected} of its entity{until}.",
                message.sequence,
                message.entity_version.map_or_else(|| "?".into(), |version| version.to_string()),
                id.0
            ),
            _ => format!(
                "Message {} (parked as {} since {since}) waits because the plug-in said that it is not its turn{}; \
                 it is asked again when another message of the key was applied{until}.",
                message.sequence,
                id.0,
                row.history.last().map_or_else(String::new, |last| format!(": {}", last.failure.reason())),
            ),
        });
    }
    if !parked.being_released {
        text.push(format!("`pelton parked release {consumer} --key {key:?}` has them tried now."));
    }
}

fn of_consumer(facts: &Facts<'_>, text: &mut Vec<String>) {
    let Facts { consumer, explanation, .. } = facts;
    for (by, hold) in &explanation.holds {
        let since = time(hold.since_ms);
        let why = if hold.reason.is_empty() { String::new() } else { format!(": {}", hold.reason) };
        text.push(match by {
            HoldBy::Operator => format!(
                "Consumer {consumer} was paused by an operator at {since}{why}. It begins no attempt until `pelton consumers resume {consumer}`."
            ),
            HoldBy::Breaker => format!(
                "Consumer {consumer} paused itself at {since}{why}. It probes with one message from time to time and goes on when \
                 one succeeds; `pelton consumers resume {consumer}` lets it go on now."
            ),
        });
    }
    match (explanation.phase, facts.halted) {
        (_, Some(why)) => text.push(format!("Consumer {consumer} is halted: {why}.")),
        ("running", _) => {}
        ("stopped" | "stopping", _) => text.push(format!(
            "Consumer {consumer} is {}: it has no manifest any more, or the host is stopping. It goes on where it was when it is deployed again.",
            explanation.phase
        )),
        (phase, _) => text.push(format!("Consumer {consumer} is {phase}: it waits for its stream.")),
    }
    let told = |problem: &&String| facts.halted != Some(problem.as_str());
    text.extend(facts.problems.iter().filter(told).map(|problem| format!("Consumer {consumer}: {problem}")));
}

fn of_dead_letters(facts: &Facts<'_>, text: &mut Vec<String>) {
    let more = if facts.dead_letters_more { "at least " } else { "" };
    if facts.dead_letters > 0 {
        text.push(format!(
            "Given up: {more}{} of the key, see `pelton dead-letters list {} --key {:?}`.",
            messages(facts.dead_letters),
            facts.consumer,
            facts.key
        ));
    }
}

fn last_failure(last: &FailedAttempt, attempts: u32) -> String {
    let FailedAttempt { at_ms, version, failure } = last;
    format!(
        "Attempt {attempts} failed at {} with version {}, by {}: {}.",
        time(*at_ms),
        version.short(),
        failure.kind(),
        failure.reason().trim_end_matches('.')
    )
}

fn when(now_ms: u64, for_ms: u64) -> String {
    let at = time(now_ms.saturating_add(for_ms));
    match for_ms {
        0..1_000 => format!("in less than a second, at {at}"),
        _ => format!("in {} s, at {at}", for_ms / 1_000),
    }
}

fn messages(count: u64) -> String {
    counted(count, "message")
}

fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use pelton_core::batch::{Hold, StreamIdentity};
    use pelton_core::ids::{ParkId, Version};
    use pelton_core::message::{Failure, Message};

    use super::*;

    fn row(id: u64, cause: ParkCause) -> Arc<Parked> {
        let failure = Failure::Trap { reason: "out of luck".into() };
        Arc::new(Parked {
            id: ParkId(id),
            message: Arc::new(Message {
                id: "m".into(),
                mark: None,
                subject: "in.a".into(),
                key: Some("a".into()),
                headers: Vec::new(),
                payload: Default::default(),
                sequence: id + 100,
                published_at_ms: 0,
                stream: Arc::new(StreamIdentity { name: "IN".into(), created_ns: 1 }),
                entity_version: Some(5),
            }),
            cause,
            until_ms: None,
            parked_at_ms: 1_000,
            releases: 0,
            attempts: 3,
            failures: 3,
            history: vec![FailedAttempt { at_ms: 900, version: Version([7; 32]), failure }],
        })
    }

    fn parked(rows: u64, aside: u64, released_in_ms: Option<u64>) -> Option<KeyParked> {
        Some(KeyParked { rows, aside, held: rows > aside, cause: None, released_in_ms, being_released: false })
    }

    fn said(explanation: &Explanation, first: &[Arc<Parked>], dead_letters: u64) -> String {
        explain(&Facts {
            consumer: "orders",
            key: "a",
            explanation,
            halted: None,
            problems: Vec::new(),
            pending: 4,
            first,
            holder: first.iter().map(|row| &**row).find(|row| row.cause.holds_key()),
            dead_letters,
            dead_letters_more: false,
            now_ms: 0,
        })
        .join("\n")
    }

    fn assert_says(text: &str, parts: &[&str]) {
        for part in parts {
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }
    }

    const IDLE: Explanation = Explanation { phase: "running", holds: Vec::new(), running: None, parked: None };

    #[test]
    fn a_parked_key_is_told_with_its_holder_what_stands_behind_and_what_frees_it() {
        let explanation = Explanation { parked: parked(4, 0, Some(42_000)), ..IDLE };
        let text = said(&explanation, &[row(7, ParkCause::Exhausted), row(8, ParkCause::Behind)], 0);
        assert_says(
            &text,
            &["parked since 1970-01-01T00:00:01.000Z", "message 107 (parked as 7) failed 3 times", "trap: out of luck"],
        );
        assert_says(
            &text,
            &["Parked behind it, in order: 3 messages", "in 42 s, at 1970-01-01T00:00:42.000Z", "release orders --key"],
        );
    }

    #[test]
    fn one_that_nothing_brings_back_by_itself_says_so() {
        let explanation = Explanation { parked: parked(1, 0, None), ..IDLE };
        let text = said(&explanation, &[row(7, ParkCause::Exhausted)], 0);
        assert_says(&text, &["not tried again by itself", "No other message of the key is parked behind it"]);
    }

    #[test]
    fn what_was_set_aside_is_told_with_what_it_waits_for() {
        let explanation = Explanation { parked: parked(2, 2, None), ..IDLE };
        let text = said(&explanation, &[row(7, ParkCause::Gap { expected: 4 }), row(8, ParkCause::Asked)], 0);
        assert_says(
            &text,
            &["Set aside while the key goes on: 2 messages", "waits for version 4", "not its turn: out of luck"],
        );
    }

    #[test]
    fn a_key_in_memory_is_told_with_its_next_attempt_and_the_pause_that_keeps_it() {
        let last_failure = row(1, ParkCause::Exhausted).history.first().cloned();
        let doing = LaneDoing::Backoff { for_ms: 300 };
        let running = Some(KeyRunning { doing, messages: 3, sequence: 12, attempts: 2, last_failure });
        let hold = Hold { since_ms: 0, reason: "maintenance".into() };
        let explanation = Explanation { holds: vec![(HoldBy::Operator, hold)], running, ..IDLE };
        let text = said(&explanation, &[], 2);
        assert_says(
            &text,
            &["Message 12", "attempt 3, which begins in less than a second", "Attempt 2 failed", "by trap"],
        );
        assert_says(
            &text,
            &["Behind it in memory: 2 messages", "paused by an operator", "maintenance", "resume orders"],
        );
        assert_says(&text, &["Given up: 2 messages of the key"]);
    }

    #[test]
    fn a_key_without_messages_is_told_with_what_may_still_come() {
        assert_says(&said(&IDLE, &[], 0), &["Nothing of key \"a\" waits", "Not delivered yet: 4 messages"]);
    }
}
