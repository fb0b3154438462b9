//! The state of a consumer as an operator lists it: all keys, in pages, the overlay's entries over the view's.

use std::collections::BTreeMap;
use std::sync::Arc;

use pelton_core::effects::{Scope, StateValue};
use pelton_core::ids::ConsumerId;
use pelton_core::transaction::ReadError;

use super::Reader;
use crate::store::view::StateEntry;

/// An entry of a consumer's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredState {
    /// Where it stands.
    pub place: StatePlace,
    /// What it holds.
    pub value: StateValue,
}

/// Where an entry stands among those of its consumer. Sorts as the view does: shared state first, then by the key's length, the key and the entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StatePlace {
    scope: Option<(usize, Box<str>)>,
    entry: Box<str>,
}

impl StatePlace {
    /// The entry of this ordering key; none: of what all keys share.
    #[must_use]
    pub fn new(key: Option<&str>, entry: &str) -> Self {
        Self { scope: key.map(|key| (key.len(), key.into())), entry: entry.into() }
    }

    /// The ordering key; none: all keys share it.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.scope.as_ref().map(|(_, key)| key.as_ref())
    }

    /// The entry's own key.
    #[must_use]
    pub fn entry(&self) -> &str {
        &self.entry
    }
}

/// A page of state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatePage {
    /// In the order of their places; may be empty although there are more.
    pub entries: Vec<StoredState>,
    /// Where the next page begins: behind this; none: there are no more.
    pub next: Option<StatePlace>,
}

impl Reader {
    /// The entries that plug-ins set, of all keys of a consumer or of one, behind `after`: at most `limit` of them. What is over by `now_ms` is left out.
    ///
    /// # Errors
    /// [`ReadError`] if the view can't be read.
    pub fn all_state(
        &self,
        consumer: ConsumerId,
        after: Option<&StatePlace>,
        limit: usize,
        now_ms: u64,
    ) -> Result<StatePage, ReadError> {
        let limit = limit.max(1);
        // The overlay first, as always: what it forgets meanwhile is in the snapshot that is loaded after.
        let (newest, newest_end) = self.overlay.all_state(consumer, after, limit);
        let from = after.map(|after| (after.key(), after.entry()));
        let stored = self.snapshot().all_state(consumer, from, limit)?;
        let place = |entry: &StateEntry| StatePlace::new(entry.scope_key.as_deref(), &entry.key);
        let stored_end = if stored.len() == limit { stored.last().map(place) } else { None };
        // Up to here both are known.
        let end = newest_end.into_iter().chain(stored_end).min();
        let mut merged: BTreeMap<StatePlace, Option<StateValue>> =
            stored.into_iter().map(|entry| (place(&entry), Some(entry.value))).collect();
        merged.extend(newest);
        let within = |place: &StatePlace| end.as_ref().is_none_or(|end| place <= end);
        let mut page = StatePage { entries: Vec::new(), next: end.clone() };
        for (place, value) in merged.into_iter().filter(|(place, _)| within(place)) {
            let Some(value) = value.filter(|value| value.is_live(now_ms)) else { continue };
            if page.entries.len() == limit {
                page.next = page.entries.last().map(|last: &StoredState| last.place.clone());
                break;
            }
            page.entries.push(StoredState { place, value });
        }
        Ok(page)
    }

    /// An entry with the time at which it is over.
    ///
    /// # Errors
    /// [`ReadError`] if the view can't be read.
    pub fn state_entry(
        &self,
        consumer: ConsumerId,
        place: &StatePlace,
        now_ms: u64,
    ) -> Result<Option<StateValue>, ReadError> {
        let scope = Scope { consumer, key: place.key().map(Arc::from) };
        let space = pelton_core::effects::Space::User;
        let value = match self.overlay.get(&scope, space, place.entry()) {
            Some(newest) => newest,
            None => self.snapshot().get(&scope, space, place.entry())?,
        };
        Ok(value.filter(|value| value.is_live(now_ms)))
    }
}
