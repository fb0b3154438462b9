//! State held in memory: what one attempt finds. There is one scope, that of its message.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use pelton_core::effects::{Scope, Space, StateValue, WriteSet};
use pelton_core::transaction::{ReadError, StateView};

/// The entries of one scope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    entries: BTreeMap<(Space, Box<str>), StateValue>,
}

impl Memory {
    pub(super) fn set(&mut self, key: &str, value: StateValue) {
        self.entries.insert((Space::User, key.into()), value);
    }

    /// Marks a business id, for good.
    pub(super) fn mark(&mut self, id: &str) {
        let value = StateValue { bytes: Bytes::new(), expires_at_ms: None };
        self.entries.insert((Space::Mark, id.into()), value);
    }

    pub(super) fn apply(&mut self, writes: &WriteSet) {
        for write in &writes.state {
            let place = (write.space, write.key.clone());
            match &write.value {
                Some(value) => _ = self.entries.insert(place, value.clone()),
                None => _ = self.entries.remove(&place),
            }
        }
    }

    /// The entries of a space that can be read at this time, in the order of their keys.
    pub(super) fn live(&self, space: Space, now_ms: u64) -> impl Iterator<Item = (&str, &StateValue)> {
        let entries = self.entries.iter().filter(move |((known, _), value)| *known == space && value.is_live(now_ms));
        entries.map(|((_, key), value)| (key.as_ref(), value))
    }
}

impl StateView for Memory {
    fn get(&self, _: &Scope, space: Space, key: &str, now_ms: u64) -> Result<Option<Bytes>, ReadError> {
        let value = self.entries.get(&(space, key.into())).filter(|value| value.is_live(now_ms));
        Ok(value.map(|value| value.bytes.clone()))
    }

    fn range(
        &self,
        _: &Scope,
        prefix: &str,
        from: Bound<&str>,
        limit: usize,
        now_ms: u64,
    ) -> Result<Vec<(Box<str>, Bytes)>, ReadError> {
        let behind = |key: &str| match from {
            Bound::Unbounded => true,
            Bound::Included(from) => key >= from,
            Bound::Excluded(from) => key > from,
        };
        let entries = self.live(Space::User, now_ms).filter(|(key, _)| key.starts_with(prefix) && behind(key));
        Ok(entries.take(limit).map(|(key, value)| (key.into(), value.bytes.clone())).collect())
    }
}
