//! The relay's window: which committed events are out, and which wait for what.
//!
//! Events of one key leave in order. While all goes well many of them are in flight at once, on one connection, which keeps their order. When one is
//! refused, its key is *troubled*: nothing more of it leaves until everything of it that is in flight has been answered; then its lowest row is tried alone, and when
//! that is acknowledged the rest follows. Other keys go on.

mod list;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rustc_hash::FxHashMap;

pub use self::list::{OutboxItem, OutboxPlace};
use super::event::OutboxRow;
use crate::ids::{ConsumerId, RowId};

/// What the order of events is kept for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum OrderKey {
    /// Events of this consumer and key.
    Keyed(ConsumerId, Arc<str>),
    /// An event without a key, for itself.
    Alone(RowId),
}

impl OrderKey {
    fn of(row: &OutboxRow) -> Self {
        row.event.key.clone().map_or(Self::Alone(row.row), |key| Self::Keyed(row.consumer, key))
    }
}

#[derive(Debug, Default)]
struct KeyState {
    in_flight: usize,
    trouble: Option<Box<Trouble>>,
}

#[derive(Debug, Default)]
struct Trouble {
    refusals: u32,
    /// Its lowest row is out, alone, to see whether the trouble is over.
    probing: bool,
    waiting: BTreeMap<RowId, OutboxRow>,
}

/// First delay after a refusal, in milliseconds; doubled with each further one.
const FIRST_DELAY_MS: u64 = 100;
/// Longest delay after a refusal, in milliseconds.
const LONGEST_DELAY_MS: u64 = 5_000;

/// What follows from an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answered {
    /// Whose event it was.
    pub(crate) consumer: ConsumerId,
    /// This key is to be tried again after so many milliseconds.
    pub(crate) retry: Option<(OrderKey, u64)>,
}

/// The window.
#[derive(Debug)]
pub(crate) struct Relay {
    in_flight_max: usize,
    in_flight: FxHashMap<RowId, OutboxRow>,
    keys: FxHashMap<OrderKey, KeyState>,
    /// Rows of keys that are over their trouble: they leave before anything in `queue`, and in the order of their numbers. A key may be in trouble again before
    /// all of it has left.
    resumed: BTreeMap<RowId, OutboxRow>,
    queue: VecDeque<OutboxRow>,
    /// Troubled keys whose delay is over.
    due: VecDeque<OrderKey>,
    waiting: usize,
}

impl Relay {
    pub(crate) fn new(in_flight_max: usize) -> Self {
        Self {
            in_flight_max: in_flight_max.max(1),
            in_flight: FxHashMap::default(),
            keys: FxHashMap::default(),
            resumed: BTreeMap::new(),
            queue: VecDeque::new(),
            due: VecDeque::new(),
            waiting: 0,
        }
    }

    /// A committed event; rows come in rising order.
    pub(crate) fn push(&mut self, row: OutboxRow) {
        self.queue.push_back(row);
    }

    /// The next row to publish, if the window has room.
    pub(crate) fn next(&mut self) -> Option<OutboxRow> {
        while self.in_flight.len() < self.in_flight_max {
            let resumed = self.resumed.pop_first().map(|(_, row)| row);
            let row = resumed.or_else(|| self.queue.pop_front())?;
            let state = self.keys.entry(OrderKey::of(&row)).or_default();
            if let Some(trouble) = &mut state.trouble {
                trouble.waiting.insert(row.row, row);
                self.waiting += 1;
                continue;
            }
            state.in_flight += 1;
            self.in_flight.insert(row.row, row.clone());
            return Some(row);
        }
        None
    }

    /// JetStream has the row. None if it was answered before.
    pub(crate) fn acknowledged(&mut self, row: RowId) -> Option<Answered> {
        let row = self.in_flight.remove(&row)?;
        let mut answered = Answered { consumer: row.consumer, retry: None };
        let Entry::Occupied(mut entry) = self.keys.entry(OrderKey::of(&row)) else { return Some(answered) };
        let state = entry.get_mut();
        state.in_flight -= 1;
        if state.in_flight > 0 {
            return Some(answered);
        }
        match state.trouble.take() {
            Some(trouble) if !trouble.probing => {
                let delay_ms = delay_ms(trouble.refusals);
                state.trouble = Some(trouble);
                answered.retry = Some((entry.key().clone(), delay_ms));
            }
            over => {
                entry.remove();
                if let Some(trouble) = over {
                    self.waiting -= trouble.waiting.len();
                    self.resumed.extend(trouble.waiting);
                }
            }
        }
        Some(answered)
    }

    /// JetStream did not take the row, or did not say: it waits, and with it all of its key that has not left. None if it was answered before.
    pub(crate) fn refused(&mut self, row: RowId) -> Option<Answered> {
        let row = self.in_flight.remove(&row)?;
        let key = OrderKey::of(&row);
        let mut answered = Answered { consumer: row.consumer, retry: None };
        let state = self.keys.entry(key.clone()).or_default();
        let trouble = state.trouble.get_or_insert_default();
        trouble.probing = false;
        trouble.waiting.insert(row.row, row);
        self.waiting += 1;
        state.in_flight = state.in_flight.saturating_sub(1);
        if state.in_flight == 0 {
            answered.retry = Some((key, delay_ms(trouble.refusals)));
        }
        Some(answered)
    }

