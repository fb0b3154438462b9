//! Spans that have begun and wait for their end, of which there are never more than so many.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// Most of them. What waits longest is dropped first: its end may never come.
const PENDING_MAX: usize = 16_384;

/// What waits, by a key of its own.
pub(super) struct Pending<K, V> {
    waiting: Mutex<Waiting<K, V>>,
    /// How many there are, to be asked without the lock.
    count: AtomicUsize,
}

struct Waiting<K, V> {
    by_key: BTreeMap<K, (u64, V)>,
    by_age: BTreeMap<u64, K>,
    next: u64,
}

impl<K, V> Default for Pending<K, V> {
    fn default() -> Self {
        let waiting = Waiting { by_key: BTreeMap::new(), by_age: BTreeMap::new(), next: 0 };
        Self { waiting: Mutex::new(waiting), count: AtomicUsize::new(0) }
    }
}

impl<K: Ord + Clone, V> Pending<K, V> {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Something begins, in place of what had its key. Gives back how many were dropped for it.
    pub(super) fn insert(&self, key: K, value: V) -> usize {
        self.put(key, value, true)
    }

    /// The same, but what had its key stays.
    pub(super) fn insert_first(&self, key: K, value: V) -> usize {
        self.put(key, value, false)
    }

    fn put(&self, key: K, value: V, replace: bool) -> usize {
        let mut waiting = self.waiting.lock();
        if !replace && waiting.by_key.contains_key(&key) {
            return 0;
        }
        let mut dropped = usize::from(waiting.remove(&key).is_some());
        while waiting.by_key.len() >= PENDING_MAX {
            let Some((_, oldest)) = waiting.by_age.pop_first() else { break };
            waiting.by_key.remove(&oldest);
            dropped += 1;
        }
        let age = waiting.next;
        waiting.next += 1;
        waiting.by_age.insert(age, key.clone());
        waiting.by_key.insert(key, (age, value));
        self.count.store(waiting.by_key.len(), Ordering::Release);
        dropped
    }

    /// It has come to its end.
    pub(super) fn remove(&self, key: &K) -> Option<V> {
        let mut waiting = self.waiting.lock();
        let removed = waiting.remove(key);
        self.count.store(waiting.by_key.len(), Ordering::Release);
        removed
    }
}

impl<K: Ord, V> Waiting<K, V> {
    fn remove(&mut self, key: &K) -> Option<V> {
        let (age, value) = self.by_key.remove(key)?;
        self.by_age.remove(&age);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_longest_makes_room() {
        let pending = Pending::default();
        let dropped: usize = (0..PENDING_MAX + 10).map(|key| pending.insert(key, key)).sum();
        assert_eq!((dropped, pending.remove(&9), pending.remove(&10)), (10, None, Some(10)));
        assert_eq!(pending.waiting.lock().by_age.len(), PENDING_MAX - 1);
    }

    #[test]
    fn what_begins_again_is_replaced_or_kept_as_is_asked() {
        let pending = Pending::default();
        assert!(pending.is_empty());
        pending.insert("a", 1);
        assert_eq!((pending.insert("a", 2), pending.insert_first("a", 3)), (1, 0));
        assert_eq!(pending.remove(&"a"), Some(2));
        assert!(pending.is_empty());
    }
}
