//! Processed ids: consumer and hash of each message id that was applied, by generation.
//!
//! Ids are looked up in the generation that is written to and in the one before it; older ones are dropped whole, which costs no lookups. A generation
//! lasts `processed_ids_ms` of *running* time: what hosts have spent running on this store, by a clock that can't be set. So an id is kept for at
//! least that long and at most about twice as long whatever the wall clock does, and the time that a host is stopped never makes it forget.
//!
//! Hashes are random, so among many millions each new one would cost a page of its own to write. Therefore ids lie in *runs*: each checkpoint writes its own, sorted, as a
//! new run, and runs of one size class are merged into a larger one (`runs`, `merge`). Beyond the smallest class an id is written once in each, beside its neighbours. A look-up
//! asks all runs, and mostly only a filter in memory answers (`filter`).

mod blocks;
mod filter;
mod merge;
mod place;
mod runs;

use pelton_core::ids::{ConsumerId, IdHash};
use redb::{ReadOnlyTable, ReadTransaction, TableDefinition, TableError, TableHandle, WriteTransaction};

use self::blocks::{Id, Key};
use self::filter::{Filters, Wanted};
use self::place::Place;
use self::runs::{RUNS, Runs};
use super::meta::Meta;
use crate::store::error::StoreFailure;
use crate::store::fold::MarkChange;

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
    if marks.is_empty() {
        return Ok(());
    }
    let ids: Vec<Id> = marks.iter().map(|mark| (mark.consumer, mark.hash)).collect();
    let mut runs = Runs::load(&transaction.open_table(RUNS)?, generation)?;
    runs.add(&mut blocks::open(transaction, generation)?, &ids)?;
    runs.save(transaction, generation)
}

/// Removes all of a consumer, in every generation.
pub(super) fn forget(transaction: &WriteTransaction, consumer: u32) -> Result<(), StoreFailure> {
    for (generation, runs) in Runs::all(&transaction.open_table(RUNS)?)? {
        let mut blocks = blocks::open(transaction, generation)?;
        for place in runs.places() {
            place.all_runs().try_for_each(|(run, _)| blocks::forget(&mut blocks, run.number, consumer))?;
        }
    }
    Ok(())
}

/// Drops the generations before the previous one.
pub(super) fn expire(transaction: &WriteTransaction, generation: u64) -> Result<(), StoreFailure> {
    let tables: Vec<_> = transaction.list_tables()?.collect();
    for table in tables {
        if blocks::generation_of(table.name()).is_some_and(|number| number + 1 < generation) {
            transaction.delete_table(table)?;
        }
    }
    transaction.open_table(RUNS)?.retain(|number, _| number + 1 >= generation)?;
    Ok(())
}

/// What is looked up: all runs of two generations.
pub(super) struct ProcessedIds {
    generations: Vec<Generation>,
    filters: Filters,
}

struct Generation {
    number: u64,
    blocks: ReadOnlyTable<&'static Key, &'static [u8]>,
    places: Vec<Place>,
}

impl ProcessedIds {
    /// Before anything was read. Its filters will have so much memory.
    pub(super) fn none(filter_bytes_max: usize) -> Self {
        Self { generations: Vec::new(), filters: Filters::new(filter_bytes_max) }
    }

    /// As they are now, with the filters that are known.
    pub(super) fn renewed(&self, transaction: &ReadTransaction, generation: u64) -> Result<Self, StoreFailure> {
        let mut generations = Vec::new();
        for number in [generation, generation.saturating_sub(1)] {
            generations.extend(Generation::load(transaction, number)?);
        }
        let filters = self.filters.renewed(generations.iter().flat_map(Generation::wanted).collect())?;
        for generation in &mut generations {
            for filtered in generation.places.iter_mut().flat_map(Place::all_runs_mut) {
                filtered.filter = filters.of(generation.number, filtered.run);
            }
        }
        Ok(Self { generations, filters })
    }

    pub(super) fn contains(&self, consumer: ConsumerId, hash: IdHash) -> Result<bool, StoreFailure> {
        let id = (consumer.0, hash.0);
        for Generation { blocks, places, .. } in &self.generations {
            for place in places {
                if place.has(blocks, id)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

impl Generation {
    /// None if nothing was ever written to it.
    fn load(transaction: &ReadTransaction, number: u64) -> Result<Option<Self>, StoreFailure> {
        let runs = match transaction.open_table(RUNS) {
            Ok(table) => Runs::load(&table, number)?,
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let places: Vec<_> = runs.places().collect();
        if places.is_empty() {
            return Ok(None);
        }
        let blocks = transaction.open_table(TableDefinition::new(&blocks::table_name(number)))?;
        Ok(Some(Self { number, blocks, places }))
    }

    /// All of its runs, for filters.
    fn wanted(&self) -> impl Iterator<Item = Wanted<'_>> {
        let (generation, blocks) = (self.number, &self.blocks);
        let runs = self.places.iter().flat_map(Place::all_runs);
        runs.map(move |(run, end)| Wanted { generation, blocks, run, end })
    }
}

#[cfg(test)]
mod tests;
