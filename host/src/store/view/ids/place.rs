//! Where an id would be: in a run, or in runs that are being merged.

use redb::ReadableTable;

use super::blocks::{self, Id, Key};
use crate::store::error::StoreFailure;

/// A settled run, or a merge.
pub(super) struct Place {
    /// That of the run, or of the run that a merge makes: what is known of the place holds for that one, too.
    pub(super) number: u32,
    /// How many ids it has at most.
    pub(super) ids: u64,
    /// The runs with all ids but those that a merge moved already.
    pub(super) runs: Vec<u32>,
    /// The last id that a merge moved. Those up to it are in the run `number`.
    pub(super) moved: Option<Id>,
}

impl Place {
    /// Whether it has this id.
    pub(super) fn has(
        &self,
        blocks: &impl ReadableTable<&'static Key, &'static [u8]>,
        id: Id,
    ) -> Result<bool, StoreFailure> {
        if self.moved.is_some_and(|last| id <= last) {
            return blocks::contain(blocks, self.number, id);
        }
        for run in &self.runs {
            if blocks::contain(blocks, *run, id)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// All runs that have blocks of it.
    pub(super) fn all_runs(&self) -> impl Iterator<Item = u32> {
        self.runs.iter().copied().chain(self.moved.map(|_| self.number))
    }
}
