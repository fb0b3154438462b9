//! All of a consumer's state entries that the overlay has, for an operator's listing.

use std::collections::BTreeMap;
use std::ops::Bound;

use pelton_core::effects::StateValue;
use pelton_core::ids::ConsumerId;

use super::Overlay;
use crate::store::reader::StatePlace;

impl Overlay {
    /// The first `limit` entries behind `after`, none for those that are deleted; and the last of them if there are more.
    pub(in crate::store) fn all_state(
        &self,
        consumer: ConsumerId,
        after: Option<&StatePlace>,
        limit: usize,
    ) -> (BTreeMap<StatePlace, Option<StateValue>>, Option<StatePlace>) {
        let mut lowest = BTreeMap::new();
        let mut more = false;
        for shard in &self.scopes {
            let scopes = shard.lock();
            for (scope, entries) in scopes.iter().filter(|(scope, _)| scope.consumer == consumer) {
                for (key, entry) in entries.user.range(Bound::Unbounded) {
                    let place = StatePlace::new(scope.key.as_deref(), key);
                    if after.is_some_and(|after| place <= *after) {
                        continue;
                    }
                    lowest.insert(place, entry.newest.clone());
                    if lowest.len() > limit {
                        lowest.pop_last();
                        more = true;
                    }
                }
            }
        }
        let end = if more { lowest.last_key_value().map(|(place, _)| place.clone()) } else { None };
        (lowest, end)
    }
}
