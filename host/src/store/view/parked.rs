//! Tables `parked` and `parked-lanes`: parked messages, and where they stand.
//!
//! `parked`: consumer and number → the row. New rows have higher numbers, so they are added at a consumer's end.
//! Key: consumer, 4 bytes, number, 8 bytes.
//!
//! `parked-lanes`: consumer, lane, order and number → why it is parked, and until when. A lane is read in order by it, and a start reads it alone: it
//! is small, however large the messages are.
//! Key: consumer, 4 bytes; the lane: 0, each byte of the ordering key plus one, and 0, or 1 and the message's number, 8 bytes; order, 8 bytes;
//! number, 8 bytes. UTF-8 has no byte above 0xF4, so one can be added to each; what ends the key is then less than all that it could go on with, and keys sort
//! as `ParkPlace` does.
//!
//! All numbers are big-endian. Each row is in both tables or in none.

use std::ops::Bound;
use std::sync::Arc;

use pelton_core::ids::{ConsumerId, ParkId};
use pelton_core::parked::{ParkCause, ParkLane, ParkPlace, Parked, ParkedLane};
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::store::error::StoreFailure;
use crate::store::fold::ParkedChange;
use crate::store::record::{self, LaneRecord, ParkCauseRecord, ParkedRecord, PlaceRecord, RecordError};

type Key = [u8; 12];

const PARKED: TableDefinition<&Key, &[u8]> = TableDefinition::new("parked");
const LANES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("parked-lanes");

const KEY: u8 = 0;
const ALONE: u8 = 1;
const KEY_END: u8 = 0;

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Wait {
    cause: ParkCauseRecord,
    until_ms: Option<u64>,
}

fn row_key(consumer: u32, id: u64) -> Key {
    let mut key = [0; 12];
    let (front, back) = key.split_at_mut(4);
    front.copy_from_slice(&consumer.to_be_bytes());
    back.copy_from_slice(&id.to_be_bytes());
    key
}

fn push_place(key: &mut Vec<u8>, consumer: u32, place: PlaceRecord<'_>) {
    key.extend(consumer.to_be_bytes());
    match place.lane {
        LaneRecord::Key(lane) => {
            key.push(KEY);
            key.extend(lane.bytes().map(|byte| byte + 1));
            key.push(KEY_END);
        }
        LaneRecord::Alone(id) => {
            key.push(ALONE);
            key.extend(id.to_be_bytes());
        }
    }
    key.extend(place.order.to_be_bytes());
    key.extend(place.id.to_be_bytes());
}

/// What [`push_place`] wrote.
fn split_place(key: &[u8]) -> Result<(ConsumerId, ParkPlace), RecordError> {
    let parts = || {
        let (consumer, rest) = key.split_first_chunk()?;
        let (lane, rest) = match rest.split_first()? {
            (&KEY, rest) => {
                let length = rest.iter().position(|byte| *byte == KEY_END)?;
                let (lane, rest) = rest.split_at_checked(length)?;
                let lane = lane.iter().map(|byte| byte.wrapping_sub(1)).collect();
                (ParkLane::Key(String::from_utf8(lane).ok()?.into()), rest.get(1..)?)
            }
            (&ALONE, rest) => {
                let (id, rest) = rest.split_first_chunk()?;
                (ParkLane::Alone(ParkId(u64::from_be_bytes(*id))), rest)
            }
            _ => return None,
        };
        let (order, rest) = rest.split_first_chunk()?;
        let id = rest.try_into().ok()?;
        let (order, id) = (u64::from_be_bytes(*order), ParkId(u64::from_be_bytes(id)));
        Some((ConsumerId(u32::from_be_bytes(*consumer)), ParkPlace { lane, order, id }))
    };
    parts().ok_or_else(|| RecordError::Content("the place of a parked message can't be read".into()))
}

