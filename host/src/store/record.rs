//! How a batch is written down: one byte that names the format, then postcard.
//!
//! The records borrow: from the core's types when they are encoded, from the log's bytes when they are decoded, so that neither way copies
//! payloads. The core itself knows nothing of this encoding. Fields are only ever changed together with [`FORMAT`].

use std::sync::Arc;

use bytes::Bytes;
use pelton_core::batch::{Batch, Outcome, Settlement};
use pelton_core::effects::{Event, Space, StateValue, StateWrite};
use pelton_core::ids::{IdHash, Version};
use pelton_core::message::{DeadLetter, FailedAttempt, Failure, GivenUp, Headers, Message};
use serde::{Deserialize, Serialize};

/// The format of what this file encodes.
pub(super) const FORMAT: u8 = 1;

/// A stored value that can't be decoded, or a value that can't be encoded.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RecordError {
    /// It begins with another format byte.
    #[error("a record has format {0}, this host knows format {FORMAT}")]
    Format(u8),
    /// There is nothing.
    #[error("a record is empty")]
    Empty,
    /// Its bytes are not what its format says.
    #[error("a record can't be decoded: {0}")]
    Content(Box<str>),
}

/// Writes the format byte and the record behind what `buffer` holds.
pub(super) fn encode<T: Serialize>(record: &T, mut buffer: Vec<u8>) -> Result<Vec<u8>, RecordError> {
    buffer.push(FORMAT);
    postcard::to_extend(record, buffer).map_err(|error| RecordError::Content(error.to_string().into()))
}

