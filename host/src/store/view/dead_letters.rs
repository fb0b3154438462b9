//! Table `dead-letters`: consumer, stream sequence and time of publishing → the dead letter.
//!
//! The time of publishing tells messages apart that have one sequence because the stream was deleted and made anew in between.
//!
//! Key: consumer, 4 bytes, sequence, 8 bytes, milliseconds since 1970-01-01 UTC, 8 bytes, all big-endian.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use pelton_core::ids::ConsumerId;
use pelton_core::message::DeadLetter;
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use crate::store::error::StoreFailure;
use crate::store::fold::DeadLetterChange;
use crate::store::overlay::DeadLetterKey;
use crate::store::record::{self, DeadLetterRecord};

type Key = [u8; 20];

const DEAD_LETTERS: TableDefinition<&Key, &[u8]> = TableDefinition::new("dead-letters");

fn key(consumer: u32, sequence: u64, published_at_ms: u64) -> Key {
    let mut key = [0; 20];
    let (front, back) = key.split_at_mut(4);
    let (middle, back) = back.split_at_mut(8);
    front.copy_from_slice(&consumer.to_be_bytes());
    middle.copy_from_slice(&sequence.to_be_bytes());
    back.copy_from_slice(&published_at_ms.to_be_bytes());
    key
}

fn split_key(key: &Key) -> DeadLetterKey {
    let number = |from: usize, to: usize| {
        key.iter().take(to).skip(from).fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
    };
    // The first four bytes are a u32.
    (ConsumerId(number(0, 4) as u32), number(4, 12), number(12, 20))
}

/// Writes sorted changes. Removing what never came here writes nothing.
pub(super) fn write(transaction: &WriteTransaction, letters: &[DeadLetterChange<'_>]) -> Result<(), StoreFailure> {
    let mut table = transaction.open_table(DEAD_LETTERS)?;
    let mut buffer = Vec::new();
    for change in letters {
        let key = key(change.consumer, change.sequence, change.published_at_ms);
        let Some(letter) = &change.letter else {
            table.remove(&key)?;
            continue;
        };
        buffer.clear();
        buffer = record::encode(letter, buffer)?;
        table.insert(&key, buffer.as_slice())?;
    }
    Ok(())
}

/// Removes all of a consumer.
pub(super) fn forget(transaction: &WriteTransaction, consumer: u32) -> Result<(), StoreFailure> {
    let mut table = transaction.open_table(DEAD_LETTERS)?;
    table.retain_in::<&Key, _>(&key(consumer, 0, 0)..=&key(consumer, u64::MAX, u64::MAX), |_, _| false)?;
    Ok(())
}

pub(in crate::store) struct DeadLetters(ReadOnlyTable<&'static Key, &'static [u8]>);

impl DeadLetters {
    pub(super) fn open(transaction: &ReadTransaction) -> Result<Self, StoreFailure> {
        Ok(Self(transaction.open_table(DEAD_LETTERS)?))
    }

    /// Shows `visit` the keys of dead letters from `from` on, in order, while it returns true, and how to read each.
    pub(in crate::store) fn range(
        &self,
        from: Bound<DeadLetterKey>,
        mut visit: impl FnMut(
            DeadLetterKey,
            &dyn Fn() -> Result<Arc<DeadLetter>, StoreFailure>,
        ) -> Result<bool, StoreFailure>,
    ) -> Result<(), StoreFailure> {
        let first = from.map(|(consumer, sequence, published_at_ms)| key(consumer.0, sequence, published_at_ms));
        for row in self.0.range::<&Key>((first.as_ref(), Bound::Unbounded))? {
            let (key, value) = row?;
            let load = || {
                let letter: DeadLetterRecord<'_> = record::decode(value.value())?;
                Ok(Arc::new(letter.to_dead_letter()))
            };
            if !visit(split_key(key.value()), &load)? {
                break;
            }
        }
        Ok(())
    }

    /// How many there are, by consumer.
    pub(super) fn count(&self) -> Result<BTreeMap<ConsumerId, u64>, StoreFailure> {
        let mut counts = BTreeMap::new();
        for row in self.0.iter()? {
            *counts.entry(split_key(row?.0.value()).0).or_insert(0) += 1;
        }
        Ok(counts)
    }
}
