//! Rows that wait for their acknowledgement, and when each has waited too long.

use std::collections::VecDeque;
use std::sync::Arc;

use pelton_core::effects::Event;
use pelton_core::ids::RowId;
use rustc_hash::FxHashMap;
use tokio::time::Instant;

/// Rows under way on one session.
#[derive(Default)]
pub(super) struct InFlight {
    /// The event of each, and the number of its latest try.
    waiting: FxHashMap<RowId, (Arc<Event>, u64)>,
    /// What was tried, in the order of publishing, which is that of the deadlines and of the numbers. None: that try is over. The first is not.
    tries: VecDeque<(Instant, Option<RowId>)>,
    /// The number of the first.
    first: u64,
}

impl InFlight {
    pub(super) fn insert(&mut self, row: RowId, event: Arc<Event>, deadline: Instant) {
        let number = self.first + self.tries.len() as u64;
        self.tries.push_back((deadline, Some(row)));
        if let Some((_, before)) = self.waiting.insert(row, (event, number)) {
            self.end(before);
        }
    }

    /// The row's event, if it was under way.
    pub(super) fn remove(&mut self, row: RowId) -> Option<Arc<Event>> {
        let (event, number) = self.waiting.remove(&row)?;
        self.end(number);
        Some(event)
    }

    fn end(&mut self, number: u64) {
        let place = usize::try_from(number - self.first).ok();
        if let Some((_, row)) = place.and_then(|place| self.tries.get_mut(place)) {
            *row = None;
        }
        while let Some((_, None)) = self.tries.front() {
            self.tries.pop_front();
            self.first += 1;
        }
    }

    /// When the oldest has waited too long.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.tries.front().map(|(deadline, _)| *deadline)
    }

    /// Lets go of those that have waited too long, oldest first.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<RowId> {
        let mut expired = Vec::new();
        while let Some((deadline, Some(row))) = self.tries.front().copied()
            && deadline <= now
        {
            expired.push(row);
            self.remove(row);
        }
        expired
    }

    /// Lets go of all, oldest first.
    pub(super) fn drain(&mut self) -> Vec<RowId> {
        std::mem::take(self).tries.into_iter().filter_map(|(_, row)| row).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn event() -> Arc<Event> {
        let (id, subject, payload) = ("id".into(), "s".into(), "x".into());
        Arc::new(Event { id, subject, key: None, headers: Vec::new(), payload })
    }

    #[test]
    fn rows_expire_in_order_and_answered_ones_never() {
        let mut rows = InFlight::default();
        let start = Instant::now();
        for n in 1..=4 {
            rows.insert(RowId(n), event(), start + Duration::from_secs(n));
        }
        assert!(rows.remove(RowId(1)).is_some() && rows.remove(RowId(3)).is_some());
        assert!(rows.remove(RowId(3)).is_none());
        assert_eq!(rows.next_deadline(), Some(start + Duration::from_secs(2)));
        assert_eq!(rows.expired(start + Duration::from_secs(3)), [RowId(2)]);
        rows.insert(RowId(4), event(), start + Duration::from_secs(9));
        rows.insert(RowId(5), event(), start + Duration::from_secs(9));
        assert_eq!(rows.drain(), [RowId(4), RowId(5)], "the second try of a row counts");
        assert_eq!(rows.next_deadline(), None);
    }
    #[test]
    fn what_is_answered_out_of_order_leaves_the_deadlines_of_the_rest() {
        let mut rows = InFlight::default();
        let start = Instant::now();
        let at = |n| start + Duration::from_secs(n);
        for n in 0..100 {
            rows.insert(RowId(n), event(), at(n));
        }
        (0..100).rev().filter(|n| n % 10 != 3).for_each(|n| assert!(rows.remove(RowId(n)).is_some()));
        assert_eq!(rows.next_deadline(), Some(at(3)));
        rows.insert(RowId(3), event(), at(200));
        assert_eq!((rows.next_deadline(), rows.expired(at(30))), (Some(at(13)), vec![RowId(13), RowId(23)]));
        let left: Vec<RowId> = (33..100).step_by(10).chain([3]).map(RowId).collect();
        assert_eq!(rows.drain(), left);
        assert!(rows.remove(RowId(3)).is_none() && rows.next_deadline().is_none());
    }
}
