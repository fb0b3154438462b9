//! Committed events and what became of them: the model beside the relay. Events are published after their commit, under one id, in the order of their key, and
//! given up when the broker has them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pelton_core::batch::Outcome;
use pelton_core::effects::Event;
use pelton_core::ids::RowId;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::violation::{Broken, Checked, holds, there};

/// What the order of events is kept for: the consumer's place, and the key.
type OrderKey = (usize, Arc<str>);

#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) consumer: usize,
    pub(crate) event: Arc<Event>,
    stored: bool,
    /// When it was sent last, when the broker refused it last, and when the host was told so: places in the order of all such events; 0: not.
    sent_at: u64,
    refused_at: u64,
    told_at: u64,
}

/// Rows of one key.
#[derive(Debug, Default)]
struct OfKey {
    /// Durable, and neither in flight nor acknowledged in this life of the host.
    unsent: BTreeSet<u64>,
    in_flight: BTreeSet<u64>,
    /// Not stored by the broker yet.
    unstored: BTreeSet<u64>,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Durable rows that were not given up.
    pub(crate) rows: BTreeMap<u64, Row>,
    /// Above all that ever were durable.
    pub(crate) next_row: u64,
    keys: FxHashMap<OrderKey, OfKey>,
    in_flight: FxHashSet<u64>,
    acknowledged: FxHashSet<u64>,
    /// Ids that the broker stored, with the payload.
    stored: FxHashMap<Box<str>, bytes::Bytes>,
    clock: u64,
    /// Committed events in all.
    pub(crate) committed: u64,
}

impl Outbox {
    fn key(consumer: usize, event: &Event) -> Option<OrderKey> {
        event.key.clone().map(|key| (consumer, key))
    }

    /// The events of an outcome are durable.
    pub(crate) fn commit(&mut self, consumer: usize, outcome: &Outcome) -> Checked {
        match outcome {
            Outcome::Applied { writes, first_row, .. } => {
                for (row, event) in (first_row.0..).zip(&writes.events) {
                    self.add(consumer, row, event)?;
                }
            }
            Outcome::DeadLettered { copy: Some((row, event)), .. } => self.add(consumer, row.0, event)?,
            _ => {}
        }
        Ok(())
    }

    fn add(&mut self, consumer: usize, row: u64, event: &Arc<Event>) -> Checked {
        holds(row >= self.next_row, Broken::Books, || format!("row {row} is used again"))?;
        self.next_row = row + 1;
        self.committed += 1;
        if let Some(key) = Self::key(consumer, event) {
            let of_key = self.keys.entry(key).or_default();
            of_key.unsent.insert(row);
            of_key.unstored.insert(row);
        }
        let row_of = Row { consumer, event: Arc::clone(event), stored: false, sent_at: 0, refused_at: 0, told_at: 0 };
        self.rows.insert(row, row_of);
        Ok(())
    }

    /// A commit gives a row up.
    pub(crate) fn give_up(&mut self, row: RowId) -> Checked {
        let gone = there(self.rows.remove(&row.0), Broken::Books, || format!("{row:?} is given up and is not there"))?;
        holds(gone.stored, Broken::EventLost, || format!("{row:?} is given up, and the broker does not have it"))?;
        self.acknowledged.remove(&row.0);
        if let Some(key) = Self::key(gone.consumer, &gone.event)
            && let Some(of_key) = self.keys.get_mut(&key)
        {
            of_key.unsent.remove(&row.0);
            if of_key.unsent.is_empty() && of_key.in_flight.is_empty() && of_key.unstored.is_empty() {
                self.keys.remove(&key);
            }
        }
        Ok(())
    }

    /// Before a commit that gives rows up: only those that were acknowledged in this life may be among them.
    pub(crate) fn may_give_up(&self, rows: &[RowId]) -> Checked {
        let early = rows.iter().find(|row| !self.acknowledged.contains(&row.0));
        holds(early.is_none(), Broken::EventLost, || format!("{early:?} is given up, and was not acknowledged"))
    }

