//! Merges runs into one, a part at each checkpoint, so that no checkpoint waits for a large one.
//!
//! Between the parts all ids up to `after` lie in the output and all others in the sources: a look-up knows where to ask, and a merge goes on after a restart
//! where it was.

use serde::{Deserialize, Serialize};

use super::blocks::{self, Block, Blocks, Id};
use super::place::Place;
use super::runs::Run;
use crate::store::error::StoreFailure;

/// Blocks of each source that are in memory at once.
const BLOCKS_AT_ONCE: usize = if cfg!(test) { 2 } else { 32 };

/// Runs that are being merged.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Merge {
    sources: Vec<Run>,
    /// The number of the run that they become.
    output: u32,
    /// The last id that was moved; none: none was.
    after: Option<Id>,
    /// How many ids the output has.
    ids: u64,
}

/// What is read of the sources at once.
struct Part {
    read: Vec<Block>,
    /// The last id up to which everything of all sources was read; none: all of it.
    end: Option<Id>,
}

impl Merge {
    pub(super) fn new(sources: Vec<Run>, output: u32) -> Self {
        Self { sources, output, after: None, ids: 0 }
    }

    pub(super) fn place(&self) -> Place {
        let ids = self.sources.iter().map(|run| run.ids).sum();
        Place::new(self.sources.iter().copied(), self.after.map(|last| (last, Run { number: self.output, ids })))
    }

    /// Moves at least so many ids, or all that are left; gives the output when it is complete.
    pub(super) fn advance(&mut self, table: &mut Blocks<'_>, at_least: usize) -> Result<Option<Run>, StoreFailure> {
        let mut moved = 0;
        while moved < at_least {
            let part = self.read(table)?;
            let is_due = |id: &Id| self.after.is_none_or(|after| *id > after) && part.end.is_none_or(|end| *id <= end);
            let mut ids: Vec<Id> = part.read.iter().flat_map(|block| &block.ids).copied().filter(is_due).collect();
            moved += ids.len();
            // Stable, since that one is quick with what is sorted in stretches.
            ids.sort();
            // A rewind can bring an id a second time.
            ids.dedup();
            blocks::write(table, self.output, &ids)?;
            for block in &part.read {
                if block.ids.last().is_none_or(|last| part.end.is_none_or(|end| *last <= end)) {
                    block.remove_from(table)?;
                }
            }
            self.ids += ids.len() as u64;
            match part.end {
                Some(end) => self.after = Some(end),
                None => return Ok(Some(Run { number: self.output, ids: self.ids })),
            }
        }
        Ok(None)
    }

    fn read(&self, table: &Blocks<'_>) -> Result<Part, StoreFailure> {
        let mut part = Part { read: Vec::new(), end: None };
        for source in &self.sources {
            let mut left = blocks::of_run(table, source.number, None)?;
            let first: Vec<Block> = left.by_ref().take(BLOCKS_AT_ONCE).collect::<Result<_, _>>()?;
            if left.next().transpose()?.is_some() {
                let last = first.last().and_then(|block| block.ids.last()).copied();
                part.end = part.end.into_iter().chain(last).min();
            }
            part.read.extend(first);
        }
        Ok(part)
    }
}
