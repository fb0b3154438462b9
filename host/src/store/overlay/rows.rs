//! Rows of which the newest is told to the overlay, one note each: the row as it is now, or that it is gone.

use std::collections::BTreeMap;
use std::ops::Bound;

use parking_lot::Mutex;

use super::{Bytes, Entry};

/// Newest rows by key. A note of a row is folded like a write of a state entry: the count of an entry is that of its notes which the view doesn't hold yet.
pub(in crate::store) struct Rows<K, V> {
    entries: Mutex<BTreeMap<K, Entry<Option<V>>>>,
    /// The memory of a key and of what is known of it, in bytes.
    weight: fn(&K, Option<&V>) -> usize,
}

/// Rows of the overlay in a range.
pub(in crate::store) struct Page<K, V> {
    /// Keys in order, with their row; none: it is gone.
    pub(in crate::store) entries: Vec<(K, Option<V>)>,
    /// Whether these are all that the range has.
    pub(in crate::store) complete: bool,
}

impl<K: Clone + Ord, V: Clone> Rows<K, V> {
    pub(super) fn new(weight: fn(&K, Option<&V>) -> usize) -> Self {
        Self { entries: Mutex::default(), weight }
    }

    /// This is the row now; none: it is gone.
    pub(super) fn note(&self, key: K, newest: Option<V>, bytes: &Bytes) {
        let weight = (self.weight)(&key, newest.as_ref());
        let mut entries = self.entries.lock();
        // Counted under the lock, so that what is forgotten was counted before.
        bytes.grow(weight);
        let unfolded = entries.get(&key).map_or(0, |known| known.unfolded) + 1;
        if let Some(replaced) = entries.insert(key.clone(), Entry { newest, unfolded }) {
            bytes.shrink((self.weight)(&key, replaced.newest.as_ref()));
        }
    }

    /// Takes `folded` notes of a row from what the view doesn't hold. Whether the row is forgotten thereby.
    pub(super) fn forget(&self, key: &K, folded: u32, bytes: &Bytes) -> bool {
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(key) else { return false };
        entry.unfolded = entry.unfolded.saturating_sub(folded);
        let forgotten = entry.unfolded == 0;
        if forgotten && let Some(entry) = entries.remove(key) {
            bytes.shrink((self.weight)(key, entry.newest.as_ref()));
        }
        forgotten
    }

    /// What is known of one row: the outer none says nothing, the inner that it is gone.
    pub(in crate::store) fn get(&self, key: &K) -> Option<Option<V>> {
        self.entries.lock().get(key).map(|entry| entry.newest.clone())
    }

    /// What is known from `from` on while `belongs` says so, at most `limit` rows.
    pub(in crate::store) fn page(&self, from: Bound<&K>, belongs: impl Fn(&K) -> bool, limit: usize) -> Page<K, V> {
        let entries = self.entries.lock();
        let mut matching = entries.range((from, Bound::Unbounded)).take_while(|(key, _)| belongs(key));
        let found = matching.by_ref().take(limit).map(|(key, entry)| (key.clone(), entry.newest.clone())).collect();
        Page { entries: found, complete: matching.next().is_none() }
    }

    /// The first key from `from` on.
    pub(in crate::store) fn next_key(&self, from: &K) -> Option<K> {
        self.entries.lock().range(from..).next().map(|(key, _)| key.clone())
    }
}
