//! Table `consumers`: consumer number → its name, the stream that it reads, its cursor, and what holds it.

use std::collections::BTreeMap;

use pelton_core::batch::{Again, Hold, HoldBy, Newest, StreamIdentity};
use pelton_core::cursor::Cursor;
use pelton_core::ids::ConsumerId;
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::store::error::StoreFailure;
use crate::store::record::{self, AgainRecord, BindingRecord, HoldByRecord, HoldRecord};

const CONSUMERS: TableDefinition<u32, &[u8]> = TableDefinition::new("consumers");

/// A consumer that began to read a stream, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Consumer {
    /// Its name in manifests.
    pub(in crate::store) name: Box<str>,
    /// What it reads.
    pub(in crate::store) stream: StreamIdentity,
    /// How far it is.
    pub(in crate::store) cursor: Cursor,
    /// Who keeps it from working, since when and why. Outlasts the stream that it reads.
    pub(in crate::store) holds: BTreeMap<HoldBy, Hold>,
    /// The newest message of the stream that was settled.
    pub(in crate::store) newest: Option<Newest>,
    /// What a rewind brings again.
    pub(in crate::store) again: Again,
}

impl Default for Consumer {
    /// One that is about to be bound for the first time.
    fn default() -> Self {
        let stream = StreamIdentity { name: "".into(), created_ns: 0 };
        Self {
            name: "".into(),
            stream,
            cursor: Cursor::at(0),
            holds: BTreeMap::new(),
            newest: None,
            again: Again::default(),
        }
    }
}

impl Consumer {
    /// It begins to read this stream.
    pub(in crate::store) fn bind(&mut self, binding: &BindingRecord<'_>) {
        self.name = binding.name.into();
        self.stream = StreamIdentity { name: binding.stream.into(), created_ns: binding.created_ns };
        self.cursor = Cursor::at(binding.floor);
        self.newest = None;
        self.again = Again { number: self.again.number, ..Again::default() };
    }

    /// Its cursor was moved: back, if something is brought again, else forward.
    pub(in crate::store) fn move_cursor(&mut self, after: u64, again: Option<Again>) {
        match again {
            Some(again) => {
                self.cursor = Cursor::at(after);
                self.again = again;
            }
            None => self.cursor.raise_floor(after),
        }
    }

    /// It is held, or is not any more.
    pub(in crate::store) fn set_hold(&mut self, by: HoldBy, hold: Option<HoldRecord<'_>>) {
        match hold {
            Some(hold) => _ = self.holds.insert(by, hold.to_hold()),
            None => _ = self.holds.remove(&by),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct ConsumerRecord<'a> {
    name: &'a str,
    stream: &'a str,
    created_ns: i64,
    floor: u64,
    /// First and last sequence of each settled range above the floor.
    ranges: Vec<(u64, u64)>,
    #[serde(borrow)]
    holds: Vec<(HoldByRecord, HoldRecord<'a>)>,
    /// Sequence, and when the stream stored it.
    newest: Option<(u64, u64)>,
    again: AgainRecord,
}

pub(super) fn create(transaction: &WriteTransaction) -> Result<(), StoreFailure> {
    transaction.open_table(CONSUMERS)?;
    Ok(())
}

pub(super) fn save(
    transaction: &WriteTransaction,
    consumers: &BTreeMap<ConsumerId, Consumer>,
    changed: impl Iterator<Item = ConsumerId>,
) -> Result<(), StoreFailure> {
    let mut table = transaction.open_table(CONSUMERS)?;
    for id in changed {
        let Some(consumer) = consumers.get(&id) else { continue };
        let row = ConsumerRecord {
            name: &consumer.name,
            stream: &consumer.stream.name,
            created_ns: consumer.stream.created_ns,
            floor: consumer.cursor.floor(),
            ranges: consumer.cursor.ranges().collect(),
            holds: consumer.holds.iter().map(|(by, hold)| ((*by).into(), hold.into())).collect(),
            newest: consumer.newest.map(|newest| (newest.sequence, newest.published_at_ms)),
            again: consumer.again.into(),
        };
        table.insert(id.0, record::encode(&row, Vec::new())?.as_slice())?;
    }
    Ok(())
}

/// Removes a consumer.
pub(super) fn forget(transaction: &WriteTransaction, consumer: u32) -> Result<(), StoreFailure> {
    transaction.open_table(CONSUMERS)?.remove(consumer)?;
    Ok(())
}

pub(super) fn load(transaction: &ReadTransaction) -> Result<BTreeMap<ConsumerId, Consumer>, StoreFailure> {
    let mut consumers = BTreeMap::new();
    for row in transaction.open_table(CONSUMERS)?.iter()? {
        let (id, value) = row?;
        let row: ConsumerRecord<'_> = record::decode(value.value())?;
        let mut cursor = Cursor::at(row.floor);
        row.ranges.iter().for_each(|(first, last)| cursor.settle_range(*first, *last));
        let stream = StreamIdentity { name: row.stream.into(), created_ns: row.created_ns };
        let holds = row.holds.iter().map(|(by, hold)| ((*by).into(), hold.to_hold())).collect();
        let newest = row.newest.map(|(sequence, published_at_ms)| Newest { sequence, published_at_ms });
        let (name, again) = (row.name.into(), row.again.into());
        consumers.insert(ConsumerId(id.value()), Consumer { name, stream, cursor, holds, newest, again });
    }
    Ok(consumers)
}
