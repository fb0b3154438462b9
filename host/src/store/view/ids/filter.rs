//! Says of most ids that a place doesn't have them, without a look at its blocks.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastbloom::BloomFilter;
use redb::ReadOnlyTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::blocks::{self, Id, Key};
use super::place::Place;
use crate::store::error::StoreFailure;

/// Of 300 ids that a place doesn't have, its filter takes about one for known: with this many bits for each that it has, and as many hashes as are best then.
const BITS_FOR_EACH_ID: u64 = 12;
const HASHES: u32 = 8;

/// The filter of a place. In memory only: it is made again from the blocks when a store is opened.
pub(super) struct Filter(BloomFilter);

impl Filter {
    fn of(wanted: &Wanted<'_>) -> Result<Self, StoreFailure> {
        let mut filter = BloomFilter::with_num_bits(bits(wanted.place)).seed(&0).hashes(HASHES);
        for run in wanted.place.all_runs() {
            for block in blocks::of_run(wanted.blocks, run)? {
                block?.ids.iter().for_each(|id| _ = filter.insert_hash(hash(*id)));
            }
        }
        Ok(Self(filter))
    }

    /// Whether the place may have this id. If not, it has not.
    pub(super) fn may_have(&self, id: Id) -> bool {
        self.0.contains_hash(hash(id))
    }
}

fn bits(place: &Place) -> usize {
    usize::try_from(place.ids.max(1).saturating_mul(BITS_FOR_EACH_ID)).unwrap_or(usize::MAX)
}

/// Consumers of one stream process the same ids, so the consumer belongs to it.
fn hash((consumer, hash): Id) -> u64 {
    xxh3_64_with_seed(&hash.to_be_bytes(), consumer.into())
}

/// The filters of all places, by generation and number; none: there was no room.
pub(super) struct Filters {
    places: BTreeMap<(u64, u32), Option<Arc<Filter>>>,
    /// The memory for all of them together.
    bytes_max: usize,
}

/// A place that would be quicker to look up with a filter.
pub(super) struct Wanted<'a> {
    pub(super) generation: u64,
    pub(super) blocks: &'a ReadOnlyTable<&'static Key, &'static [u8]>,
    pub(super) place: &'a Place,
}

impl Filters {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { places: BTreeMap::new(), bytes_max }
    }

    pub(super) fn of(&self, generation: u64, place: &Place) -> Option<Arc<Filter>> {
        self.places.get(&(generation, place.number))?.as_ref().map(Arc::clone)
    }

    /// The filters for these places: the known ones, and new ones for new places. If not all have room, small ones are preferred, since each look-up that is saved is
    /// worth the same. A place that was left out or had to give its filter back stays without: reading all of a large one again and again would be dear.
    pub(super) fn renewed(&self, mut wanted: Vec<Wanted<'_>>) -> Result<Self, StoreFailure> {
        wanted.sort_by_key(|wanted| (wanted.place.ids, wanted.generation, wanted.place.number));
        let (mut places, mut total) = (BTreeMap::new(), 0_usize);
        for wanted in wanted {
            let key = (wanted.generation, wanted.place.number);
            let with_it = total.saturating_add(bits(wanted.place) / 8);
            let filter = match self.places.get(&key) {
                _ if with_it > self.bytes_max => None,
                Some(known) => known.clone(),
                None => Some(Arc::new(Filter::of(&wanted)?)),
            };
            if filter.is_some() {
                total = with_it;
            }
            places.insert(key, filter);
        }
        Ok(Self { places, bytes_max: self.bytes_max })
    }
}
