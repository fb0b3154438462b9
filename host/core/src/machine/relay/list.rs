//! What an operator can see of the outbox: its rows, and the oldest of each consumer.

use std::collections::{BTreeMap, BinaryHeap};

use super::{OrderKey, Relay};
use crate::ids::{ConsumerId, RowId};
use crate::machine::core::Core;
use crate::machine::event::OutboxRow;

/// Where a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboxPlace {
    /// Published, and not answered yet.
    InFlight,
    /// Waits for room in the window.
    Queued,
    /// Waits because its key's last publish was refused, so many times in a row.
    Waiting(u32),
}

/// A row as an operator sees it.
#[derive(Clone, Debug)]
pub struct OutboxItem {
    /// The row.
    pub row: OutboxRow,
    /// Where it is.
    pub place: OutboxPlace,
}

/// Sorts rows by their numbers.
struct ByRow(OutboxItem);

impl PartialEq for ByRow {
    fn eq(&self, other: &Self) -> bool {
        self.0.row.row == other.0.row.row
    }
}

impl Eq for ByRow {}

impl PartialOrd for ByRow {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByRow {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.row.row.cmp(&other.0.row.row)
    }
}

impl Relay {
    fn rows(&self) -> impl Iterator<Item = (&OutboxRow, OutboxPlace)> {
        let refusals = |row: &OutboxRow| {
            let trouble = self.keys.get(&OrderKey::of(row)).and_then(|key| key.trouble.as_ref());
            trouble.map_or(0, |trouble| trouble.refusals)
        };
        let in_flight = self.in_flight.values().map(|row| (row, OutboxPlace::InFlight));
        let ready = self.resumed.values().chain(&self.queue).map(|row| (row, OutboxPlace::Queued));
        let troubled = self.keys.values().filter_map(|key| key.trouble.as_ref());
        let waiting = troubled.flat_map(|trouble| trouble.waiting.values());
        let waiting = waiting.map(move |row| (row, OutboxPlace::Waiting(refusals(row).saturating_add(1))));
        in_flight.chain(ready).chain(waiting)
    }

    /// The first `limit` rows behind `after`, in the order of their numbers.
    fn list(&self, of: Option<ConsumerId>, after: RowId, limit: usize) -> Vec<OutboxItem> {
        let mut lowest = BinaryHeap::new();
        let wanted = |row: &OutboxRow| row.row > after && of.is_none_or(|of| row.consumer == of);
        for (row, place) in self.rows().filter(|(row, _)| wanted(row)) {
            let highest = lowest.peek().map(|ByRow(item): &ByRow| item.row.row);
            if lowest.len() < limit || highest.is_some_and(|highest| row.row < highest) {
                lowest.push(ByRow(OutboxItem { row: row.clone(), place }));
            }
            if lowest.len() > limit {
                lowest.pop();
            }
        }
        lowest.into_sorted_vec().into_iter().map(|ByRow(item)| item).collect()
    }

    /// When the oldest row of each consumer was committed: milliseconds since 1970-01-01 UTC.
    pub(crate) fn oldest(&self) -> BTreeMap<ConsumerId, u64> {
        let mut oldest: BTreeMap<ConsumerId, u64> = BTreeMap::new();
        for (row, _) in self.rows() {
            let known = oldest.entry(row.consumer).or_insert(row.since_ms);
            *known = row.since_ms.min(*known);
        }
        oldest
    }
}

impl Core {
    /// Events that were committed and are not known to be published: the first `limit` behind row `after`, of one consumer or of all.
    #[must_use]
    pub fn outbox(&self, of: Option<ConsumerId>, after: RowId, limit: usize) -> Vec<OutboxItem> {
        self.relay.list(of, after, limit)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::effects::Event;

    fn row(id: u64, consumer: u32, key: Option<&str>) -> OutboxRow {
        let event = Event {
            id: id.to_string().into(),
            subject: "out".into(),
            key: key.map(Arc::from),
            headers: Vec::new(),
            payload: bytes::Bytes::new(),
        };
        OutboxRow { row: RowId(id), consumer: ConsumerId(consumer), event: Arc::new(event), since_ms: 100 + id }
    }

    #[test]
    fn rows_are_listed_in_order_wherever_they_are() {
        let mut relay = Relay::new(2);
        for row in [row(1, 1, Some("a")), row(2, 1, Some("a")), row(3, 2, None), row(4, 1, None)] {
            relay.push(row);
        }
        while relay.next().is_some() {}
        relay.refused(RowId(1)).unwrap();
        let told = |after, limit| {
            let listed = relay.list(None, RowId(after), limit);
            listed.iter().map(|item| (item.row.row.0, item.place)).collect::<Vec<_>>()
        };
        use OutboxPlace::{InFlight, Queued, Waiting};
        assert_eq!(told(0, 9), [(1, Waiting(1)), (2, InFlight), (3, Queued), (4, Queued)]);
        assert_eq!(told(0, 2), [(1, Waiting(1)), (2, InFlight)]);
        assert_eq!(told(2, 1), [(3, Queued)]);
        let of_one: Vec<u64> = relay.list(Some(ConsumerId(2)), RowId(0), 9).iter().map(|item| item.row.row.0).collect();
        assert_eq!(of_one, [3]);
        assert_eq!(relay.oldest(), BTreeMap::from([(ConsumerId(1), 101), (ConsumerId(2), 103)]));
    }
}
