//! Which blocks of the log's file are in use, and where the next record goes.
//!
//! Blocks are used in turn, from the first to the last and over again, so that a file that has reached its size is written over in place: the file system then
//! has nothing to note of its own at a sync.

use std::collections::BTreeMap;

/// The first block that records may use: the one before it is the file's header.
pub(super) const FIRST: u64 = 1;

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) block: u64,
    pub(super) blocks: u64,
}

impl Place {
    fn end(self) -> u64 {
        self.block + self.blocks
    }
}

/// The records that are kept.
#[derive(Debug)]
pub(super) struct Places {
    /// Blocks of the file.
    blocks: u64,
    /// Behind the newest record.
    next: u64,
    by_position: BTreeMap<u64, Place>,
    /// The same, as first block → blocks.
    by_block: BTreeMap<u64, u64>,
}

impl Places {
    /// Of a file of so many blocks.
    pub(super) fn new(blocks: u64) -> Self {
        Self { blocks, next: FIRST, by_position: BTreeMap::new(), by_block: BTreeMap::new() }
    }

    /// Blocks of the file.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// The file has grown to so many blocks.
    pub(super) fn grown(&mut self, blocks: u64) {
        self.blocks = blocks;
    }

    /// A place for a record of so many blocks; none: the file has to grow.
    pub(super) fn find(&self, blocks: u64) -> Option<Place> {
        let next_used = self.by_block.range(self.next..).next().map_or(self.blocks, |(block, _)| *block);
        if self.next + blocks <= next_used {
            return Some(Place { block: self.next, blocks });
        }
        let mut free = FIRST;
        for (block, used) in &self.by_block {
            if free + blocks <= *block {
                return Some(Place { block: free, blocks });
            }
            free = block + used;
        }
        (free + blocks <= self.blocks).then_some(Place { block: free, blocks })
    }

    /// The first block behind all records: where the file grows from there is room for one that found no place.
    pub(super) fn end(&self) -> u64 {
        self.by_block.last_key_value().map_or(FIRST, |(block, used)| block + used)
    }

    /// A record lies there from now on.
    pub(super) fn insert(&mut self, position: u64, place: Place) {
        self.next = place.end();
        self.by_position.insert(position, place);
        self.by_block.insert(place.block, place.blocks);
    }

    /// The next record goes behind the newest.
    pub(super) fn go_on(&mut self) {
        self.next = self.by_position.last_key_value().map_or(FIRST, |(_, place)| place.end());
    }

    /// Lets go of the records below a position; how many there were.
    pub(super) fn trim(&mut self, below: u64) -> usize {
        if self.by_position.first_key_value().is_none_or(|(position, _)| *position >= below) {
            return 0;
        }
        let kept = self.by_position.split_off(&below);
        let trimmed = std::mem::replace(&mut self.by_position, kept);
        trimmed.values().for_each(|place| _ = self.by_block.remove(&place.block));
        trimmed.len()
    }

    /// The position of the newest record; 0: there is none.
    pub(super) fn last(&self) -> u64 {
        self.by_position.last_key_value().map_or(0, |(position, _)| *position)
    }

    /// The first position behind this one that is missing before the last.
    pub(super) fn gap_after(&self, position: u64) -> Option<u64> {
        let found = self.by_position.range(position + 1..).map(|(position, _)| *position);
        (position + 1..).zip(found).find(|(expected, found)| expected != found).map(|(expected, _)| expected)
    }

    /// The records behind a position, in order.
    pub(super) fn after(&self, position: u64) -> impl Iterator<Item = (u64, Place)> {
        self.by_position.range(position + 1..).map(|(position, place)| (*position, *place))
    }

    /// How many records are kept.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.by_position.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn blocks_are_used_in_turn_and_over_again() {
        let mut places = Places::new(10);
        for position in 1..=4 {
            let place = places.find(2).unwrap();
            assert_eq!(place.block, FIRST + 2 * (position - 1));
            places.insert(position, place);
        }
        assert_eq!(places.find(2), None, "one block is left");
        assert_eq!(places.trim(3), 2);
        assert_eq!(places.find(1).unwrap().block, 9, "in turn");
        assert_eq!(places.find(4).unwrap().block, FIRST, "from the start");
        assert_eq!(places.find(5), None);
        assert_eq!((places.last(), places.gap_after(2), places.end()), (4, None, 9));
    }

    #[test]
    fn a_missing_position_is_found() {
        let mut places = Places::new(100);
        for position in [5, 6, 8] {
            places.insert(position, Place { block: position, blocks: 1 });
        }
        assert_eq!((places.gap_after(5), places.gap_after(7), places.gap_after(3)), (Some(7), None, Some(4)));
    }

    proptest! {
        #[test]
        fn no_record_lies_on_another(steps in prop::collection::vec((1_u64..6, prop::bool::weighted(0.3)), 0..60)) {
            let mut places = Places::new(16);
            let (mut position, mut kept) = (0, 0);
            for (blocks, trims) in steps {
                if trims {
                    kept = kept.max(position / 2);
                    places.trim(kept);
                }
                let place = places.find(blocks).unwrap_or_else(|| {
                    let end = places.end();
                    places.grown(end.max(places.blocks()) + blocks);
                    places.find(blocks).unwrap()
                });
                prop_assert!(place.block >= FIRST && place.end() <= places.blocks());
                for other in places.by_position.values() {
                    prop_assert!(place.end() <= other.block || other.end() <= place.block, "{:?} {:?}", place, other);
                }
                position += 1;
                places.insert(position, place);
            }
        }
    }
}
