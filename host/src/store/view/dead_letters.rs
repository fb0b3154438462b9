//! Table `dead-letters`: consumer, stream sequence and time of publishing → the dead letter.
//!
//! The time of publishing tells messages apart that have one sequence because the stream was deleted and made anew in between.
//!
//! Key: consumer, 4 bytes, sequence, 8 bytes, milliseconds since 1970-01-01 UTC, 8 bytes, all big-endian.

use std::collections::BTreeMap;
use std::sync::Arc;

use pelton_core::ids::ConsumerId;
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use crate::store::StoredDeadLetter;
use crate::store::error::StoreFailure;
use crate::store::fold::DeadLetterChange;
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

fn consumer_of(key: &Key) -> ConsumerId {
    let [a, b, c, d, ..] = *key;
    ConsumerId(u32::from_be_bytes([a, b, c, d]))
}

pub(super) fn write(transaction: &WriteTransaction, letters: &[DeadLetterChange<'_>]) -> Result<(), StoreFailure> {
    let mut table = transaction.open_table(DEAD_LETTERS)?;
    for change in letters {
        let key = key(change.consumer, change.sequence, change.letter.message.published_at_ms);
        table.insert(&key, record::encode(change.letter, Vec::new())?.as_slice())?;
    }
    Ok(())
}

pub(super) struct DeadLetters(ReadOnlyTable<&'static Key, &'static [u8]>);

impl DeadLetters {
    pub(super) fn open(transaction: &ReadTransaction) -> Result<Self, StoreFailure> {
        Ok(Self(transaction.open_table(DEAD_LETTERS)?))
    }

    /// Those of one consumer, or of all, from these sequences, in order; `limit` of them.
    pub(super) fn list(
        &self,
        consumer: Option<ConsumerId>,
        sequences: (u64, u64),
        limit: usize,
    ) -> Result<Vec<StoredDeadLetter>, StoreFailure> {
        let (first, last) = consumer.map_or((0, u32::MAX), |consumer| (consumer.0, consumer.0));
        let mut letters = Vec::new();
        for row in self.0.range::<&Key>(&key(first, sequences.0, 0)..=&key(last, sequences.1, u64::MAX))?.take(limit) {
            let (key, value) = row?;
            let letter: DeadLetterRecord<'_> = record::decode(value.value())?;
            letters.push(StoredDeadLetter {
                consumer: consumer_of(key.value()),
                sequence: letter.message.sequence,
                letter: Arc::new(letter.to_dead_letter()),
            });
        }
        Ok(letters)
    }

    /// How many there are, by consumer.
    pub(super) fn count(&self) -> Result<BTreeMap<ConsumerId, u64>, StoreFailure> {
        let mut counts = BTreeMap::new();
        for row in self.0.iter()? {
            *counts.entry(consumer_of(row?.0.value())).or_insert(0) += 1;
        }
        Ok(counts)
    }
}
