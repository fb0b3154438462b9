//! How many messages may come, and the pull requests that say so to the server.
//!
//! The total is exact: it rises with each request, falls with each delivery and with what the server says that an ended request left. Which of several
//! open requests a delivery belongs to can't be told, so their single counts are estimates, kept only to limit how many requests are open.

use std::collections::VecDeque;

/// Requests that are open at one time: one that waits, and one with credit that came later.
const OPEN_MAX: usize = 2;
/// Messages on the way at one time, well below where the client drops.
const OUTSTANDING_MAX: u64 = 32_768;

/// A pull request to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) id: u64,
    pub(super) batch: u32,
    /// None: whatever its size, so that a message above the limit gets through.
    pub(super) bytes_max: Option<u32>,
}

#[derive(Debug)]
struct Open {
    id: u64,
    batch: u32,
    left: u64,
}

/// The credit of one generation.
#[derive(Debug)]
pub(super) struct Credit {
    /// Given by the host and not yet asked for.
    wanted: u64,
    /// Asked for and neither delivered nor ended.
    outstanding: u64,
    open: VecDeque<Open>,
    next_id: u64,
    /// The next message is larger than a request allows.
    oversized: bool,
    messages_max: u32,
    bytes_max: u32,
}

impl Credit {
    pub(super) fn new(messages_max: u32, bytes_max: u32) -> Self {
        Self { wanted: 0, outstanding: 0, open: VecDeque::new(), next_id: 1, oversized: false, messages_max, bytes_max }
    }

    pub(super) fn give(&mut self, messages: u32) {
        self.wanted += u64::from(messages);
    }

    /// Whether the server owes us messages or heartbeats.
    pub(super) fn is_waiting(&self) -> bool {
        self.outstanding > 0
    }

    /// The next request to send, if there is reason for one.
    pub(super) fn next_request(&mut self) -> Option<Request> {
        let room = OUTSTANDING_MAX.saturating_sub(self.outstanding).min(u64::from(self.messages_max));
        let most = if self.oversized { 1 } else { room };
        let batch = u32::try_from(self.wanted.min(most)).unwrap_or(u32::MAX);
        if batch == 0 || self.open.len() >= OPEN_MAX || (self.oversized && self.outstanding > 0) {
            return None;
        }
        let share = self.bytes_max / u32::try_from(OPEN_MAX).unwrap_or(1);
        let bytes_max = (!std::mem::take(&mut self.oversized)).then_some(share);
        let request = Request { id: self.next_id, batch, bytes_max };
        self.next_id += 1;
        self.wanted -= u64::from(batch);
        self.outstanding += u64::from(batch);
        self.open.push_back(Open { id: request.id, batch, left: u64::from(batch) });
        Some(request)
    }

    pub(super) fn delivered(&mut self) {
        self.outstanding = self.outstanding.saturating_sub(1);
        if let Some(first) = self.open.front_mut() {
            first.left = first.left.saturating_sub(1);
        }
        self.trim();
    }

    /// The server ended a request with `pending` messages missing. Returns the credit that goes back to the host.
    pub(super) fn ended(&mut self, id: u64, pending: u32, too_large: bool) -> u32 {
        let found = self.open.iter().position(|open| open.id == id).and_then(|at| self.open.remove(at));
        // Only a request that got nothing met a message that is too large for any.
        self.oversized |= too_large && found.is_none_or(|open| open.batch == pending);
        let undelivered = u64::from(pending).min(self.outstanding);
        self.outstanding -= undelivered;
        self.trim();
        u32::try_from(undelivered).unwrap_or(u32::MAX)
    }

    /// Estimates never exceed the exact total, so no request seems open that is not.
    fn trim(&mut self) {
        let mut rest = self.outstanding;
        for open in &mut self.open {
            open.left = open.left.min(rest);
            rest -= open.left;
        }
        self.open.retain(|open| open.left > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_asked_for_without_credit_and_never_more_than_given() {
        let mut credit = Credit::new(100, 1000);
        assert_eq!(credit.next_request(), None);
        credit.give(150);
        assert_eq!(credit.next_request(), Some(Request { id: 1, batch: 100, bytes_max: Some(500) }));
        assert_eq!(credit.next_request(), Some(Request { id: 2, batch: 50, bytes_max: Some(500) }));
        credit.give(10);
        assert_eq!(credit.next_request(), None, "two requests are open");
        (0..100).for_each(|_| credit.delivered());
        assert_eq!(credit.next_request(), Some(Request { id: 3, batch: 10, bytes_max: Some(500) }));
    }

    #[test]
    fn an_ended_request_gives_back_what_it_left_though_deliveries_were_attributed_to_another() {
        let mut credit = Credit::new(10, 1000);
        credit.give(20);
        assert!(credit.next_request().is_some() && credit.next_request().is_some());
        // The server served both in turn: five each, which looks from here like all ten of the first.
        (0..10).for_each(|_| credit.delivered());
        assert_eq!(credit.ended(1, 5, false), 5);
        (0..5).for_each(|_| credit.delivered());
        assert!(!credit.is_waiting());
        credit.give(20);
        assert!(credit.next_request().is_some() && credit.next_request().is_some(), "no request is left over");
    }

    #[test]
    fn a_message_above_the_limit_is_asked_for_alone_and_without_limit() {
        let mut credit = Credit::new(10, 1000);
        credit.give(10);
        assert!(credit.next_request().is_some());
        credit.delivered();
        assert_eq!(credit.ended(1, 9, true), 9, "it was only full");
        credit.give(9);
        assert_eq!(credit.next_request().map(|r| (r.batch, r.bytes_max)), Some((9, Some(500))));
        assert_eq!(credit.ended(2, 9, true), 9);
        credit.give(9);
        assert_eq!(credit.next_request(), Some(Request { id: 3, batch: 1, bytes_max: None }));
        assert_eq!(credit.next_request().map(|r| (r.batch, r.bytes_max)), Some((8, Some(500))), "and then as before");
    }
}
