//! The one function that changes the view.

use std::collections::BTreeMap;

use pelton_core::ids::ConsumerId;
use redb::Database;

use super::{Consumer, Meta, consumers, dead_letters, ids, outbox, parked, state};
use crate::store::error::StoreFailure;
use crate::store::files::begin;
use crate::store::fold::Changes;

/// Makes the tables of a new view.
pub(in crate::store) fn create(view: &Database, meta: &Meta) -> Result<(), StoreFailure> {
    let transaction = begin(view)?;
    consumers::create(&transaction)?;
    state::write(&transaction, &[])?;
    outbox::write(&transaction, &Default::default())?;
    dead_letters::write(&transaction, &[])?;
    parked::write(&transaction, &[])?;
    meta.save(&transaction)?;
    transaction.commit()?;
    Ok(())
}

/// Writes net changes in one transaction, and lets go what is over: state by `expire_ms`, processed ids by their generation.
pub(in crate::store) fn write(
    view: &Database,
    changes: &Changes<'_>,
    all_consumers: &BTreeMap<ConsumerId, Consumer>,
    meta: &mut Meta,
    limits: Expiry,
) -> Result<usize, StoreFailure> {
    let transaction = begin(view)?;
    consumers::save(&transaction, all_consumers, changes.consumers.iter().copied())?;
    state::write(&transaction, &changes.state)?;
    if ids::step_generation(meta, limits.processed_ids_ms) {
        ids::expire(&transaction, meta.generation)?;
    }
    ids::insert(&transaction, meta.generation, &changes.marks)?;
    outbox::write(&transaction, &changes.outbox)?;
    dead_letters::write(&transaction, &changes.dead_letters)?;
    parked::write(&transaction, &changes.parked)?;
    // What the records wrote of them before they were forgotten goes as well.
    for consumer in changes.forgotten.iter().copied() {
        consumers::forget(&transaction, consumer)?;
        state::forget(&transaction, consumer)?;
        ids::forget(&transaction, consumer)?;
        dead_letters::forget(&transaction, consumer)?;
        parked::forget(&transaction, consumer)?;
    }
    let expired = state::expire(&transaction, limits.state_until_ms)?;
    meta.save(&transaction)?;
    transaction.commit()?;
    Ok(expired)
}

/// What is over.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Expiry {
    /// State entries up to this time: milliseconds since 1970-01-01 UTC.
    pub(in crate::store) state_until_ms: u64,
    /// How long processed ids are kept, in milliseconds of running time.
    pub(in crate::store) processed_ids_ms: u64,
}
