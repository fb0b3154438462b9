//! From the host's own types to the answers' JSON.

use std::collections::BTreeMap;

use pelton_core::Status;
use pelton_core::ids::ConsumerId;
use pelton_core::message::{DeadLetter, GivenUp};

use super::api::{Attempt, ConsumerView, DeadLetterView, OutboxView};
use crate::board::Entry;
use crate::driver::Snapshot;

pub(super) fn outbox(status: &Status, last_refusal: Option<String>) -> OutboxView {
    OutboxView {
        in_flight: status.relay_in_flight,
        queued: status.relay_queued,
        waiting: status.relay_waiting,
        // One that was made good since is no news.
        last_refusal: last_refusal.filter(|_| status.relay_waiting > 0),
    }
}

/// Consumers of the core and consumers that never got so far, by name.
pub(super) fn consumers(snapshot: &Snapshot, entries: &BTreeMap<Box<str>, Entry>) -> Vec<ConsumerView> {
    let mut views: BTreeMap<String, ConsumerView> = BTreeMap::new();
    for status in &snapshot.status.consumers {
        let entry = entries.get(&status.name).cloned().unwrap_or_default();
        let halted = snapshot.halted.get(&status.id).cloned();
        let counters = status.counters;
        let view = ConsumerView {
            name: status.name.to_string(),
            phase: status.phase.into(),
            version: entry.version.map(|version| version.to_string()),
            stream: status.stream.as_ref().map(|stream| stream.name.to_string()),
            floor: status.floor,
            delivered: status.high,
            pending: entry.pending,
            held: status.held,
            held_bytes: status.held_bytes,
            running: status.running,
            waiting_retry: status.waiting_retry,
            outbox_pending: status.outbox_pending,
            applied: counters.applied,
            duplicates: counters.duplicates,
            redelivered: counters.redelivered,
            retries: counters.retries,
            dead_letters: counters.dead_letters,
            published: counters.published,
            problems: halted.into_iter().chain(entry.deployment).chain(entry.subscription).collect(),
        };
        views.insert(view.name.clone(), view);
    }
    for (name, entry) in entries {
        views.entry(name.to_string()).or_insert_with(|| refused(name, entry));
    }
    views.into_values().collect()
}

fn refused(name: &str, entry: &Entry) -> ConsumerView {
    ConsumerView {
        name: name.to_owned(),
        phase: "refused".into(),
        version: None,
        stream: None,
        floor: 0,
        delivered: 0,
        pending: 0,
        held: 0,
        held_bytes: 0,
        running: 0,
        waiting_retry: 0,
        outbox_pending: 0,
        applied: 0,
        duplicates: 0,
        redelivered: 0,
        retries: 0,
        dead_letters: 0,
        published: 0,
        problems: entry.deployment.iter().chain(&entry.subscription).cloned().collect(),
    }
}

pub(super) fn name(snapshot: &Snapshot, consumer: ConsumerId) -> String {
    let found = snapshot.status.consumers.iter().find(|status| status.id == consumer);
    found.map_or_else(|| format!("#{}", consumer.0), |status| status.name.to_string())
}

pub(super) fn dead_letter(consumer: &str, letter: &DeadLetter) -> DeadLetterView {
    let DeadLetter { message, cause, history, attempts, at_ms } = letter;
    let reason = match cause {
        GivenUp::Unreadable(why) => why.to_string(),
        _ => history.last().map_or_else(String::new, |attempt| attempt.failure.reason()),
    };
    let attempt = |failed: &pelton_core::message::FailedAttempt| Attempt {
        at: time(failed.at_ms),
        version: failed.version.to_string(),
        kind: failed.failure.kind().into(),
        reason: failed.failure.reason(),
    };
    let text = std::str::from_utf8(&message.payload).ok().map(str::to_owned);
    let hex = || message.payload.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    DeadLetterView {
        consumer: consumer.to_owned(),
        sequence: message.sequence,
        id: message.id.to_string(),
        subject: message.subject.to_string(),
        key: message.key.as_deref().map(str::to_owned),
        cause: cause.kind().into(),
        reason,
        attempts: *attempts,
        at: time(*at_ms),
        history: history.iter().map(attempt).collect(),
        headers: message.headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        payload_hex: if text.is_none() { Some(hex()) } else { None },
        payload: text,
    }
}

/// RFC 3339 in UTC; a time beyond what a calendar holds stays a number.
fn time(unix_ms: u64) -> String {
    let timestamp = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    timestamp.map_or_else(|| unix_ms.to_string(), |timestamp| timestamp.to_string())
}
