//! The durable consumer at the broker: made or changed to what the manifest says, and brought to where the host is.
//!
//! It is moved with the reset of nats-server 2.14, which clears what was out, forgets the ack floor, and restarts the consumer's count at 1; it works
//! below and above the ack floor on all three retentions. It always has deliver policy *all*, because a reset can't go below a configured start.
//! - Limits: reset to just above the host's floor. A consumer with other settings is deleted and made anew.
//! - Interest: the same reset; moving it forward also releases what only this consumer still held. Never deleted: its interest is what keeps messages.
//! - Work queue: reset to 1. What was acknowledged is gone from the stream; what is still there below the host's floor lost its acknowledgement,
//!   and is acknowledged now instead of lying there for ever. Never deleted.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, Config, DeliverPolicy, pull};
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::jetstream::stream::{ConsumerErrorKind, ConsumerResetErrorKind, Stream};
use async_nats::jetstream::{self, ErrorCode};
use futures_util::StreamExt as _;

use super::held::AckMode;
use super::{SubscriptionError, SubscriptionSettings, durable_name};
use crate::nats::connect::Session;
use crate::nats::streams::{Retention, StreamError, StreamFacts, lookup_error};

/// With ack policy *all* nothing is ever delivered again but by a reset.
const NO_REDELIVERY: Duration = Duration::from_secs(30 * 24 * 3600);

/// A work queue has another consumer for some of the subjects.
const TAKEN: [ErrorCode; 2] = [ErrorCode::CONSUMER_WQ_MULTIPLE_UNFILTERED, ErrorCode::CONSUMER_WQ_CONSUMER_NOT_UNIQUE];

/// Why the durable consumer is not in position.
#[derive(Debug)]
pub(super) enum ArmError {
    /// The stream is another one than the host knows of.
    StreamChanged,
    /// Somebody has to do something.
    Failed(SubscriptionError),
    /// It may work in a moment.
    Unavailable(String),
}

/// Brings the durable consumer to just above `after`, provided that the stream is still the one that the host has seen.
pub(super) async fn bring_to(
    session: &Session,
    settings: &SubscriptionSettings,
    seen: &StreamFacts,
    after: u64,
) -> Result<(), ArmError> {
    let stream = prepare(session, settings, seen).await?;
    let first = match seen.retention {
        Retention::Limits | Retention::Interest => after.saturating_add(1),
        Retention::WorkQueue => 1,
    };
    match stream.reset_consumer(&durable_name(&settings.name), Some(first)).await {
        Ok(_) => Ok(()),
        Err(error) => Err(match error.kind() {
            ConsumerResetErrorKind::JetStream(error) => refused_or_unavailable(settings, &error),
            ConsumerResetErrorKind::InvalidReset => refused(settings, error.to_string()),
            _ => ArmError::Unavailable(error.to_string()),
        }),
    }
}

/// Sees to it that there is a durable consumer, wherever it stands, provided that the stream is still the one that the host has seen.
pub(super) async fn prepare(
    session: &Session,
    settings: &SubscriptionSettings,
    seen: &StreamFacts,
) -> Result<Stream, ArmError> {
    let stream = session
        .jetstream
        .get_stream(&*settings.stream)
        .await
        .map_err(|error| stream_failed(settings, lookup_error(&settings.stream, &error)))?;
    let facts = StreamFacts::from_info(stream.cached_info());
    if facts.identity != seen.identity || facts.retention != seen.retention {
        return Err(ArmError::StreamChanged);
    }
    ensure(&stream, settings, facts.retention).await?;
    Ok(stream)
}

async fn ensure(stream: &Stream, settings: &SubscriptionSettings, retention: Retention) -> Result<(), ArmError> {
    let durable = durable_name(&settings.name);
    let wanted = wanted_config(settings, retention);
    let found = match stream.consumer_info(&durable).await {
        Ok(info) => info.config,
        Err(error) => {
            return match error.kind() {
                ConsumerInfoErrorKind::NotFound => create(stream, settings, wanted).await,
                ConsumerInfoErrorKind::StreamNotFound => Err(stream_failed(settings, missing(settings))),
                ConsumerInfoErrorKind::JetStream(error) => Err(refused_or_unavailable(settings, &error)),
                _ => Err(ArmError::Unavailable(error.to_string())),
            };
        }
    };
    if is_as_wanted(&found, &wanted) {
        return Ok(());
    }
    if retention == Retention::Limits {
        tracing::info!(consumer = %settings.name, stream = %settings.stream, "durable consumer has other settings and is made anew");
        stream.delete_consumer(&durable).await.map_err(|error| consumer_error(settings, &error))?;
        return create(stream, settings, wanted).await;
    }
    if let Some(difference) = unchangeable(&found, &wanted) {
        let (consumer, stream) = (settings.name.clone(), settings.stream.clone());
        return Err(ArmError::Failed(SubscriptionError::Unusable { consumer, stream, durable, difference }));
    }
    tracing::info!(consumer = %settings.name, stream = %settings.stream, "durable consumer has other settings and is updated");
    create(stream, settings, wanted).await
}

/// Creates it, or updates one that is there.
async fn create(stream: &Stream, settings: &SubscriptionSettings, wanted: pull::Config) -> Result<(), ArmError> {
    let Err(error) = stream.create_consumer(wanted).await else { return Ok(()) };
    match error.kind() {
        ConsumerErrorKind::JetStream(error) if TAKEN.contains(&error.error_code()) => {
            Err(taken(stream, settings, &error).await)
        }
        _ => Err(consumer_error(settings, &error)),
    }
}

