//! Looks at the stream before a generation begins, and whether it is still the one whose messages were read.

use std::sync::Arc;
use std::time::Duration;

use pelton_core::batch::StreamIdentity;
use tokio::time::sleep;

use super::SubscriptionSettings;
use crate::nats::backoff::Backoff;
use crate::nats::connect::{Session, Sessions};
use crate::nats::stored::{Which, get};
use crate::nats::streams::{StreamError, StreamFacts, stream_facts};

const FIRST_DELAY: Duration = Duration::from_millis(20);
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// How often a failed one looks whether it may work now.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Nanoseconds of a millisecond: what is remembered over a restart is that exact.
pub(super) const NS_PER_MS: u64 = 1_000_000;

/// The newest message that was read of a stream. A stream that was set back, and has grown past the old place since, has another one there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Newest {
    stream: StreamIdentity,
    sequence: u64,
    /// Milliseconds since 1970-01-01 UTC.
    stored_ms: u64,
}

impl Newest {
    /// Takes what was read last into the memory.
    pub(super) fn remember(memory: &mut Option<Self>, stream: &StreamIdentity, read: Option<(u64, u64)>) {
        let Some((sequence, stored_ms)) = read else { return };
        let newer = memory.as_ref().is_none_or(|known| known.stream != *stream || known.sequence < sequence);
        if newer {
            *memory = Some(Self { stream: stream.clone(), sequence, stored_ms });
        }
    }
}

/// The stream as it is, asked until there is an answer. None: the connection was closed for good.
pub(super) async fn find_stream(
    settings: Arc<SubscriptionSettings>,
    mut sessions: Sessions,
    newest: Option<Newest>,
    delay: Duration,
) -> Option<(Session, Result<StreamFacts, StreamError>)> {
    let mut backoff = Backoff::new(FIRST_DELAY, LONGEST_DELAY);
    sleep(delay).await;
    loop {
        let session = sessions.live().await?;
        let found = match stream_facts(&session.jetstream, &settings.stream).await {
            Ok(facts) => compare(&session, &settings, facts, newest.as_ref()).await,
            Err(error) => Err(error),
        };
        match found {
            Err(StreamError::Unavailable { reason, .. }) => {
                tracing::info!(consumer = %settings.name, stream = %settings.stream, %reason, "stream can't be looked up, trying again");
                sleep(backoff.delay()).await;
            }
            found => return Some((session, found)),
        }
    }
}

/// A stream in which another message has the newest one's sequence ends, for the host, below that: it went backwards and grew again. Where
/// there is no message of that sequence, nothing can be told: it may have been acknowledged, or be too old.
async fn compare(
    session: &Session,
    settings: &SubscriptionSettings,
    facts: StreamFacts,
    newest: Option<&Newest>,
) -> Result<StreamFacts, StreamError> {
    let Some(newest) = newest.filter(|newest| newest.stream == facts.identity && newest.sequence <= facts.last_seq)
    else {
        return Ok(facts);
    };
    let found = match get(&session.jetstream, &settings.stream, Which::exactly(newest.sequence)).await {
        Ok(found) => found,
        Err(reason) if session.ended.is_cancelled() => {
            return Err(StreamError::Unavailable { stream: settings.stream.clone(), reason });
        }
        Err(reason) => {
            // A user who may read a consumer, and not single messages, is no reason to read nothing.
            tracing::warn!(consumer = %settings.name, stream = %settings.stream, sequence = newest.sequence, %reason,
                "can't see whether the stream went backwards: may this user request $JS.API.STREAM.MSG.GET?");
            None
        }
    };
    match found {
        Some(found) if found.stored_ns / NS_PER_MS != newest.stored_ms => {
            tracing::error!(consumer = %settings.name, stream = %settings.stream, sequence = newest.sequence, last_sequence = facts.last_seq,
                read_at_ms = newest.stored_ms, found_ns = found.stored_ns,
                "the message of this sequence is not the one that was read: the stream went backwards and has grown since");
            Ok(StreamFacts { last_seq: newest.sequence.saturating_sub(1), ..facts })
        }
        _ => Ok(facts),
    }
}

/// Waits until the stream is there. False: the connection was closed for good.
pub(super) async fn find_sound_stream(settings: Arc<SubscriptionSettings>, sessions: Sessions) -> bool {
    loop {
        match find_stream(settings.clone(), sessions.clone(), None, LOOK_EVERY).await {
            Some((_, Ok(_))) => return true,
            Some((_, Err(_))) => {}
            None => return false,
        }
    }
}
