//! How old a consumer's oldest committed event is that JetStream has not acknowledged.
//!
//! Rows that were committed at about the same time share a mark, so there are as many marks as moments from which an event still waits, and none when
//! none does.

use std::collections::BTreeMap;

use crate::ids::RowId;

/// Rows committed within this time share a mark, in milliseconds.
const STEP_MS: u64 = 100;

#[derive(Clone, Copy, Debug)]
struct Mark {
    tick_ms: u64,
    rows: usize,
}

/// When rows were committed that wait, by the first row of each mark.
#[derive(Debug, Default)]
pub(crate) struct Ages {
    marks: BTreeMap<RowId, Mark>,
}

impl Ages {
    /// A row was committed. Rows come in rising order.
    pub(crate) fn begin(&mut self, row: RowId, tick_ms: u64) {
        if let Some(mut last) = self.marks.last_entry()
            && tick_ms.saturating_sub(last.get().tick_ms) < STEP_MS
        {
            last.get_mut().rows += 1;
        } else {
            self.marks.insert(row, Mark { tick_ms, rows: 1 });
        }
    }

    /// A row was acknowledged, once.
    pub(crate) fn end(&mut self, row: RowId) {
        let Some((first, mark)) = self.marks.range_mut(..=row).next_back() else { return };
        mark.rows = mark.rows.saturating_sub(1);
        if mark.rows == 0 {
            let first = *first;
            self.marks.remove(&first);
        }
    }

    /// For how long the oldest one has waited at `tick_ms`, in milliseconds; none: none waits.
    pub(crate) fn oldest_ms(&self, tick_ms: u64) -> Option<u64> {
        self.marks.first_key_value().map(|(_, mark)| tick_ms.saturating_sub(mark.tick_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_row_that_waits_gives_the_age() {
        let mut ages = Ages::default();
        assert_eq!(ages.oldest_ms(5_000), None);
        for (row, tick_ms) in [(1, 1_000), (2, 1_050), (3, 2_000), (4, 3_000)] {
            ages.begin(RowId(row), tick_ms);
        }
        assert_eq!(ages.oldest_ms(5_000), Some(4_000));
        ages.end(RowId(2));
        ages.end(RowId(3));
        assert_eq!(ages.oldest_ms(5_000), Some(4_000), "row 1 still waits");
        ages.end(RowId(1));
        assert_eq!(ages.oldest_ms(5_000), Some(2_000), "only row 4 is left");
        ages.end(RowId(4));
        assert_eq!(ages.oldest_ms(5_000), None);
        assert!(ages.marks.is_empty());
    }

    #[test]
    fn a_row_that_never_leaves_costs_no_marks_for_those_that_do() {
        let mut ages = Ages::default();
        ages.begin(RowId(0), 0);
        for row in 1..10_000 {
            ages.begin(RowId(row), row * 1_000);
            ages.end(RowId(row));
        }
        assert_eq!((ages.marks.len(), ages.oldest_ms(10_000_000)), (1, Some(10_000_000)));
    }
}
