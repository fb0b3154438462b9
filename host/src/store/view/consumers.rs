//! Table `consumers`: consumer number → its name, the stream that it reads, and its cursor.

use std::collections::BTreeMap;

use pelton_core::batch::StreamIdentity;
use pelton_core::cursor::Cursor;
use pelton_core::ids::ConsumerId;
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::store::error::StoreFailure;
use crate::store::record::{self, BindingRecord};

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
}

#[derive(Serialize, Deserialize)]
struct ConsumerRecord<'a> {
    name: &'a str,
    stream: &'a str,
    created_ns: i64,
    floor: u64,
    /// First and last sequence of each settled range above the floor.
    ranges: Vec<(u64, u64)>,
}

impl From<&BindingRecord<'_>> for Consumer {
    fn from(binding: &BindingRecord<'_>) -> Self {
        Self {
            name: binding.name.into(),
            stream: StreamIdentity { name: binding.stream.into(), created_ns: binding.created_ns },
            cursor: Cursor::at(binding.floor),
        }
    }
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
        };
        table.insert(id.0, record::encode(&row, Vec::new())?.as_slice())?;
    }
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
        consumers.insert(ConsumerId(id.value()), Consumer { name: row.name.into(), stream, cursor });
    }
    Ok(consumers)
}