    /// The host sends an event: it has to be durable, the same as ever, and its key's turn.
    pub(crate) fn sent(&mut self, row: RowId, event: &Event, in_flight_max: usize) -> Checked {
        let not_there = || format!("{row:?} ({}) leaves and is not durable", event.id);
        let known = there(self.rows.get_mut(&row.0), Broken::Published, not_there)?;
        holds(*known.event == *event, Broken::Published, || format!("{row:?} leaves as another event"))?;
        self.clock += 1;
        known.sent_at = self.clock;
        let refused = known.told_at > 0;
        let new = self.in_flight.insert(row.0);
        holds(new, Broken::Published, || format!("{row:?} is in flight twice"))?;
        let count = self.in_flight.len();
        holds(count <= in_flight_max, Broken::Limit, || format!("{count} events in flight"))?;
        let Some(key) = Self::key(known.consumer, event) else { return Ok(()) };
        let of_key = self.keys.entry(key).or_default();
        let first = of_key.unsent.first().copied();
        holds(first == Some(row.0), Broken::Published, || format!("{row:?} leaves before row {first:?} of its key"))?;
        let above = of_key.in_flight.last().copied().filter(|above| refused && *above > row.0);
        holds(above.is_none(), Broken::Published, || format!("{row:?} is tried again behind row {above:?}"))?;
        of_key.unsent.remove(&row.0);
        of_key.in_flight.insert(row.0);
        Ok(())
    }

    /// The broker stores an event. A later one of a key may be stored first only if the earlier was refused, and the host did not know that yet when it
    /// sent the later one.
    pub(crate) fn stored(&mut self, row: RowId) -> Checked {
        let Some(known) = self.rows.get_mut(&row.0) else { return Ok(()) };
        known.stored = true;
        let (event, sent_at, consumer) = (Arc::clone(&known.event), known.sent_at, known.consumer);
        if let Some(before) = self.stored.get(&event.id) {
            return holds(*before == event.payload, Broken::Published, || {
                format!("two events have the id {}", event.id)
            });
        }
        self.stored.insert(event.id.clone(), event.payload.clone());
        let Some(key) = Self::key(consumer, &event) else { return Ok(()) };
        let Some(of_key) = self.keys.get_mut(&key) else { return Ok(()) };
        of_key.unstored.remove(&row.0);
        let unknown = |lower: &Row| lower.told_at < lower.refused_at || lower.told_at > sent_at;
        let excused =
            |lower: &u64| self.rows.get(lower).is_some_and(|row| row.refused_at > row.sent_at && unknown(row));
        let skipped = of_key.unstored.range(..row.0).find(|lower| !excused(lower));
        holds(skipped.is_none(), Broken::Published, || format!("{row:?} is stored before row {skipped:?} of its key"))
    }

    /// The broker does not take an event.
    pub(crate) fn not_taken(&mut self, row: RowId) {
        self.clock += 1;
        if let Some(known) = self.rows.get_mut(&row.0) {
            known.refused_at = self.clock;
        }
    }

    /// The broker's answer reaches the host.
    pub(crate) fn answered(&mut self, row: RowId, acknowledged: bool) {
        if !self.in_flight.remove(&row.0) {
            return;
        }
        self.clock += 1;
        let Some(known) = self.rows.get_mut(&row.0) else { return };
        if acknowledged {
            self.acknowledged.insert(row.0);
        } else {
            known.told_at = self.clock;
        }
        if let Some(key) = Self::key(known.consumer, &known.event)
            && let Some(of_key) = self.keys.get_mut(&key)
        {
            of_key.in_flight.remove(&row.0);
            if !acknowledged {
                of_key.unsent.insert(row.0);
            }
        }
    }

    /// Rows that were sent and not answered.
    pub(crate) fn unanswered(&self) -> Vec<RowId> {
        let mut rows: Vec<_> = self.in_flight.iter().map(|row| RowId(*row)).collect();
        rows.sort_unstable();
        rows
    }

    /// The host is gone, and with it all that it knew of what it sent.
    pub(crate) fn host_is_gone(&mut self) {
        self.in_flight.clear();
        self.acknowledged.clear();
        self.keys.values_mut().for_each(|of_key| {
            of_key.in_flight.clear();
            of_key.unsent.clear();
        });
        for (number, row) in &mut self.rows {
            (row.sent_at, row.refused_at, row.told_at) = (0, 0, 0);
            if let Some(key) = Self::key(row.consumer, &row.event) {
                self.keys.entry(key).or_default().unsent.insert(*number);
            }
        }
    }

    /// All was stored, once by its id, and given up.
    pub(crate) fn check_end(&self) -> Checked {
        let left = self.rows.keys().next();
        holds(left.is_none(), Broken::Stuck, || format!("row {left:?} was never given up"))?;
        let unstored = self.keys.values().find_map(|of_key| of_key.unstored.first());
        holds(unstored.is_none(), Broken::EventLost, || format!("row {unstored:?} was never stored"))?;
        let (stored, committed) = (self.stored.len() as u64, self.committed);
        holds(stored == committed, Broken::Published, || format!("{stored} events are stored, {committed} committed"))
    }
}
