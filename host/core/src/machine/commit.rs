//! The open batch: outcomes that wait for the next commit, in the order in which they came.

use std::collections::VecDeque;

use crate::batch::{Binding, Settlement};
use crate::ids::RowId;

/// Outcomes of one record, at most.
const SETTLEMENTS_MAX: usize = 8_192;
/// Effects of one record, in bytes, at most (one outcome may pass it).
const BYTES_MAX: usize = 8 << 20;
/// Acknowledged rows that are worth a commit of their own.
const PUBLISHED_WORTH_A_COMMIT: usize = 16_384;

/// Effects that may wait for the commit, in bytes: at them no further run begins (those that are out may pass it).
const OPEN_BYTES_MAX: usize = 64 << 20;

/// What waits for the next commit.
#[derive(Debug, Default)]
pub(crate) struct OpenBatch {
    pub(crate) bindings: Vec<Binding>,
    settlements: VecDeque<(Settlement, usize)>,
    bytes: usize,
    pub(crate) published: Vec<RowId>,
}

impl OpenBatch {
    /// Appends an outcome whose effects take `bytes`.
    pub(crate) fn push(&mut self, settlement: Settlement, bytes: usize) {
        self.bytes += bytes;
        self.settlements.push_back((settlement, bytes));
    }

    /// Whether a commit should begin now. `flush` asks for one even if only acknowledged rows would be in it.
    pub(crate) fn is_due(&self, flush: bool) -> bool {
        !self.bindings.is_empty()
            || !self.settlements.is_empty()
            || self.published.len() >= PUBLISHED_WORTH_A_COMMIT
            || (flush && !self.published.is_empty())
    }

    /// Whether so much waits that nothing more should be begun: the disk does not keep up.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= OPEN_BYTES_MAX
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.is_due(true)
    }

    /// Takes the outcomes of the next record: all of them, within its limits.
    pub(crate) fn take_settlements(&mut self) -> Vec<Settlement> {
        let mut bytes = 0;
        let mut count = 0;
        for (_, weight) in self.settlements.iter().take(SETTLEMENTS_MAX) {
            bytes += weight;
            count += 1;
            if bytes >= BYTES_MAX {
                break;
            }
        }
        self.bytes -= bytes;
        self.settlements.drain(..count).map(|(settlement, _)| settlement).collect()
    }
}
