//! How a batch is written down: one byte that names the format, then postcard.
//!
//! The records borrow: from the core's types when they are encoded, from the log's bytes when they are decoded, so that neither way copies
//! payloads. The core itself knows nothing of this encoding. Fields are only ever changed together with [`FORMAT`].

use std::sync::Arc;

use bytes::Bytes;
use pelton_core::batch::{Again, Batch, Edit, Hold, HoldBy, Outcome, Settlement};
use pelton_core::effects::{Event, Space, StateValue, StateWrite};
use pelton_core::ids::Version;
use pelton_core::message::Headers;
use serde::{Deserialize, Serialize};

mod message;

pub(super) use message::{DeadLetterRecord, LaneRecord, ParkCauseRecord, ParkedRecord, PlaceRecord};

/// The format of what this file and those below it encode. No released version of the host wrote formats 1 and 2, so none is read but this one.
pub(super) const FORMAT: u8 = 3;

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

/// The record of a batch, behind what `buffer` holds: what [`super::Log::append`] writes, for those who measure it.
///
/// # Errors
/// It can't be encoded.
pub fn encode_batch(batch: &Batch, buffer: Vec<u8>) -> Result<Vec<u8>, RecordError> {
    encode(&BatchRecord::from(batch), buffer)
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
    /// Applied before the settlements.
    #[serde(borrow)]
    pub(super) edits: Vec<EditRecord<'a>>,
    #[serde(borrow)]
    pub(super) settlements: Vec<SettlementRecord<'a>>,
    pub(super) floors: Vec<(u32, u64)>,
    /// Consumer, sequence, and when its stream stored it.
    pub(super) newest: Vec<(u32, u64, u64)>,
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
    /// The parked row that it was released from: then it is not its stream's cursor that moves.
    #[serde(borrow)]
    pub(super) released: Option<PlaceRecord<'a>>,
    #[serde(borrow)]
    pub(super) outcome: OutcomeRecord<'a>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum OutcomeRecord<'a> {
    #[serde(borrow)]
    Applied(AppliedRecord<'a>),
    Duplicate,
    Stale,
    DeadLettered {
        #[serde(borrow)]
        letter: Box<DeadLetterRecord<'a>>,
        /// The outbox row of the event that tells of it, and the event.
        #[serde(borrow)]
        copy: Option<(u64, Box<EventRecord<'a>>)>,
    },
    #[serde(borrow)]
    Parked(Box<ParkedRecord<'a>>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum EditRecord<'a> {
    RemoveDeadLetter {
        consumer: u32,
        sequence: u64,
        published_at_ms: u64,
    },
    Park {
        consumer: u32,
        #[serde(borrow)]
        row: Box<ParkedRecord<'a>>,
    },
    RemoveParked {
        consumer: u32,
        #[serde(borrow)]
        place: PlaceRecord<'a>,
    },
    Hold {
        consumer: u32,
        by: HoldByRecord,
        #[serde(borrow)]
        hold: Option<HoldRecord<'a>>,
    },
    MoveCursor {
        consumer: u32,
        after: u64,
        again: Option<AgainRecord>,
    },
    State {
        consumer: u32,
        key: Option<&'a str>,
        #[serde(borrow)]
        writes: Vec<StateRecord<'a>>,
    },
    Forget {
        consumer: u32,
    },
}

/// Number, first sequence less one, last sequence.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct AgainRecord(u32, u64, u64);

impl From<Again> for AgainRecord {
    fn from(again: Again) -> Self {
        Self(again.number, again.after, again.until)
    }
}

impl From<AgainRecord> for Again {
    fn from(AgainRecord(number, after, until): AgainRecord) -> Self {
        Self { number, after, until }
    }
}

impl EditRecord<'_> {
    /// Whom it is about.
    pub(super) fn consumer(&self) -> u32 {
        match self {
            Self::RemoveDeadLetter { consumer, .. }
            | Self::Park { consumer, .. }
            | Self::RemoveParked { consumer, .. }
            | Self::Hold { consumer, .. }
            | Self::MoveCursor { consumer, .. }
            | Self::State { consumer, .. }
            | Self::Forget { consumer } => *consumer,
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum HoldByRecord {
    Operator,
    Breaker,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct HoldRecord<'a> {
    since_ms: u64,
    reason: &'a str,
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
    Host,
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
            edits: batch.edits.iter().map(EditRecord::from).collect(),
            settlements: batch
                .settlements
                .iter()
                .map(|settlement| settlement_record(settlement, &mut versions))
                .collect(),
            floors: batch.floors.iter().map(|(consumer, floor)| (consumer.0, *floor)).collect(),
            newest: batch
                .newest
                .iter()
                .map(|(consumer, newest)| (consumer.0, newest.sequence, newest.published_at_ms))
                .collect(),
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
        Outcome::Stale => OutcomeRecord::Stale,
        Outcome::DeadLettered { letter, copy } => OutcomeRecord::DeadLettered {
            letter: Box::new(letter.as_ref().into()),
            copy: copy.as_ref().map(|(row, event)| (row.0, Box::new(event.as_ref().into()))),
        },
        Outcome::Parked(row) => OutcomeRecord::Parked(Box::new(row.as_ref().into())),
    };
    let released = settlement.released.as_ref().map(PlaceRecord::from);
    SettlementRecord { consumer: settlement.consumer.0, sequence: settlement.sequence, released, outcome }
}

impl<'a> From<&'a Edit> for EditRecord<'a> {
    fn from(edit: &'a Edit) -> Self {
        match edit {
            Edit::RemoveDeadLetter { consumer, sequence, published_at_ms } => {
                Self::RemoveDeadLetter { consumer: consumer.0, sequence: *sequence, published_at_ms: *published_at_ms }
            }
            Edit::Park { consumer, row } => Self::Park { consumer: consumer.0, row: Box::new(row.as_ref().into()) },
            Edit::RemoveParked { consumer, place } => Self::RemoveParked { consumer: consumer.0, place: place.into() },
            Edit::Hold { consumer, by, hold } => {
                Self::Hold { consumer: consumer.0, by: (*by).into(), hold: hold.as_ref().map(HoldRecord::from) }
            }
            Edit::MoveCursor { consumer, after, again } => {
                Self::MoveCursor { consumer: consumer.0, after: *after, again: again.map(AgainRecord::from) }
            }
            Edit::State { consumer, key, writes } => Self::State {
                consumer: consumer.0,
                key: key.as_deref(),
                writes: writes.state.iter().map(StateRecord::from).collect(),
            },
            Edit::Forget { consumer } => Self::Forget { consumer: consumer.0 },
        }
    }
}

impl From<HoldBy> for HoldByRecord {
    fn from(by: HoldBy) -> Self {
        match by {
            HoldBy::Operator => Self::Operator,
            HoldBy::Breaker => Self::Breaker,
        }
    }
}

impl From<HoldByRecord> for HoldBy {
    fn from(by: HoldByRecord) -> Self {
        match by {
            HoldByRecord::Operator => Self::Operator,
            HoldByRecord::Breaker => Self::Breaker,
        }
    }
}

impl<'a> From<&'a Hold> for HoldRecord<'a> {
    fn from(hold: &'a Hold) -> Self {
        Self { since_ms: hold.since_ms, reason: &hold.reason }
    }
}

impl HoldRecord<'_> {
    pub(super) fn to_hold(self) -> Hold {
        Hold { since_ms: self.since_ms, reason: self.reason.into() }
    }
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
            Space::Host => Self::Host,
        }
    }
}

impl From<SpaceRecord> for Space {
    fn from(space: SpaceRecord) -> Self {
        match space {
            SpaceRecord::User => Self::User,
            SpaceRecord::Mark => Self::Mark,
            SpaceRecord::Host => Self::Host,
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

#[cfg(test)]
mod tests;
