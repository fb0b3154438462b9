//! Table `outbox`: row number → the consumer and the event that wait to be published.
//!
//! Rows that were published before the checkpoint that would have written them never get here.

use pelton_core::ids::{ConsumerId, RowId};
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::store::OutboxRow;
use crate::store::error::StoreFailure;
use crate::store::fold::{OutboxAdded, OutboxChanges};
use crate::store::record::{self, EventRecord};

const OUTBOX: TableDefinition<u64, &[u8]> = TableDefinition::new("outbox");

#[derive(Deserialize)]
struct Row<'a> {
    consumer: u32,
    since_ms: u64,
    #[serde(borrow)]
    event: EventRecord<'a>,
}

/// [`Row`] as it is written: the event stays where it is.
#[derive(Serialize)]
struct RowToWrite<'a> {
    consumer: u32,
    /// When it was committed: milliseconds since 1970-01-01 UTC.
    since_ms: u64,
    event: &'a EventRecord<'a>,
}

pub(super) fn write(transaction: &WriteTransaction, changes: &OutboxChanges<'_>) -> Result<(), StoreFailure> {
    let mut table = transaction.open_table(OUTBOX)?;
    for row in &changes.removed {
        table.remove(row)?;
    }
    let mut buffer = Vec::new();
    for added in &changes.added {
        buffer.clear();
        let OutboxAdded { consumer, ref event, since_ms, .. } = *added;
        buffer = record::encode(&RowToWrite { consumer, since_ms, event }, buffer)?;
        table.insert(added.row, buffer.as_slice())?;
    }
    Ok(())
}

pub(super) fn load(transaction: &ReadTransaction) -> Result<Vec<OutboxRow>, StoreFailure> {
    let mut rows = Vec::new();
    for entry in transaction.open_table(OUTBOX)?.iter()? {
        let (row, value) = entry?;
        let Row { consumer, since_ms, event } = record::decode(value.value())?;
        let row = RowId(row.value());
        rows.push(OutboxRow { row, consumer: ConsumerId(consumer), event: event.to_event(), since_ms });
    }
    Ok(rows)
}
