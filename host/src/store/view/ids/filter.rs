//! Says of most ids that a run doesn't have them, without a look at its blocks.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastbloom::AtomicBloomFilter;
use redb::ReadOnlyTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::blocks::{self, Id, Key};
use super::runs::Run;
use crate::store::error::StoreFailure;

/// Of 120 ids that a run doesn't have, its filter takes about one for known: with this many bits for each that it has, and as many hashes as are best then.
const BITS_FOR_EACH_ID: u64 = 10;
const HASHES: u32 = 7;

/// So many ids are put into filters at each checkpoint, so that none waits until all of a large run was read.
const IDS_AT_ONCE: usize = if cfg!(test) { 50 } else { 1 << 20 };

/// Above all others.
pub(super) const LAST_ID: Id = (u32::MAX, u128::MAX);

/// The filter of a run, as far as it is made. In memory only: it is made again from the blocks when a store is opened.
///
/// It is shared with earlier snapshots while ids are added, which for them can only let more pass.
#[derive(Clone)]
pub(super) struct Filter {
    bloom: Arc<AtomicBloomFilter>,
    /// The run's ids up to this one are in it; none: none is.
    up_to: Option<Id>,
}

impl Filter {
    fn empty(run: Run) -> Self {
        let bloom = AtomicBloomFilter::with_num_bits(bytes(run) * 8).seed(&0).hashes(HASHES);
        Self { bloom: Arc::new(bloom), up_to: None }
    }

    /// Adds ids that are not in it, up to about `at_most`; gives how many it may still have been.
    fn go_on(&mut self, wanted: &Wanted<'_>, at_most: usize) -> Result<usize, StoreFailure> {
        let mut left = at_most;
        if self.up_to.is_some_and(|up_to| up_to >= wanted.end) {
            return Ok(left);
        }
        for block in blocks::of_run(wanted.blocks, wanted.run.number, self.up_to)? {
            if left == 0 {
                return Ok(0);
            }
            let ids = block?.ids;
            ids.iter().for_each(|id| _ = self.bloom.insert_hash(hash(*id)));
            left = left.saturating_sub(ids.len());
            self.up_to = ids.last().copied().or(self.up_to);
        }
        self.up_to = Some(wanted.end);
        Ok(left)
    }

    /// Whether the run may have this id. If not, it has not.
    pub(super) fn may_have(&self, id: Id) -> bool {
        self.up_to.is_none_or(|up_to| id > up_to) || self.bloom.contains_hash(hash(id))
    }

    pub(super) fn bytes(&self) -> usize {
        self.bloom.num_bits() / 8
    }
}

/// What the filter of a run takes when it is new, in bytes: whole words.
fn bytes(run: Run) -> usize {
    let words = run.ids.saturating_mul(BITS_FOR_EACH_ID).div_ceil(64).max(1);
    usize::try_from(words).unwrap_or(usize::MAX).saturating_mul(8)
}

/// Consumers of one stream process the same ids, so the consumer belongs to it.
fn hash((consumer, hash): Id) -> u64 {
    xxh3_64_with_seed(&hash.to_be_bytes(), consumer.into())
}

/// The filters of the runs that have one, by generation and number.
pub(super) struct Filters {
    known: BTreeMap<(u64, u32), Filter>,
    /// The memory for all of them together.
    bytes_max: usize,
}

/// A run that would be quicker to look up with a filter.
pub(super) struct Wanted<'a> {
    pub(super) generation: u64,
    pub(super) blocks: &'a ReadOnlyTable<&'static Key, &'static [u8]>,
    pub(super) run: Run,
    /// It has all of its ids up to here.
    pub(super) end: Id,
}

impl Filters {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { known: BTreeMap::new(), bytes_max }
    }

    pub(super) fn of(&self, generation: u64, run: Run) -> Option<Filter> {
        self.known.get(&(generation, run.number)).cloned()
    }

    /// The filters for these runs: the known ones, with what was added to their runs, and new ones. If not all have room, those of small runs are preferred, since each
    /// look-up that is saved is worth the same.
    pub(super) fn renewed(&self, mut wanted: Vec<Wanted<'_>>) -> Result<Self, StoreFailure> {
        wanted.sort_by_key(|wanted| (wanted.run.ids, wanted.generation, wanted.run.number));
        // Who opens a store reads all of it anyway.
        let mut left = if self.known.is_empty() { usize::MAX } else { IDS_AT_ONCE };
        let (mut known, mut total) = (BTreeMap::new(), 0_usize);
        for wanted in wanted {
            let key = (wanted.generation, wanted.run.number);
            let kept = self.known.get(&key);
            // A part stays free of new ones, so that a run at the border doesn't lose its filter and get it back again and again.
            let room = if kept.is_some() { self.bytes_max } else { self.bytes_max / 4 * 3 };
            let with_it = total.saturating_add(kept.map_or_else(|| bytes(wanted.run), Filter::bytes));
            if with_it > room {
                continue;
            }
            total = with_it;
            let mut filter = kept.cloned().unwrap_or_else(|| Filter::empty(wanted.run));
            left = filter.go_on(&wanted, left)?;
            known.insert(key, filter);
        }
        Ok(Self { known, bytes_max: self.bytes_max })
    }
}
