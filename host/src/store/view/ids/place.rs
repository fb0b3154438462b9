//! Where an id would be: in a run, or in runs that are being merged.

use redb::ReadableTable;

use super::blocks::{self, Id, Key};
use super::filter::{Filter, LAST_ID};
use super::runs::Run;
use crate::store::error::StoreFailure;

/// A settled run, or a merge.
pub(super) struct Place {
    /// The runs with all ids but those that a merge moved already.
    pub(super) runs: Vec<Filtered>,
    pub(super) moved: Option<Moved>,
}

/// A run and its filter, if it has one.
pub(super) struct Filtered {
    pub(super) run: Run,
    pub(super) filter: Option<Filter>,
}

/// What a merge moved.
pub(super) struct Moved {
    /// The last id of it.
    pub(super) last: Id,
    pub(super) output: Filtered,
}

impl Place {
    pub(super) fn new(runs: impl IntoIterator<Item = Run>, moved: Option<(Id, Run)>) -> Self {
        let filtered = |run| Filtered { run, filter: None };
        let moved = moved.map(|(last, output)| Moved { last, output: filtered(output) });
        Self { runs: runs.into_iter().map(filtered).collect(), moved }
    }

    /// Whether it has this id.
    pub(super) fn has(
        &self,
        blocks: &impl ReadableTable<&'static Key, &'static [u8]>,
        id: Id,
    ) -> Result<bool, StoreFailure> {
        if let Some(moved) = &self.moved
            && id <= moved.last
        {
            return moved.output.has(blocks, id);
        }
        for run in &self.runs {
            if run.has(blocks, id)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// All runs that have blocks of it, and up to where they have all of their ids.
    pub(super) fn all_runs(&self) -> impl Iterator<Item = (Run, Id)> {
        let moved = self.moved.iter().map(|moved| (moved.output.run, moved.last));
        self.runs.iter().map(|filtered| (filtered.run, LAST_ID)).chain(moved)
    }

    pub(super) fn all_runs_mut(&mut self) -> impl Iterator<Item = &mut Filtered> {
        self.runs.iter_mut().chain(self.moved.iter_mut().map(|moved| &mut moved.output))
    }
}

impl Filtered {
    fn has(&self, blocks: &impl ReadableTable<&'static Key, &'static [u8]>, id: Id) -> Result<bool, StoreFailure> {
        let ask = self.filter.as_ref().is_none_or(|filter| filter.may_have(id));
        Ok(ask && blocks::contain(blocks, self.run.number, id)?)
    }
}