/// Another consumer of the work queue reads some of our subjects: says which.
async fn taken(stream: &Stream, settings: &SubscriptionSettings, error: &jetstream::Error) -> ArmError {
    let own = durable_name(&settings.name);
    let mut others = stream.consumers();
    while let Some(other) = others.next().await {
        let Ok(other) = other else { break };
        let theirs = filters(&other.config);
        let is_shared = |ours: &str| theirs.is_empty() || theirs.iter().any(|theirs| overlap(ours, theirs));
        if other.name != own
            && let Some(subject) = settings.subjects.iter().find(|ours| is_shared(ours))
        {
            return ArmError::Failed(SubscriptionError::Taken {
                consumer: settings.name.clone(),
                stream: settings.stream.clone(),
                subject: subject.clone(),
                by: other.name,
            });
        }
    }
    // It went away in the meantime, or can't be listed.
    refused(settings, error.to_string())
}

/// Whether some subject matches both patterns.
fn overlap(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        match (one.next(), other.next()) {
            (None, None) | (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
            _ => return false,
        }
    }
}

fn wanted_config(settings: &SubscriptionSettings, retention: Retention) -> pull::Config {
    let durable = durable_name(&settings.name);
    let (ack_policy, ack_wait) = match AckMode::from(retention) {
        AckMode::Floor => (AckPolicy::All, NO_REDELIVERY),
        AckMode::Each => (AckPolicy::Explicit, settings.ack_wait),
    };
    pull::Config {
        name: Some(durable.clone()),
        durable_name: Some(durable),
        description: Some("positioned by its Pelton host at every start".to_owned()),
        deliver_policy: DeliverPolicy::All,
        ack_policy,
        ack_wait,
        max_deliver: -1,
        max_ack_pending: -1,
        filter_subjects: settings.subjects.iter().map(ToString::to_string).collect(),
        ..pull::Config::default()
    }
}

fn is_as_wanted(found: &Config, wanted: &pull::Config) -> bool {
    unchangeable(found, wanted).is_none()
        && found.ack_wait == wanted.ack_wait
        && found.max_deliver == wanted.max_deliver
        && found.max_ack_pending == wanted.max_ack_pending
        && found.max_batch == 0
        && found.max_bytes == 0
        && found.max_expires.is_zero()
        && !found.headers_only
        && filters(found) == sorted(wanted.filter_subjects.clone())
}

/// What the server would not change in place.
fn unchangeable(found: &Config, wanted: &pull::Config) -> Option<&'static str> {
    if found.deliver_subject.is_some() {
        Some("push delivery")
    } else if found.ack_policy != wanted.ack_policy {
        Some("another ack policy")
    } else if found.deliver_policy != wanted.deliver_policy {
        Some("a deliver policy other than `all`")
    } else {
        None
    }
}

fn filters(found: &Config) -> Vec<String> {
    let mut subjects = found.filter_subjects.clone();
    if !found.filter_subject.is_empty() {
        subjects.push(found.filter_subject.clone());
    }
    sorted(subjects)
}

fn sorted(mut subjects: Vec<String>) -> Vec<String> {
    subjects.sort();
    subjects
}

fn missing(settings: &SubscriptionSettings) -> StreamError {
    StreamError::Missing { stream: settings.stream.clone() }
}

fn stream_failed(settings: &SubscriptionSettings, error: StreamError) -> ArmError {
    match error {
        StreamError::Unavailable { reason, .. } => ArmError::Unavailable(reason),
        error => ArmError::Failed(SubscriptionError::Stream { consumer: settings.name.clone(), error }),
    }
}

fn consumer_error(settings: &SubscriptionSettings, error: &jetstream::stream::ConsumerError) -> ArmError {
    match error.kind() {
        ConsumerErrorKind::JetStream(error) => refused_or_unavailable(settings, &error),
        ConsumerErrorKind::InvalidConsumerType | ConsumerErrorKind::InvalidName => refused(settings, error.to_string()),
        _ => ArmError::Unavailable(error.to_string()),
    }
}

fn refused_or_unavailable(settings: &SubscriptionSettings, error: &jetstream::Error) -> ArmError {
    if error.error_code() == ErrorCode::STREAM_NOT_FOUND {
        stream_failed(settings, missing(settings))
    } else if error.code() == 503 {
        // JetStream's own "not now": no leader, starting up.
        ArmError::Unavailable(error.to_string())
    } else {
        refused(settings, error.to_string())
    }
}

fn refused(settings: &SubscriptionSettings, reason: String) -> ArmError {
    ArmError::Failed(SubscriptionError::Refused {
        consumer: settings.name.clone(),
        stream: settings.stream.clone(),
        durable: durable_name(&settings.name),
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_overlap_if_a_subject_matches_both() {
        for (one, other, expected) in [
            ("a.b", "a.b", true),
            ("a.*", "*.b", true),
            ("a.>", "a.b.c", true),
            ("a.*", "a.>", true),
            (">", "x", true),
            ("a.>", "a", false),
            ("a.*", "a.b.c", false),
            ("a.b", "a.c", false),
        ] {
            assert_eq!((overlap(one, other), overlap(other, one)), (expected, expected), "{one} {other}");
        }
    }
}
