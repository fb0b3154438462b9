//! Table `processed-id-runs`: generation → its runs, and the merges of them that are under way.

use redb::{AccessGuard, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::blocks::{Blocks, Id};
use super::merge::Merge;
use super::place::Place;
use crate::store::error::StoreFailure;
use crate::store::record;

pub(super) const RUNS: TableDefinition<u64, &[u8]> = TableDefinition::new("processed-id-runs");

/// So many runs of a size class are merged into one. With more an id is written less often and looked up in more places.
const MERGED_AT_ONCE: usize = 4;

/// Runs with fewer ids are all of one size class; each further class has runs of up to [`MERGED_AT_ONCE`] times as many.
const SMALL_RUN_IDS: u64 = if cfg!(test) { 16 } else { 4_096 };

/// A merge moves so many ids for each new one. As many as are in it come in before its next one is due, so 1 would do; with more it is over sooner, and look-ups
/// find one run instead of four.
const MOVED_FOR_EACH_NEW: usize = if cfg!(test) { 1 } else { 4 };

/// A sorted set of ids that is never written to again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) number: u32,
    /// How many ids it has; a consumer that was forgotten is still counted.
    pub(super) ids: u64,
}

impl Run {
    fn size_class(self) -> u32 {
        let small = self.ids / SMALL_RUN_IDS;
        small.checked_ilog(MERGED_AT_ONCE as u64).map_or(0, |class| class + 1)
    }
}

/// The runs of a generation. Each is either settled or the source of one merge.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Runs {
    /// Above all numbers that there ever were.
    next: u32,
    settled: Vec<Run>,
    merges: Vec<Merge>,
}

impl Runs {
    /// Those of a generation; none if there is no row for it.
    pub(super) fn load(table: &impl ReadableTable<u64, &'static [u8]>, generation: u64) -> Result<Self, StoreFailure> {
        let row = table.get(generation)?;
        Ok(row.map(|row| record::decode(row.value())).transpose()?.unwrap_or_default())
    }

    /// Those of all generations.
    pub(super) fn all(table: &impl ReadableTable<u64, &'static [u8]>) -> Result<Vec<(u64, Self)>, StoreFailure> {
        let row = |row: Result<_, redb::StorageError>| {
            let (generation, runs): (AccessGuard<'_, u64>, AccessGuard<'_, &[u8]>) = row?;
            Ok((generation.value(), record::decode(runs.value())?))
        };
        table.iter()?.map(row).collect()
    }

    pub(super) fn save(&self, transaction: &WriteTransaction, generation: u64) -> Result<(), StoreFailure> {
        transaction.open_table(RUNS)?.insert(generation, record::encode(self, Vec::new())?.as_slice())?;
        Ok(())
    }

    /// All places where an id can be.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        let settled = self.settled.iter().map(|run| Place::new([*run], None));
        settled.chain(self.merges.iter().map(Merge::place))
    }

    /// Writes sorted ids as a new run, and moves on what is merged.
    pub(super) fn add(&mut self, blocks: &mut Blocks<'_>, ids: &[Id]) -> Result<(), StoreFailure> {
        let number = self.new_number();
        super::blocks::write(blocks, number, ids)?;
        self.settled.push(Run { number, ids: ids.len() as u64 });
        self.begin_merges();
        let mut going_on = Vec::new();
        for mut merge in std::mem::take(&mut self.merges) {
            match merge.advance(blocks, ids.len().saturating_mul(MOVED_FOR_EACH_NEW))? {
                Some(run) => self.settled.push(run),
                None => going_on.push(merge),
            }
        }
        self.merges = going_on;
        Ok(())
    }

    fn new_number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// Begins to merge where a size class has enough runs.
    fn begin_merges(&mut self) {
        // The oldest of a class first.
        self.settled.sort_unstable_by_key(|run| (run.size_class(), run.number));
        let classes = self.settled.chunk_by(|a, b| a.size_class() == b.size_class());
        let full: Vec<Vec<Run>> =
            classes.filter_map(|class| class.get(..MERGED_AT_ONCE)).map(<[Run]>::to_vec).collect();
        for sources in full {
            self.settled.retain(|run| !sources.contains(run));
            let output = self.new_number();
            self.merges.push(Merge::new(sources, output));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_class_has_runs_of_up_to_four_times_as_many_ids() {
        let class = |ids| Run { number: 1, ids }.size_class();
        let of = [0, 1, SMALL_RUN_IDS - 1, SMALL_RUN_IDS, 4 * SMALL_RUN_IDS - 1, 4 * SMALL_RUN_IDS, 16 * SMALL_RUN_IDS];
        assert_eq!(of.map(class), [0, 0, 0, 1, 1, 2, 3]);
    }
}