/// Reads what [`encode`] wrote.
pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, RecordError> {
    match bytes.split_first() {
        None => Err(RecordError::Empty),
        Some((&FORMAT, content)) => {
            postcard::from_bytes(content).map_err(|error| RecordError::Content(error.to_string().into()))
        }
        Some((format, _)) => Err(RecordError::Format(*format)),
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct BatchRecord<'a> {
    pub(super) wall_ms: u64,
    /// The versions that the settlements name by their place here: few, and 32 bytes each.
    pub(super) versions: Vec<[u8; 32]>,
    #[serde(borrow)]
    pub(super) bindings: Vec<BindingRecord<'a>>,
    #[serde(borrow)]
    pub(super) settlements: Vec<SettlementRecord<'a>>,
    pub(super) floors: Vec<(u32, u64)>,
    pub(super) stretches: Vec<(u32, u64, u64)>,
    pub(super) published: Vec<u64>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct BindingRecord<'a> {
    pub(super) consumer: u32,
    pub(super) name: &'a str,
    pub(super) stream: &'a str,
    pub(super) created_ns: i64,
    pub(super) floor: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SettlementRecord<'a> {
    pub(super) consumer: u32,
    pub(super) sequence: u64,
    #[serde(borrow)]
    pub(super) outcome: OutcomeRecord<'a>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum OutcomeRecord<'a> {
    #[serde(borrow)]
    Applied(AppliedRecord<'a>),
    Duplicate,
    #[serde(borrow)]
    DeadLettered(Box<DeadLetterRecord<'a>>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AppliedRecord<'a> {
    /// Its place in [`BatchRecord::versions`].
    pub(super) version: u32,
    pub(super) mark: Option<[u8; 16]>,
    pub(super) state_key: Option<&'a str>,
    #[serde(borrow)]
    pub(super) state: Vec<StateRecord<'a>>,
    pub(super) first_row: u64,
    #[serde(borrow)]
    pub(super) events: Vec<EventRecord<'a>>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct StateRecord<'a> {
    pub(super) space: SpaceRecord,
    pub(super) key: &'a str,
    #[serde(borrow)]
    pub(super) value: Option<ValueRecord<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum SpaceRecord {
    User,
    Mark,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct ValueRecord<'a> {
    #[serde(with = "serde_bytes")]
    pub(super) bytes: &'a [u8],
    pub(super) expires_at_ms: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct EventRecord<'a> {
    pub(super) id: &'a str,
    pub(super) subject: &'a str,
    pub(super) key: Option<&'a str>,
    #[serde(borrow)]
    pub(super) headers: Vec<(&'a str, &'a str)>,
    #[serde(with = "serde_bytes")]
    pub(super) payload: &'a [u8],
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DeadLetterRecord<'a> {
    #[serde(borrow)]
    pub(super) message: MessageRecord<'a>,
    #[serde(borrow)]
    pub(super) cause: CauseRecord<'a>,
    #[serde(borrow)]
    pub(super) history: Vec<FailedAttemptRecord<'a>>,
    pub(super) attempts: u32,
    pub(super) at_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct MessageRecord<'a> {
    pub(super) id: &'a str,
    pub(super) mark: Option<[u8; 16]>,
    pub(super) subject: &'a str,
    pub(super) key: Option<&'a str>,
    #[serde(borrow)]
    pub(super) headers: Vec<(&'a str, &'a str)>,
    #[serde(with = "serde_bytes")]
    pub(super) payload: &'a [u8],
    pub(super) sequence: u64,
    pub(super) published_at_ms: u64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum CauseRecord<'a> {
    Unreadable(&'a str),
    Rejected,
    Exhausted,
    ParkedTooLong,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FailedAttemptRecord<'a> {
    pub(super) at_ms: u64,
    pub(super) version: [u8; 32],
    #[serde(borrow)]
    pub(super) failure: FailureRecord<'a>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum FailureRecord<'a> {
    Retry { reason: &'a str, after_ms: Option<u64> },
    Reject { reason: &'a str },
    Park { reason: &'a str, after_ms: Option<u64> },
    Trap { reason: &'a str },
    Timeout { limit_ms: u64 },
    Limit { reason: &'a str },
}

impl<'a> From<&'a Batch> for BatchRecord<'a> {
    fn from(batch: &'a Batch) -> Self {
        let mut versions = Vec::new();
        let bindings = batch.bindings.iter().map(|binding| BindingRecord {
            consumer: binding.consumer.0,
            name: &binding.name,
            stream: &binding.stream.name,
            created_ns: binding.stream.created_ns,
            floor: binding.floor,
        });
        Self {
            wall_ms: batch.wall_ms,
            bindings: bindings.collect(),
            settlements: batch
                .settlements
                .iter()
                .map(|settlement| settlement_record(settlement, &mut versions))
                .collect(),
            floors: batch.floors.iter().map(|(consumer, floor)| (consumer.0, *floor)).collect(),
            stretches: batch.stretches.iter().map(|(consumer, first, last)| (consumer.0, *first, *last)).collect(),
            published: batch.published.iter().map(|row| row.0).collect(),
            versions,
        }
    }
}

fn settlement_record<'a>(settlement: &'a Settlement, versions: &mut Vec<[u8; 32]>) -> SettlementRecord<'a> {
    let outcome = match &settlement.outcome {
        Outcome::Applied { version, mark, state_key, writes, first_row } => OutcomeRecord::Applied(AppliedRecord {
            version: version_place(version, versions),
            mark: mark.map(|mark| mark.0.to_be_bytes()),
            state_key: state_key.as_deref(),
            state: writes.state.iter().map(StateRecord::from).collect(),
            first_row: first_row.0,
            events: writes.events.iter().map(|event| EventRecord::from(&**event)).collect(),
        }),
        Outcome::Duplicate => OutcomeRecord::Duplicate,
        Outcome::DeadLettered(letter) => OutcomeRecord::DeadLettered(Box::new(letter.as_ref().into())),
    };
    SettlementRecord { consumer: settlement.consumer.0, sequence: settlement.sequence, outcome }
}

/// Where the version is in the list, which has it afterwards. Searched from the end: settlements side by side mostly share their version.
fn version_place(version: &Version, versions: &mut Vec<[u8; 32]>) -> u32 {
    let place = versions.iter().rposition(|known| *known == version.0).unwrap_or_else(|| {
        versions.push(version.0);
        versions.len() - 1
    });
    u32::try_from(place).unwrap_or(u32::MAX)
}

impl From<Space> for SpaceRecord {
    fn from(space: Space) -> Self {
        match space {
            Space::User => Self::User,
            Space::Mark => Self::Mark,
        }
    }
}

impl From<SpaceRecord> for Space {
    fn from(space: SpaceRecord) -> Self {
        match space {
            SpaceRecord::User => Self::User,
            SpaceRecord::Mark => Self::Mark,
        }
    }
}

impl<'a> From<&'a StateWrite> for StateRecord<'a> {
    fn from(write: &'a StateWrite) -> Self {
        let value = write.value.as_ref();
        Self { space: write.space.into(), key: &write.key, value: value.map(ValueRecord::from) }
    }
}

impl<'a> From<&'a StateValue> for ValueRecord<'a> {
    fn from(value: &'a StateValue) -> Self {
        Self { bytes: &value.bytes, expires_at_ms: value.expires_at_ms }
    }
}

impl<'a> From<&'a Event> for EventRecord<'a> {
    fn from(event: &'a Event) -> Self {
        Self {
            id: &event.id,
            subject: &event.subject,
            key: event.key.as_deref(),
            headers: header_records(&event.headers),
            payload: &event.payload,
        }
    }
}

impl EventRecord<'_> {
    pub(super) fn to_event(&self) -> Event {
        Event {
            id: self.id.into(),
            subject: self.subject.into(),
            key: self.key.map(Arc::from),
            headers: to_headers(&self.headers),
            payload: Bytes::copy_from_slice(self.payload),
        }
    }
}

fn header_records(headers: &Headers) -> Vec<(&str, &str)> {
    headers.iter().map(|(name, value)| (name.as_ref(), value.as_ref())).collect()
}

fn to_headers(headers: &[(&str, &str)]) -> Headers {
    headers.iter().map(|(name, value)| (Box::from(*name), Box::from(*value))).collect()
}

impl<'a> From<&'a DeadLetter> for DeadLetterRecord<'a> {
    fn from(letter: &'a DeadLetter) -> Self {
        let message = &letter.message;
        Self {
            message: MessageRecord {
                id: &message.id,
                mark: message.mark.map(|mark| mark.0.to_be_bytes()),
                subject: &message.subject,
                key: message.key.as_deref(),
                headers: header_records(&message.headers),
                payload: &message.payload,
                sequence: message.sequence,
                published_at_ms: message.published_at_ms,
            },
            cause: match &letter.cause {
                GivenUp::Unreadable(reason) => CauseRecord::Unreadable(reason),
                GivenUp::Rejected => CauseRecord::Rejected,
                GivenUp::Exhausted => CauseRecord::Exhausted,
                GivenUp::ParkedTooLong => CauseRecord::ParkedTooLong,
            },
            history: letter.history.iter().map(FailedAttemptRecord::from).collect(),
            attempts: letter.attempts,
            at_ms: letter.at_ms,
        }
    }
}

impl<'a> From<&'a FailedAttempt> for FailedAttemptRecord<'a> {
    fn from(attempt: &'a FailedAttempt) -> Self {
        let failure = match &attempt.failure {
            Failure::Retry { reason, after_ms } => FailureRecord::Retry { reason, after_ms: *after_ms },
            Failure::Reject { reason } => FailureRecord::Reject { reason },
            Failure::Park { reason, after_ms } => FailureRecord::Park { reason, after_ms: *after_ms },
            Failure::Trap { reason } => FailureRecord::Trap { reason },
            Failure::Timeout { limit_ms } => FailureRecord::Timeout { limit_ms: *limit_ms },
            Failure::Limit { reason } => FailureRecord::Limit { reason },
        };
        Self { at_ms: attempt.at_ms, version: attempt.version.0, failure }
    }
}

impl DeadLetterRecord<'_> {
    pub(super) fn to_dead_letter(&self) -> DeadLetter {
        let message = Message {
            id: self.message.id.into(),
            mark: self.message.mark.map(|mark| IdHash(u128::from_be_bytes(mark))),
            subject: self.message.subject.into(),
            key: self.message.key.map(Arc::from),
            headers: to_headers(&self.message.headers),
            payload: Bytes::copy_from_slice(self.message.payload),
            sequence: self.message.sequence,
            published_at_ms: self.message.published_at_ms,
        };
        DeadLetter {
            message: Arc::new(message),
            cause: match self.cause {
                CauseRecord::Unreadable(reason) => GivenUp::Unreadable(reason.into()),
                CauseRecord::Rejected => GivenUp::Rejected,
                CauseRecord::Exhausted => GivenUp::Exhausted,
                CauseRecord::ParkedTooLong => GivenUp::ParkedTooLong,
            },
            history: self.history.iter().map(FailedAttemptRecord::to_failed_attempt).collect(),
            attempts: self.attempts,
            at_ms: self.at_ms,
        }
    }
}

impl FailedAttemptRecord<'_> {
    fn to_failed_attempt(&self) -> FailedAttempt {
        let failure = match self.failure {
            FailureRecord::Retry { reason, after_ms } => Failure::Retry { reason: reason.into(), after_ms },
            FailureRecord::Reject { reason } => Failure::Reject { reason: reason.into() },
            FailureRecord::Park { reason, after_ms } => Failure::Park { reason: reason.into(), after_ms },
            FailureRecord::Trap { reason } => Failure::Trap { reason: reason.into() },
            FailureRecord::Timeout { limit_ms } => Failure::Timeout { limit_ms },
            FailureRecord::Limit { reason } => Failure::Limit { reason: reason.into() },
        };
        FailedAttempt { at_ms: self.at_ms, version: Version(self.version), failure }
    }
}

#[cfg(test)]
mod tests;
