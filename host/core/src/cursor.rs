//! Which sequences of a stream are settled: all up to a floor, and some ranges above it.

use std::collections::BTreeMap;

/// Per consumer and stream: the sequence up to which everything is settled, and the settled ones above it.
///
/// Takes memory for the gaps, not for the sequences: neighbours are one range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    floor: u64,
    /// First sequence → last sequence of each settled range above the floor; disjoint and not adjacent.
    above: BTreeMap<u64, u64>,
}

impl Cursor {
    /// A cursor for which everything up to `floor` is settled.
    #[must_use]
    pub fn at(floor: u64) -> Self {
        Self { floor, above: BTreeMap::new() }
    }

    /// The sequence up to which everything is settled.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// The settled ranges above the floor, first and last sequence of each, in order.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.above.iter().map(|(first, last)| (*first, *last))
    }

    /// Whether this sequence is settled.
    #[must_use]
    pub fn contains(&self, sequence: u64) -> bool {
        sequence <= self.floor || self.above.range(..=sequence).next_back().is_some_and(|(_, last)| sequence <= *last)
    }

    /// Whether all sequences from `first` to `last` are settled.
    #[must_use]
    pub fn contains_range(&self, first: u64, last: u64) -> bool {
        let from = first.max(self.floor + 1);
        last < from || self.above.range(..=from).next_back().is_some_and(|(_, end)| last <= *end)
    }

    /// The highest sequence that is settled.
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.above.last_key_value().map_or(self.floor, |(_, last)| *last)
    }

    /// Settles one sequence.
    pub fn settle(&mut self, sequence: u64) {
        self.settle_range(sequence, sequence);
    }

    /// Settles all sequences from `first` to `last`.
    pub fn settle_range(&mut self, first: u64, last: u64) {
        if last < first || last <= self.floor {
            return;
        }
        let (mut first, mut last) = (first.max(self.floor + 1), last);
        if let Some((known, end)) = self.above.range(..=first).next_back().map(|(a, b)| (*a, *b))
            && end + 1 >= first
        {
            first = known;
            last = last.max(end);
        }
        while let Some((known, end)) = self.above.range(first..=last.saturating_add(1)).next().map(|(a, b)| (*a, *b)) {
            self.above.remove(&known);
            last = last.max(end);
        }
        if first == self.floor + 1 {
            self.floor = last;
        } else {
            self.above.insert(first, last);
        }
    }

    /// Settles everything up to `floor`.
    pub fn raise_floor(&mut self, floor: u64) {
        if floor > self.floor {
            self.settle_range(self.floor + 1, floor);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_plain_set(floor in 0_u64..5, steps in prop::collection::vec((1_u64..40, 0_u64..4, any::<bool>()), 0..60)) {
            let mut cursor = Cursor::at(floor);
            let mut model: BTreeSet<u64> = (0..=floor).collect();
            for (first, length, raise) in steps {
                if raise {
                    cursor.raise_floor(first);
                    model.extend(0..=first);
                } else {
                    cursor.settle_range(first, first + length);
                    model.extend(first..=first + length);
                }
                for sequence in 0..50 {
                    prop_assert_eq!(cursor.contains(sequence), model.contains(&sequence), "sequence {}", sequence);
                    let all = (first..=sequence).all(|sequence| model.contains(&sequence));
                    prop_assert_eq!(cursor.contains_range(first, sequence), all, "{}..={}", first, sequence);
                }
                let model_floor = (0..).find(|s| !model.contains(&(s + 1))).unwrap_or(0);
                prop_assert_eq!(cursor.floor(), model_floor);
                prop_assert_eq!(Some(&cursor.highest()), model.last());
                let ranges: Vec<_> = cursor.ranges().collect();
                prop_assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "ranges touch: {:?}", ranges);
            }
        }
    }
}
