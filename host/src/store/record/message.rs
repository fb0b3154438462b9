//! Messages as dead letters and parked rows hold them, with the history of their attempts.
//!
//! In the log they are part of a batch; in the view the same encoding is the value of a row.

use std::sync::Arc;

use bytes::Bytes;
use pelton_core::batch::StreamIdentity;
use pelton_core::ids::{IdHash, ParkId, Version};
use pelton_core::message::{DeadLetter, FailedAttempt, Failure, GivenUp, Message};
use pelton_core::parked::{ParkCause, ParkLane, ParkPlace, Parked};
use serde::{Deserialize, Serialize};

use super::{header_records, to_headers};

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::store) struct MessageRecord<'a> {
    id: &'a str,
    mark: Option<[u8; 16]>,
    subject: &'a str,
    key: Option<&'a str>,
    #[serde(borrow)]
    headers: Vec<(&'a str, &'a str)>,
    #[serde(with = "serde_bytes")]
    payload: &'a [u8],
    pub(in crate::store) sequence: u64,
    pub(in crate::store) published_at_ms: u64,
    /// Name and time of creation of its stream, which it may outlive.
    stream: &'a str,
    stream_created_ns: i64,
    entity_version: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::store) struct DeadLetterRecord<'a> {
    #[serde(borrow)]
    pub(in crate::store) message: MessageRecord<'a>,
    #[serde(borrow)]
    cause: CauseRecord<'a>,
    #[serde(borrow)]
    history: Vec<FailedAttemptRecord<'a>>,
    attempts: u32,
    at_ms: u64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum CauseRecord<'a> {
    Unreadable(&'a str),
    Rejected,
    Exhausted,
    ParkedTooLong,
    GapNeverFilled,
}

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::store) struct ParkedRecord<'a> {
    pub(in crate::store) id: u64,
    #[serde(borrow)]
    message: MessageRecord<'a>,
    pub(in crate::store) cause: ParkCauseRecord,
    pub(in crate::store) until_ms: Option<u64>,
    parked_at_ms: u64,
    releases: u32,
    attempts: u32,
    failures: u32,
    #[serde(borrow)]
    history: Vec<FailedAttemptRecord<'a>>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(in crate::store) enum ParkCauseRecord {
    Exhausted,
    Retrying,
    Asked,
    Gap { expected: u64 },
    Behind,
    Replayed,
}

/// Sorts as [`ParkLane`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(in crate::store) enum LaneRecord<'a> {
    Key(&'a str),
    Alone(u64),
}

/// Sorts as [`ParkPlace`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(in crate::store) struct PlaceRecord<'a> {
    #[serde(borrow)]
    pub(in crate::store) lane: LaneRecord<'a>,
    pub(in crate::store) order: u64,
    pub(in crate::store) id: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct FailedAttemptRecord<'a> {
    at_ms: u64,
    version: [u8; 32],
    #[serde(borrow)]
    failure: FailureRecord<'a>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum FailureRecord<'a> {
    Retry { reason: &'a str, after_ms: Option<u64> },
    Reject { reason: &'a str },
    Park { reason: &'a str, after_ms: Option<u64> },
    Trap { reason: &'a str },
    Timeout { limit_ms: u64 },
    Limit { reason: &'a str },
}

impl<'a> From<&'a Message> for MessageRecord<'a> {
    fn from(message: &'a Message) -> Self {
        Self {
            id: &message.id,
            mark: message.mark.map(|mark| mark.0.to_be_bytes()),
            subject: &message.subject,
            key: message.key.as_deref(),
            headers: header_records(&message.headers),
            payload: &message.payload,
            sequence: message.sequence,
            published_at_ms: message.published_at_ms,
            stream: &message.stream.name,
            stream_created_ns: message.stream.created_ns,
            entity_version: message.entity_version,
        }
    }
}

impl MessageRecord<'_> {
    fn to_message(&self) -> Arc<Message> {
        Arc::new(Message {
            id: self.id.into(),
            mark: self.mark.map(|mark| IdHash(u128::from_be_bytes(mark))),
            subject: self.subject.into(),
            key: self.key.map(Arc::from),
            headers: to_headers(&self.headers),
            payload: Bytes::copy_from_slice(self.payload),
            sequence: self.sequence,
            published_at_ms: self.published_at_ms,
            stream: Arc::new(StreamIdentity { name: self.stream.into(), created_ns: self.stream_created_ns }),
            entity_version: self.entity_version,
        })
    }
}

impl<'a> From<&'a DeadLetter> for DeadLetterRecord<'a> {
    fn from(letter: &'a DeadLetter) -> Self {
        Self {
            message: letter.message.as_ref().into(),
            cause: match &letter.cause {
                GivenUp::Unreadable(reason) => CauseRecord::Unreadable(reason),
                GivenUp::Rejected => CauseRecord::Rejected,
                GivenUp::Exhausted => CauseRecord::Exhausted,
                GivenUp::ParkedTooLong => CauseRecord::ParkedTooLong,
                GivenUp::GapNeverFilled => CauseRecord::GapNeverFilled,
            },
            history: letter.history.iter().map(FailedAttemptRecord::from).collect(),
            attempts: letter.attempts,
            at_ms: letter.at_ms,
        }
    }
}

impl DeadLetterRecord<'_> {
    pub(in crate::store) fn to_dead_letter(&self) -> DeadLetter {
        DeadLetter {
            message: self.message.to_message(),
            cause: match self.cause {
                CauseRecord::Unreadable(reason) => GivenUp::Unreadable(reason.into()),
                CauseRecord::Rejected => GivenUp::Rejected,
                CauseRecord::Exhausted => GivenUp::Exhausted,
                CauseRecord::ParkedTooLong => GivenUp::ParkedTooLong,
                CauseRecord::GapNeverFilled => GivenUp::GapNeverFilled,
            },
            history: self.history.iter().map(FailedAttemptRecord::to_failed_attempt).collect(),
            attempts: self.attempts,
            at_ms: self.at_ms,
        }
    }
}

impl<'a> From<&'a Parked> for ParkedRecord<'a> {
    fn from(row: &'a Parked) -> Self {
        Self {
            id: row.id.0,
            message: row.message.as_ref().into(),
            cause: row.cause.into(),
            until_ms: row.until_ms,
            parked_at_ms: row.parked_at_ms,
            releases: row.releases,
            attempts: row.attempts,
            failures: row.failures,
            history: row.history.iter().map(FailedAttemptRecord::from).collect(),
        }
    }
}

