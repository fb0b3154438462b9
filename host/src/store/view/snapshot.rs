//! What readers see of the view: all tables as one checkpoint left them.

use std::collections::BTreeMap;
use std::ops::Bound;

use pelton_core::effects::{Scope, Space, StateValue};
use pelton_core::ids::{ConsumerId, IdHash};
use redb::{Database, ReadTransaction, ReadableDatabase};

use super::dead_letters::DeadLetters;
use super::ids::ProcessedIds;
use super::meta::Meta;
use super::parked::ParkedRows;
use super::state::{Entry as StateEntry, State};
use super::{Consumer, consumers, outbox};
use crate::store::OutboxRow;
use crate::store::error::StoreFailure;

/// The tables are opened once for each checkpoint, not for each read. The transaction behind them keeps its pages from being used anew.
pub(in crate::store) struct Snapshot {
    transaction: ReadTransaction,
    state: State,
    ids: ProcessedIds,
    dead_letters: DeadLetters,
    parked: ParkedRows,
}

impl Snapshot {
    /// The first of a view: as it is now. Filters of processed ids may have so much memory.
    pub(in crate::store) fn open(view: &Database, meta: &Meta, filter_bytes_max: usize) -> Result<Self, StoreFailure> {
        Self::with(view, meta, &ProcessedIds::none(filter_bytes_max))
    }

    /// The view as it is now; what this one knows needn't be found out again.
    pub(in crate::store) fn renewed(&self, view: &Database, meta: &Meta) -> Result<Self, StoreFailure> {
        Self::with(view, meta, &self.ids)
    }

    fn with(view: &Database, meta: &Meta, ids: &ProcessedIds) -> Result<Self, StoreFailure> {
        let transaction = view.begin_read()?;
        Ok(Self {
            state: State::open(&transaction)?,
            ids: ids.renewed(&transaction, meta.generation)?,
            dead_letters: DeadLetters::open(&transaction)?,
            parked: ParkedRows::open(&transaction)?,
            transaction,
        })
    }

    pub(in crate::store) fn get(
        &self,
        scope: &Scope,
        space: Space,
        key: &str,
    ) -> Result<Option<StateValue>, StoreFailure> {
        self.state.get(scope, space, key)
    }

    pub(in crate::store) fn range(
        &self,
        scope: &Scope,
        prefix: &str,
        from: Bound<&str>,
        visit: impl FnMut(&str, Option<u64>, &[u8]) -> bool,
    ) -> Result<(), StoreFailure> {
        self.state.range(scope, prefix, from, visit)
    }

    pub(in crate::store) fn all_state(
        &self,
        consumer: ConsumerId,
        after: Option<(Option<&str>, &str)>,
        limit: usize,
    ) -> Result<Vec<StateEntry>, StoreFailure> {
        self.state.all(consumer, after, limit)
    }

    pub(in crate::store) fn contains_mark(&self, consumer: ConsumerId, mark: IdHash) -> Result<bool, StoreFailure> {
        self.ids.contains(consumer, mark)
    }

    pub(in crate::store) fn dead_letters(&self) -> &DeadLetters {
        &self.dead_letters
    }

    pub(in crate::store) fn parked(&self) -> &ParkedRows {
        &self.parked
    }

    pub(in crate::store) fn count_dead_letters(&self) -> Result<BTreeMap<ConsumerId, u64>, StoreFailure> {
        self.dead_letters.count()
    }

    pub(in crate::store) fn consumers(&self) -> Result<BTreeMap<ConsumerId, Consumer>, StoreFailure> {
        consumers::load(&self.transaction)
    }

    pub(in crate::store) fn outbox(&self) -> Result<Vec<OutboxRow>, StoreFailure> {
        outbox::load(&self.transaction)
    }

    pub(in crate::store) fn next_expiry_ms(&self) -> Result<Option<u64>, StoreFailure> {
        self.state.next_expiry_ms()
    }
}
