//! From the host's own types to the answers' JSON.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use pelton_core::batch::{Hold, HoldBy};
use pelton_core::ids::ConsumerId;
use pelton_core::message::{DeadLetter, FailedAttempt, Message};
use pelton_core::parked::{ParkCause, Parked};

use super::api::{ConsumerView, FailuresView, HoldView, OutboxView, SpeedView};
use super::messages::{Attempt, BehindView, Content, DeadLetterView, ParkedView};
use crate::board::Entry;
use crate::driver::Snapshot;
use crate::telemetry::recent::{Figures, Recent};

pub(super) fn outbox(Snapshot { status, wall_ms, .. }: &Snapshot, last_refusal: Option<String>) -> OutboxView {
    let oldest = status.consumers.iter().filter_map(|consumer| consumer.outbox_oldest_ms).min();
    OutboxView {
        in_flight: status.relay_in_flight,
        queued: status.relay_queued,
        waiting: status.relay_waiting,
        oldest_age_ms: oldest.map(|oldest| wall_ms.saturating_sub(oldest)),
        // One that was made good since is no news.
        last_refusal: last_refusal.filter(|_| status.relay_waiting > 0),
    }
}

/// Consumers of the core and consumers that never got so far, by name.
pub(super) fn consumers(
    snapshot: &Snapshot,
    entries: &BTreeMap<Box<str>, Entry>,
    recent: &Recent,
) -> Vec<ConsumerView> {
    let figures = recent.figures();
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
            outbox_age_ms: status.outbox_oldest_ms.map(|oldest| snapshot.wall_ms.saturating_sub(oldest)),
            speed: figures.get(&status.name).copied().map(speed).unwrap_or_default(),
            applied: counters.applied,
            duplicates: counters.duplicates,
            redelivered: counters.redelivered,
            retries: counters.retries,
            dead_letters: counters.dead_letters,
            published: counters.published,
            stale: counters.stale,
            failures: FailuresView {
                retry: counters.failures.retry,
                reject: counters.failures.reject,
                park: counters.failures.park,
                trap: counters.failures.trap,
                timeout: counters.failures.timeout,
                limit: counters.failures.limit,
            },
            parked_rows: status.parked_rows,
            parked_keys: status.parked_lanes,
            keys_releasing: status.lanes_releasing,
            holds: holds(&status.holds),
            problems: halted.into_iter().chain(problems(&entry)).collect(),
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
        outbox_age_ms: None,
        speed: SpeedView::default(),
        applied: 0,
        duplicates: 0,
        redelivered: 0,
        retries: 0,
        dead_letters: 0,
        published: 0,
        stale: 0,
        failures: FailuresView::default(),
        parked_rows: 0,
        parked_keys: 0,
        keys_releasing: 0,
        holds: Vec::new(),
        problems: problems(entry).collect(),
    }
}

fn speed(figures: Figures) -> SpeedView {
    let Figures { rate, handler_p50_us, handler_p99_us, end_to_end_p50_ms, end_to_end_p99_ms } = figures;
    // A tenth of a message a second is precise enough, and short to print.
    let rate = (rate * 10.0).round() / 10.0;
    SpeedView { rate, handler_p50_us, handler_p99_us, end_to_end_p50_ms, end_to_end_p99_ms }
}

fn problems(entry: &Entry) -> impl Iterator<Item = String> {
    let Entry { deployment, source, isolation, subscription, streams, .. } = entry;
    let texts = deployment.iter().chain(source).chain(isolation).chain(subscription);
    texts.chain(streams.values()).cloned()
}

pub(super) fn name(snapshot: &Snapshot, consumer: ConsumerId) -> String {
    let found = snapshot.status.consumers.iter().find(|status| status.id == consumer);
    found.map_or_else(|| format!("#{}", consumer.0), |status| status.name.to_string())
}

/// Who keeps a consumer from working.
pub(super) fn holds(holds: &[(HoldBy, Hold)]) -> Vec<HoldView> {
    let view = |(by, hold): &(HoldBy, Hold)| HoldView {
        by: match by {
            HoldBy::Operator => "operator".into(),
            HoldBy::Breaker => "breaker".into(),
        },
        since: time(hold.since_ms),
        reason: hold.reason.to_string(),
    };
    holds.iter().map(view).collect()
}

pub(super) fn attempt(failed: &FailedAttempt) -> Attempt {
    Attempt {
        at: time(failed.at_ms),
        version: failed.version.to_string(),
        kind: failed.failure.kind().into(),
        reason: failed.failure.reason(),
    }
}

/// What the last attempt said.
fn last_reason(history: &[FailedAttempt]) -> String {
    history.last().map_or_else(String::new, |attempt| attempt.failure.reason())
}

fn content(message: &Message) -> Content {
    let text = std::str::from_utf8(&message.payload).ok().map(str::to_owned);
    Content {
        headers: message.headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        payload_base64: text.is_none().then(|| BASE64.encode(&message.payload)),
        payload: text,
    }
}

/// A dead letter; `brief`: without headers, payload and history.
pub(super) fn dead_letter(consumer: &str, letter: &DeadLetter, brief: bool) -> DeadLetterView {
    let DeadLetter { message, cause, history, attempts, at_ms } = letter;
    let reason = if cause.reason().is_empty() { last_reason(history) } else { cause.reason().to_owned() };
    DeadLetterView {
        consumer: consumer.to_owned(),
        sequence: message.sequence,
        stream: message.stream.name.to_string(),
        id: message.id.to_string(),
        subject: message.subject.to_string(),
        key: message.key.as_deref().map(str::to_owned),
        cause: cause.kind().into(),
        reason,
        attempts: *attempts,
        published_at: time(message.published_at_ms),
        at: time(*at_ms),
        history: if brief { Vec::new() } else { history.iter().map(attempt).collect() },
        payload_bytes: message.payload.len(),
        content: if brief { Content::default() } else { content(message) },
    }
}

/// A parked message; `brief`: without headers, payload and history.
pub(super) fn parked(consumer: &str, row: &Parked, brief: bool) -> ParkedView {
    let Parked { id, message, cause, until_ms, parked_at_ms, releases, attempts, history, .. } = row;
    ParkedView {
        consumer: consumer.to_owned(),
        id: id.0,
        sequence: message.sequence,
        stream: message.stream.name.to_string(),
        message_id: message.id.to_string(),
        subject: message.subject.to_string(),
        key: message.key.as_deref().map(str::to_owned),
        entity_version: message.entity_version,
        cause: cause.kind().into(),
        missing_version: if let ParkCause::Gap { expected } = cause { Some(*expected) } else { None },
        reason: last_reason(history),
        holds_key: cause.holds_key(),
        behind: None,
        published_at: time(message.published_at_ms),
        parked_at: time(*parked_at_ms),
        until: until_ms.map(time),
        releases: *releases,
        attempts: *attempts,
        history: if brief { Vec::new() } else { history.iter().map(attempt).collect() },
        payload_bytes: message.payload.len(),
        content: if brief { Content::default() } else { content(message) },
    }
}

/// A parked message as what others stand behind.
pub(super) fn behind(row: &Parked) -> BehindView {
    BehindView { id: row.id.0, sequence: row.message.sequence, cause: row.cause.kind().into() }
}

/// RFC 3339 in UTC; a time beyond what a calendar holds stays a number.
pub(super) fn time(unix_ms: u64) -> String {
    let timestamp = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    // Always to the millisecond, so that the texts sort as the times do.
    timestamp.map_or_else(|| unix_ms.to_string(), |timestamp| format!("{timestamp:.3}"))
}
