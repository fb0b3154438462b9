//! Tables `processed-ids-N`: consumer and hash of each message id that was applied, a table per generation.
//!
//! Ids are looked up in the generation that is written to and in the one before it; older ones are dropped whole, which costs no lookups. A generation
//! lasts `processed_ids_ms` of *running* time: what hosts have spent running on this store, by a clock that can't be set. So an id is kept for at
//! least that long and at most about twice as long whatever the wall clock does, and the time that a host is stopped never makes it forget.
//!
//! Key: consumer, 4 bytes, then the hash, 16 bytes, both big-endian.

use pelton_core::ids::{ConsumerId, IdHash};
use redb::{ReadOnlyTable, ReadTransaction, TableDefinition, TableError, TableHandle, WriteTransaction};

use super::meta::Meta;
use crate::store::error::StoreFailure;
use crate::store::fold::MarkChange;

type Key = [u8; 20];

const TABLE_PREFIX: &str = "processed-ids-";

fn table_name(generation: u64) -> String {
    format!("{TABLE_PREFIX}{generation}")
}

fn key(consumer: u32, hash: u128) -> Key {
    let mut key = [0; 20];
    let (front, back) = key.split_at_mut(4);
    front.copy_from_slice(&consumer.to_be_bytes());
    back.copy_from_slice(&hash.to_be_bytes());
    key
}

/// Begins a new generation when the current one has lasted long enough. At most one step: a checkpoint that comes very late must not take the
/// generation that was written to a moment ago for one of long ago.
pub(super) fn step_generation(meta: &mut Meta, processed_ids_ms: u64) -> bool {
    let step = meta.running_ms.saturating_sub(meta.generation_since_ms) >= processed_ids_ms.max(1);
    if step {
        meta.generation += 1;
        meta.generation_since_ms = meta.running_ms;
    }
    step
}

/// Adds ids to the current generation; `marks` are sorted.
pub(super) fn insert(
    transaction: &WriteTransaction,
    generation: u64,
    marks: &[MarkChange],
) -> Result<(), StoreFailure> {
    let name = table_name(generation);
    let mut table = transaction.open_table(TableDefinition::<&Key, ()>::new(&name))?;
    for mark in marks {
        table.insert(&key(mark.consumer, mark.hash), ())?;
    }
    Ok(())
}

/// Removes all of a consumer, in every generation.
pub(super) fn forget(transaction: &WriteTransaction, consumer: u32) -> Result<(), StoreFailure> {
    let names: Vec<String> = transaction.list_tables()?.map(|table| table.name().to_owned()).collect();
    for name in names.iter().filter(|name| name.starts_with(TABLE_PREFIX)) {
        let mut table = transaction.open_table(TableDefinition::<&Key, ()>::new(name))?;
        table.retain_in::<&Key, _>(&key(consumer, 0)..=&key(consumer, u128::MAX), |_, ()| false)?;
    }
    Ok(())
}

/// Drops the generations before the previous one.
pub(super) fn expire(transaction: &WriteTransaction, generation: u64) -> Result<(), StoreFailure> {
    let tables: Vec<_> = transaction.list_tables()?.collect();
    for table in tables {
        let number = table.name().strip_prefix(TABLE_PREFIX).and_then(|number| number.parse::<u64>().ok());
        if number.is_some_and(|number| number + 1 < generation) {
            transaction.delete_table(table)?;
        }
    }
    Ok(())
}

/// The generations that are looked up.
pub(super) struct ProcessedIds {
    generations: Vec<ReadOnlyTable<&'static Key, ()>>,
}

impl ProcessedIds {
    pub(super) fn open(transaction: &ReadTransaction, generation: u64) -> Result<Self, StoreFailure> {
        let mut generations = Vec::new();
        for number in [generation, generation.saturating_sub(1)] {
            let name = table_name(number);
            match transaction.open_table(TableDefinition::<&'static Key, ()>::new(&name)) {
                Ok(table) => generations.push(table),
                Err(TableError::TableDoesNotExist(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self { generations })
    }

    pub(super) fn contains(&self, consumer: ConsumerId, hash: IdHash) -> Result<bool, StoreFailure> {
        let key = key(consumer.0, hash.0);
        for table in &self.generations {
            if table.get(&key)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_lasts_its_running_time_and_steps_once_however_late_the_checkpoint() {
        let mut meta = Meta::new(0);
        meta.running_ms = 999;
        assert!(!step_generation(&mut meta, 1_000));
        meta.running_ms = 50_000;
        assert!(step_generation(&mut meta, 1_000));
        assert_eq!(meta.generation, 2);
        meta.running_ms += 999;
        assert!(!step_generation(&mut meta, 1_000), "the ids written just before the step would be dropped");
    }
}
