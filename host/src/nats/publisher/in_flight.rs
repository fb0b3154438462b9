//! Rows that wait for their acknowledgement, and when each has waited too long.

use std::collections::VecDeque;

use pelton_core::ids::RowId;
use rustc_hash::FxHashMap;
use tokio::time::Instant;

struct Waiting {
    subject: Box<str>,
    /// Tells the latest try of a row from those before it.
    attempt: u64,
}

/// Rows under way on one session.
#[derive(Default)]
pub(super) struct InFlight {
    waiting: FxHashMap<RowId, Waiting>,
    /// In the order of publishing, which is that of the deadlines.
    deadlines: VecDeque<(Instant, RowId, u64)>,
    attempts: u64,
}

impl InFlight {
    pub(super) fn insert(&mut self, row: RowId, subject: Box<str>, deadline: Instant) {
        self.attempts += 1;
        self.waiting.insert(row, Waiting { subject, attempt: self.attempts });
        self.deadlines.push_back((deadline, row, self.attempts));
    }

    /// The row's subject, if it was under way.
    pub(super) fn remove(&mut self, row: RowId) -> Option<Box<str>> {
        let subject = self.waiting.remove(&row).map(|waiting| waiting.subject);
        while let Some((_, first, attempt)) = self.deadlines.front()
            && self.waiting.get(first).is_none_or(|waiting| waiting.attempt != *attempt)
        {
            self.deadlines.pop_front();
        }
        subject
    }

    /// When the oldest has waited too long.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.front().map(|(deadline, _, _)| *deadline)
    }

    /// Lets go of those that have waited too long, oldest first.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<RowId> {
        let mut expired = Vec::new();
        while let Some((deadline, row, _)) = self.deadlines.front().copied()
            && deadline <= now
        {
            expired.push(row);
            self.remove(row);
        }
        expired
    }

    /// Lets go of all, oldest first.
    pub(super) fn drain(&mut self) -> Vec<RowId> {
        let Self { waiting, deadlines, .. } = std::mem::take(self);
        let live =
            deadlines.into_iter().filter(|(_, row, attempt)| waiting.get(row).is_some_and(|w| w.attempt == *attempt));
        live.map(|(_, row, _)| row).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn rows_expire_in_order_and_answered_ones_never() {
        let mut rows = InFlight::default();
        let start = Instant::now();
        for n in 1..=4 {
            rows.insert(RowId(n), "s".into(), start + Duration::from_secs(n));
        }
        assert!(rows.remove(RowId(1)).is_some() && rows.remove(RowId(3)).is_some());
        assert!(rows.remove(RowId(3)).is_none());
        assert_eq!(rows.next_deadline(), Some(start + Duration::from_secs(2)));
        assert_eq!(rows.expired(start + Duration::from_secs(3)), [RowId(2)]);
        rows.insert(RowId(4), "s".into(), start + Duration::from_secs(9));
        rows.insert(RowId(5), "s".into(), start + Duration::from_secs(9));
        assert_eq!(rows.drain(), [RowId(4), RowId(5)], "the second try of a row counts");
        assert_eq!(rows.next_deadline(), None);
    }
}