    /// The delay of a troubled key is over: its lowest row is to be tried alone.
    pub(crate) fn delay_over(&mut self, key: OrderKey) {
        self.due.push_back(key);
    }

    /// The lowest row of a key whose delay is over, if the window has room.
    pub(crate) fn next_probe(&mut self) -> Option<OutboxRow> {
        while self.in_flight.len() < self.in_flight_max {
            let key = self.due.pop_front()?;
            let row = self.probe(&key);
            if row.is_some() {
                return row;
            }
        }
        None
    }

    /// No more probes: what is in trouble stays where it is.
    pub(crate) fn leave_trouble(&mut self) {
        self.due.clear();
    }

    fn probe(&mut self, key: &OrderKey) -> Option<OutboxRow> {
        let state = self.keys.get_mut(key)?;
        let trouble = state.trouble.as_deref_mut()?;
        let (_, row) = trouble.waiting.pop_first()?;
        trouble.probing = true;
        trouble.refusals = trouble.refusals.saturating_add(1);
        state.in_flight += 1;
        self.waiting -= 1;
        self.in_flight.insert(row.row, row.clone());
        Some(row)
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.in_flight.is_empty() && self.keys.is_empty() && self.due.is_empty() && self.queued() + self.waiting == 0
    }

    /// Rows that are out.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Rows that could leave at once if the window had room.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len() + self.resumed.len()
    }

    /// Rows of troubled keys.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }
}

fn delay_ms(refusals: u32) -> u64 {
    FIRST_DELAY_MS.saturating_mul(1_u64.checked_shl(refusals).unwrap_or(u64::MAX)).min(LONGEST_DELAY_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::Event;

    fn row(id: u64, key: Option<&str>) -> OutboxRow {
        let event = Event {
            id: id.to_string().into(),
            subject: "out".into(),
            key: key.map(Arc::from),
            headers: Vec::new(),
            payload: bytes::Bytes::new(),
        };
        OutboxRow { row: RowId(id), consumer: ConsumerId(1), event: Arc::new(event), since_ms: id }
    }

    fn relay(window: usize, rows: &[(u64, Option<&str>)]) -> Relay {
        let mut relay = Relay::new(window);
        for (id, key) in rows {
            relay.push(row(*id, *key));
        }
        relay
    }

    fn leaving(relay: &mut Relay) -> Vec<u64> {
        std::iter::from_fn(|| relay.next().map(|row| row.row.0)).collect()
    }

    #[test]
    fn the_window_bounds_what_is_in_flight() {
        let mut relay = relay(2, &[(1, None), (2, None), (3, None)]);
        assert_eq!(leaving(&mut relay), [1, 2]);
        relay.acknowledged(RowId(1));
        assert_eq!(leaving(&mut relay), [3]);
        assert_eq!((relay.in_flight(), relay.queued()), (2, 0));
    }

    #[test]
    fn a_refused_event_holds_its_key_back_and_no_other() {
        let mut relay = relay(10, &[(1, Some("a")), (2, Some("a")), (3, Some("b"))]);
        assert_eq!(leaving(&mut relay), [1, 2, 3]);
        assert_eq!(relay.refused(RowId(1)).unwrap().retry, None, "row 2 is still out");
        relay.push(row(4, Some("a")));
        relay.push(row(5, Some("b")));
        assert_eq!(leaving(&mut relay), [5]);
        let (key, _) = relay.refused(RowId(2)).unwrap().retry.unwrap();
        assert_eq!(relay.waiting(), 3);
        assert_eq!(relay.probe(&key).unwrap().row, RowId(1));
        assert_eq!(leaving(&mut relay), Vec::<u64>::new(), "the probe is alone");
        assert_eq!(relay.acknowledged(RowId(1)).unwrap().retry, None);
        assert_eq!(leaving(&mut relay), [2, 4]);
        assert_eq!(relay.waiting(), 0);
    }

    #[test]
    fn a_probe_that_is_refused_waits_longer_each_time_up_to_a_bound() {
        let mut relay = relay(10, &[(1, None)]);
        leaving(&mut relay);
        let mut delays = Vec::new();
        for _ in 0..8 {
            let (key, delay) = relay.refused(RowId(1)).unwrap().retry.unwrap();
            delays.push(delay);
            relay.probe(&key).unwrap();
        }
        assert_eq!(delays, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
    }

    #[test]
    fn rows_that_were_acknowledged_behind_a_refused_one_do_not_leave_again() {
        let mut relay = relay(10, &[(1, Some("a")), (2, Some("a")), (3, Some("a"))]);
        leaving(&mut relay);
        relay.refused(RowId(1)).unwrap();
        relay.acknowledged(RowId(2)).unwrap();
        let (key, _) = relay.acknowledged(RowId(3)).unwrap().retry.unwrap();
        relay.probe(&key).unwrap();
        relay.acknowledged(RowId(1)).unwrap();
        assert_eq!((leaving(&mut relay).len(), relay.in_flight(), relay.waiting()), (0, 0, 0));
    }

    #[test]
    fn a_second_answer_for_a_row_changes_nothing() {
        let mut relay = relay(10, &[(1, Some("a"))]);
        leaving(&mut relay);
        assert!(relay.acknowledged(RowId(1)).is_some());
        assert!(relay.acknowledged(RowId(1)).is_none() && relay.refused(RowId(1)).is_none());
    }
}