/// Writes sorted changes. Removing what never came here writes nothing.
pub(super) fn write(transaction: &WriteTransaction, changes: &[ParkedChange<'_>]) -> Result<(), StoreFailure> {
    let mut lanes = transaction.open_table(LANES)?;
    let (mut key, mut buffer) = (Vec::new(), Vec::new());
    for change in changes {
        key.clear();
        push_place(&mut key, change.consumer, change.place);
        let Some(row) = &change.row else {
            lanes.remove(key.as_slice())?;
            continue;
        };
        buffer.clear();
        buffer = record::encode(&Wait { cause: row.cause, until_ms: row.until_ms }, buffer)?;
        lanes.insert(key.as_slice(), buffer.as_slice())?;
    }
    let mut rows = transaction.open_table(PARKED)?;
    let mut by_number: Vec<_> = changes.iter().collect();
    by_number.sort_by_key(|change| (change.consumer, change.place.id));
    for change in by_number {
        let key = row_key(change.consumer, change.place.id);
        let Some(row) = &change.row else {
            rows.remove(&key)?;
            continue;
        };
        buffer.clear();
        buffer = record::encode(row, buffer)?;
        rows.insert(&key, buffer.as_slice())?;
    }
    Ok(())
}

/// Removes all of a consumer.
pub(super) fn forget(transaction: &WriteTransaction, consumer: u32) -> Result<(), StoreFailure> {
    let mut rows = transaction.open_table(PARKED)?;
    rows.retain_in::<&Key, _>(&row_key(consumer, 0)..=&row_key(consumer, u64::MAX), |_, _| false)?;
    let mut lanes = transaction.open_table(LANES)?;
    let bounds = super::keys_of(consumer);
    lanes.retain_in::<&[u8], _>(
        (bounds.0.as_ref().map(Vec::as_slice), bounds.1.as_ref().map(Vec::as_slice)),
        |_, _| false,
    )?;
    Ok(())
}

/// The parked messages as of one checkpoint.
pub(in crate::store) struct ParkedRows {
    rows: ReadOnlyTable<&'static Key, &'static [u8]>,
    lanes: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl ParkedRows {
    pub(super) fn open(transaction: &ReadTransaction) -> Result<Self, StoreFailure> {
        Ok(Self { rows: transaction.open_table(PARKED)?, lanes: transaction.open_table(LANES)? })
    }

    /// The row of this number.
    pub(in crate::store) fn get(&self, consumer: ConsumerId, id: ParkId) -> Result<Option<Arc<Parked>>, StoreFailure> {
        let Some(value) = self.rows.get(&row_key(consumer.0, id.0))? else { return Ok(None) };
        let row: ParkedRecord<'_> = record::decode(value.value())?;
        Ok(Some(Arc::new(row.to_parked())))
    }

    /// Shows `visit` the places of a consumer's rows from `from` on, in order, while it returns true, and how to read each row.
    pub(in crate::store) fn range(
        &self,
        consumer: ConsumerId,
        from: Bound<&ParkPlace>,
        mut visit: impl FnMut(ParkPlace, &dyn Fn() -> Result<Arc<Parked>, StoreFailure>) -> Result<bool, StoreFailure>,
    ) -> Result<(), StoreFailure> {
        let first = match from {
            Bound::Unbounded => Bound::Included(consumer.0.to_be_bytes().to_vec()),
            from => from.map(|place| {
                let mut key = Vec::with_capacity(64);
                push_place(&mut key, consumer.0, place.into());
                key
            }),
        };
        for entry in self.lanes.range::<&[u8]>((first.as_ref().map(Vec::as_slice), Bound::Unbounded))? {
            let (of, place) = split_place(entry?.0.value())?;
            if of != consumer {
                break;
            }
            let id = place.id;
            let load = || {
                let missing = || RecordError::Content(format!("parked message {} is missing", id.0).into());
                Ok(self.get(consumer, id)?.ok_or_else(missing)?)
            };
            if !visit(place, &load)? {
                break;
            }
        }
        Ok(())
    }

    /// The first consumer from this one on that has parked messages.
    pub(in crate::store) fn next_consumer(&self, from: ConsumerId) -> Result<Option<ConsumerId>, StoreFailure> {
        match self.lanes.range::<&[u8]>(from.0.to_be_bytes().as_slice()..)?.next() {
            Some(entry) => Ok(Some(split_place(entry?.0.value())?.0)),
            None => Ok(None),
        }
    }

    /// All lanes, in order, summed up.
    pub(in crate::store) fn summaries(&self) -> Result<Vec<ParkedLane>, StoreFailure> {
        let mut lanes: Vec<ParkedLane> = Vec::new();
        for entry in self.lanes.iter()? {
            let (key, value) = entry?;
            let (consumer, place) = split_place(key.value())?;
            let wait: Wait = record::decode(value.value())?;
            match lanes.last_mut().filter(|last| last.consumer == consumer && last.lane == place.lane) {
                Some(last) => note(last, wait),
                None => {
                    let mut lane = ParkedLane {
                        consumer,
                        lane: place.lane,
                        rows: 0,
                        holding: None,
                        aside: 0,
                        aside_until_ms: None,
                        lowest_order: place.order,
                    };
                    note(&mut lane, wait);
                    lanes.push(lane);
                }
            }
        }
        Ok(lanes)
    }
}

/// Counts one more row, behind those before it.
fn note(lane: &mut ParkedLane, wait: Wait) {
    let cause = ParkCause::from(wait.cause);
    lane.rows += 1;
    if cause.holds_key() && lane.holding.is_none() {
        lane.holding = Some((cause, wait.until_ms));
    }
    if cause.is_aside() {
        lane.aside += 1;
        lane.aside_until_ms = match (lane.aside_until_ms, wait.until_ms) {
            (Some(first), Some(until)) => Some(first.min(until)),
            (first, until) => first.or(until),
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place() -> impl Strategy<Value = ParkPlace> {
        // Bytes at which encodings go wrong, often.
        let key = prop_oneof!["[\0\u{1}a\u{10ffff}]{0,4}", "\\PC{0,6}"].prop_map(|key| ParkLane::Key(key.into()));
        let lane = prop_oneof![3 => key, 1 => any::<u64>().prop_map(|id| ParkLane::Alone(ParkId(id)))];
        (lane, 0..3_u64, prop_oneof![0..3_u64, any::<u64>()]).prop_map(|(lane, order, id)| ParkPlace {
            lane,
            order,
            id: ParkId(id),
        })
    }

    fn encoded(consumer: u32, place: &ParkPlace) -> Vec<u8> {
        let mut key = Vec::new();
        push_place(&mut key, consumer, place.into());
        key
    }

    proptest! {
        #[test]
        fn places_come_back_and_sort_as_their_keys_do(a in (0..2_u32, place()), b in (0..2_u32, place())) {
            let (key_a, key_b) = (encoded(a.0, &a.1), encoded(b.0, &b.1));
            prop_assert_eq!(key_a.cmp(&key_b), a.cmp(&b));
            prop_assert_eq!(split_place(&key_a).unwrap(), (ConsumerId(a.0), a.1));
        }
    }
}