impl<'a> ParkedRecord<'a> {
    /// The same as [`Parked::place`].
    pub(in crate::store) fn place(&self) -> PlaceRecord<'a> {
        let lane = self.message.key.map_or(LaneRecord::Alone(self.id), LaneRecord::Key);
        PlaceRecord { lane, order: self.message.entity_version.unwrap_or(self.id), id: self.id }
    }

    pub(in crate::store) fn to_parked(&self) -> Parked {
        Parked {
            id: ParkId(self.id),
            message: self.message.to_message(),
            cause: self.cause.into(),
            until_ms: self.until_ms,
            parked_at_ms: self.parked_at_ms,
            releases: self.releases,
            attempts: self.attempts,
            failures: self.failures,
            history: self.history.iter().map(FailedAttemptRecord::to_failed_attempt).collect(),
        }
    }
}

impl From<ParkCause> for ParkCauseRecord {
    fn from(cause: ParkCause) -> Self {
        match cause {
            ParkCause::Exhausted => Self::Exhausted,
            ParkCause::Retrying => Self::Retrying,
            ParkCause::Asked => Self::Asked,
            ParkCause::Gap { expected } => Self::Gap { expected },
            ParkCause::Behind => Self::Behind,
            ParkCause::Replayed => Self::Replayed,
        }
    }
}

impl From<ParkCauseRecord> for ParkCause {
    fn from(cause: ParkCauseRecord) -> Self {
        match cause {
            ParkCauseRecord::Exhausted => Self::Exhausted,
            ParkCauseRecord::Retrying => Self::Retrying,
            ParkCauseRecord::Asked => Self::Asked,
            ParkCauseRecord::Gap { expected } => Self::Gap { expected },
            ParkCauseRecord::Behind => Self::Behind,
            ParkCauseRecord::Replayed => Self::Replayed,
        }
    }
}

impl<'a> From<&'a ParkLane> for LaneRecord<'a> {
    fn from(lane: &'a ParkLane) -> Self {
        match lane {
            ParkLane::Key(key) => Self::Key(key),
            ParkLane::Alone(id) => Self::Alone(id.0),
        }
    }
}

impl LaneRecord<'_> {
    pub(in crate::store) fn to_lane(self) -> ParkLane {
        match self {
            Self::Key(key) => ParkLane::Key(key.into()),
            Self::Alone(id) => ParkLane::Alone(ParkId(id)),
        }
    }
}

impl<'a> From<&'a ParkPlace> for PlaceRecord<'a> {
    fn from(place: &'a ParkPlace) -> Self {
        Self { lane: (&place.lane).into(), order: place.order, id: place.id.0 }
    }
}

impl PlaceRecord<'_> {
    pub(in crate::store) fn to_place(self) -> ParkPlace {
        ParkPlace { lane: self.lane.to_lane(), order: self.order, id: ParkId(self.id) }
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
