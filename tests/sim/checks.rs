//! What must hold when the host starts, after each commit, and at the end.

use pelton::store::{DeadLetterQuery, ParkedQuery, Reader, Recovered};
use pelton_core::batch::{Batch, HoldBy, Outcome};
use pelton_core::effects::{Scope, Space};
use pelton_core::ids::ConsumerId;
use pelton_core::parked::ParkLane;
use pelton_core::transaction::StateView;
use std::collections::BTreeMap;
use std::ops::Bound;

use crate::books::{Books, Fate, Fold};
use crate::ledger::state_entry;
use crate::runs::alone_entry;
use crate::trouble::End;
use crate::violation::{Broken, Checked, Violation, holds, there};
use crate::world::World;

impl World {
    /// What a start finds is what was durable, and nothing else.
    pub(crate) fn check_recovered(&self, found: &Recovered, reader: &Reader) -> Checked {
        let bound: Vec<_> = self.ledger.books.iter().filter(|books| books.bound.is_some()).collect();
        let names = |names: &mut Vec<&str>| names.sort_unstable();
        let (mut expected, mut there_are): (Vec<&str>, Vec<&str>) =
            (bound.iter().map(|books| &*books.name).collect(), found.consumers.iter().map(|c| &*c.name).collect());
        names(&mut expected);
        names(&mut there_are);
        holds(expected == there_are, Broken::Recovered, || format!("consumers {there_are:?}, and not {expected:?}"))?;
        for consumer in &found.consumers {
            let books = bound.iter().find(|books| books.name == consumer.name);
            let books = there(books, Broken::Recovered, || format!("{}", consumer.name))?;
            books.check_consumer(consumer)?;
            books.check_listings(consumer.id, reader)?;
            books.check_lanes(consumer.id, found)?;
        }
        let rows = &self.ledger.outbox.rows;
        let same = found.outbox.len() == rows.len()
            && found
                .outbox
                .iter()
                .zip(rows)
                .all(|(found, (row, known))| found.row.0 == *row && found.event == *known.event);
        holds(same, Broken::Recovered, || {
            let found: Vec<_> = found.outbox.iter().map(|found| found.row.0).collect();
            format!("the outbox has {found:?}, and not {:?}", rows.keys().collect::<Vec<_>>())
        })?;
        let (row, park) = (found.next_row.0, found.next_park.0);
        let above = row >= self.ledger.outbox.next_row && park >= self.ledger.next_park;
        holds(above, Broken::Recovered, || {
            format!(
                "row {row} and parked message {park} come next, {} and {} were used",
                self.ledger.outbox.next_row, self.ledger.next_park
            )
        })
    }

    /// All state that can be read is the fold of what was applied. For the moment after a start, and the end.
    pub(crate) fn check_readers(&self) -> Checked {
        let Some(host) = &self.host else { return Ok(()) };
        for (books, id) in self.ledger.books.iter().zip(&host.ids) {
            for (key, fold) in &books.now.folds {
                books.check_fold(*id, &host.reader, *key, *fold)?;
            }
            books.check_alone(*id, &host.reader)?;
        }
        Ok(())
    }

    /// What the batch changed reads as the fold of what was applied, and the books have as many parked messages as there are.
    pub(crate) fn check_after_commit(&mut self, batch: &Batch) -> Checked {
        let Some(host) = &self.host else { return Ok(()) };
        for settlement in batch.settlements.iter().rev().take(3) {
            let Outcome::Applied { .. } = settlement.outcome else { continue };
            let Some(place) = host.places.get(&settlement.consumer) else { continue };
            let books = &self.ledger.books[*place];
            let bound = books.bound.unwrap_or_default();
            let of_stream = books.streams.get(bound).and_then(|of| of.entries.get(settlement.sequence as usize - 1));
            let Some(entry) = of_stream.filter(|_| books.keyed) else { continue };
            let fold = books.now.folds.get(&Some(entry.key)).copied().unwrap_or_default();
            books.check_fold(settlement.consumer, &host.reader, Some(entry.key), fold)?;
        }
        if self.chance.one_in(16) { self.check_books() } else { Ok(()) }
    }

    /// The core's books agree with what happened.
    pub(crate) fn check_books(&self) -> Checked {
        let Some(host) = &self.host else { return Ok(()) };
        for status in host.core.status().consumers {
            let Some(books) = self.place(status.id).map(|place| &self.ledger.books[place]) else { continue };
            let rows = books.now.rows.len() as u64;
            holds(status.parked_rows == rows, Broken::Books, || {
                format!("{}: the core knows of {} parked messages, there are {rows}", books.name, status.parked_rows)
            })?;
            let mut lanes: Vec<_> = books.now.rows.keys().map(|place| &place.lane).collect();
            lanes.dedup();
            holds(status.parked_lanes == lanes.len(), Broken::Books, || {
                format!(
                    "{}: the core knows of {} parked lanes, there are {}",
                    books.name,
                    status.parked_lanes,
                    lanes.len()
                )
            })?;
            let held_max = books.policy.messages_held_max;
            holds(status.held <= held_max, Broken::Limit, || {
                format!("{}: {} messages are held, {held_max} may be", books.name, status.held)
            })?;
        }
        Ok(())
    }

    /// All is done, and nothing is left of it.
    pub(crate) fn check_end(&mut self) -> Checked {
        for place in 0..self.ledger.books.len() {
            if self.plan.takes_part(place) {
                self.check_settled(place)?;
            }
        }
        self.ledger.outbox.check_end()?;
        self.check_books()?;
        self.check_readers()?;
        let status = self.host.as_ref().map(|host| host.core.status());
        let status = there(status, Broken::Stuck, || "the host is not there at the end".into())?;
        for consumer in &status.consumers {
            let empty = consumer.held == 0
                && consumer.held_bytes == 0
                && consumer.running == 0
                && consumer.waiting_retry == 0
                && consumer.outbox_pending == 0
                && consumer.parked_rows == 0
                && consumer.lanes_releasing == 0
                // A breaker that opened stays so while there is nothing to try.
                && consumer.holds.iter().all(|(by, _)| *by == HoldBy::Breaker);
            holds(empty, Broken::Leak, || format!("something is left: {consumer:?}"))?;
        }
        let quiet = status.relay_in_flight + status.relay_queued + status.relay_waiting == 0;
        holds(quiet, Broken::Leak, || format!("the relay holds events: {status:?}"))?;
        self.tally.events = self.ledger.outbox.committed;
        self.tally.released = self.ledger.released;
        self.tally.commits = self.ledger.batches;
        self.tally.virtual_ms = self.tick_ms;
        self.reopen()
    }

    /// Each message has its one outcome, and the broker has nothing to wait for.
    fn check_settled(&self, place: usize) -> Checked {
        let books = &self.ledger.books[place];
        let name = &books.name;
        let last = self.streams[books.stream].last();
        let bound = there(books.bound, Broken::Stuck, || format!("{name} never began: {}", self.describe()))?;
        holds(bound == last, Broken::Stuck, || format!("{name} reads {bound} of {last}: {}", self.describe()))?;
        for (incarnation, of_stream) in books.streams.iter().enumerate() {
            for (sequence, entry) in (1_u64..).zip(&of_stream.entries) {
                let open = entry.durable == Fate::Open && incarnation == bound;
                holds(!open && entry.durable != Fate::Parked, Broken::Stuck, || {
                    format!("{name}: message {sequence} of {incarnation} ended as {entry:?}: {}", self.describe())
                })?;
                holds(entry.now == entry.durable, Broken::Stuck, || {
                    format!("{name}: message {sequence} of {incarnation} is {entry:?}, which was never committed")
                })?;
            }
        }
        let lag = &self.subscriptions[place].pending;
        holds(lag.is_empty(), Broken::Stuck, || format!("{name}: {lag:?} were never acknowledged"))?;
        holds(books.durable.rows.is_empty(), Broken::Stuck, || format!("{name}: parked is {:?}", books.durable.rows))
    }

    /// The host ends and starts once more: all is still there.
    fn reopen(&mut self) -> Checked {
        self.close()?;
        self.boot()?;
        self.check_readers()?;
        self.host = None;
        self.disks.restart(End::Crash, &mut self.chance);
        Ok(())
    }
}

impl Books {
    fn check_consumer(&self, found: &pelton::store::RecoveredConsumer) -> Checked {
        let name = &self.name;
        let incarnation = found.stream.created_ns as usize - 1;
        holds(self.bound == Some(incarnation), Broken::Recovered, || {
            format!("{name} is bound to {:?}, and not {:?}", found.stream, self.bound)
        })?;
        holds(self.cursor == found.cursor, Broken::Recovered, || {
            format!("{name}: the cursor is {:?}, and not {:?}", found.cursor, self.cursor)
        })?;
        holds(found.newest == self.newest, Broken::Recovered, || {
            format!("{name}: the newest message is {:?}, and not {:?}", found.newest, self.newest)
        })?;
        let entries = self.streams.get(incarnation).map_or(&[][..], |of_stream| &of_stream.entries);
        for (sequence, entry) in (1_u64..).zip(entries) {
            let settled = found.cursor.contains(sequence);
            let right = settled != (entry.durable == Fate::Open) || entry.durable == Fate::NotOurs;
            holds(right, Broken::Recovered, || {
                format!("{name}: {sequence} is {:?}, and settled by the cursor: {settled}", entry.durable)
            })?;
        }
        let holds_found: BTreeMap<_, _> = found.holds.iter().cloned().collect();
        holds(holds_found == self.holds, Broken::Recovered, || {
            format!("{name} is held: {holds_found:?}, and not {:?}", self.holds)
        })
    }

    /// Parked messages and dead letters are all there, whole and in order.
    fn check_listings(&self, id: ConsumerId, reader: &Reader) -> Checked {
        let name = &self.name;
        let unread = |error: pelton_core::transaction::ReadError| Violation {
            broken: Broken::Recovered,
            what: format!("{name}: {error}"),
        };
        let query = ParkedQuery { consumer: Some(id), lane: None, after: None, limit: usize::MAX };
        let rows = reader.parked(&query).map_err(unread)?;
        let same = rows.iter().map(|stored| &stored.row).eq(self.durable.rows.values());
        holds(same, Broken::Recovered, || {
            let (found, known) = (rows.len(), self.durable.rows.len());
            format!("{name}: {found} parked messages, of which {known} were to be there, or others: {rows:?}")
        })?;
        let query = DeadLetterQuery { consumer: Some(id), after: None, limit: usize::MAX };
        let letters = reader.dead_letters(&query).map_err(unread)?;
        let same = letters.iter().map(|stored| &stored.letter).eq(self.durable.letters.values());
        holds(same, Broken::Recovered, || {
            format!("{name}: dead letters {letters:?}, and not {:?}", self.durable.letters)
        })
    }

    /// What a start is told of parked lanes agrees with the rows.
    fn check_lanes(&self, id: ConsumerId, found: &Recovered) -> Checked {
        let mut lanes: BTreeMap<&ParkLane, (u64, u64, u64)> = BTreeMap::new();
        for (place, row) in &self.durable.rows {
            let (rows, aside, lowest) = lanes.entry(&place.lane).or_insert((0, 0, u64::MAX));
            *rows += 1;
            *aside += u64::from(row.cause.is_aside());
            *lowest = place.order.min(*lowest);
        }
        let of_ours = found.parked.iter().filter(|lane| lane.consumer == id);
        let told: BTreeMap<_, _> =
            of_ours.map(|lane| (&lane.lane, (lane.rows, lane.aside, lane.lowest_order))).collect();
        holds(told == lanes, Broken::Recovered, || format!("{}: lanes {told:?}, and not {lanes:?}", self.name))
    }

    fn scope(&self, id: ConsumerId, key: Option<u16>) -> Scope {
        let key = key.filter(|_| self.keyed && !self.policy.shared_state);
        Scope { consumer: id, key: key.map(|key| format!("k{key}").into()) }
    }

    fn check_fold(&self, id: ConsumerId, reader: &Reader, key: Option<u16>, fold: Fold) -> Checked {
        if key.is_none() {
            return Ok(());
        }
        let entry = state_entry(key);
        let found = reader.get(&self.scope(id, key), Space::User, &entry, 0);
        let found = found.map_err(|error| Violation { broken: Broken::State, what: error.to_string() })?;
        let found = found.as_deref().map_or(Some(Fold::default()), Fold::read);
        holds(found == Some(fold), Broken::State, || {
            format!("{}: {entry} reads as {found:?}, the fold of what was applied is {fold:?}", self.name)
        })
    }

    /// Messages without a key have left each its own entry.
    fn check_alone(&self, id: ConsumerId, reader: &Reader) -> Checked {
        if self.keyed || self.policy.shared_state {
            return Ok(());
        }
        let applied = |(incarnation, of): (usize, &crate::books::OfStream)| {
            let of_stream: Vec<_> =
                (1_u64..).zip(&of.entries).filter(|(_, entry)| entry.now == Fate::Applied).collect();
            of_stream.into_iter().map(move |(sequence, _)| alone_entry((incarnation, sequence))).collect::<Vec<_>>()
        };
        let mut expected: Vec<_> = self.streams.iter().enumerate().flat_map(applied).collect();
        expected.sort_unstable();
        let found = reader.range(&self.scope(id, None), "m", Bound::Unbounded, usize::MAX >> 1, 0);
        let found = found.map_err(|error| Violation { broken: Broken::State, what: error.to_string() })?;
        let same = found.iter().map(|(key, _)| &**key).eq(expected.iter().map(String::as_str));
        holds(same, Broken::State, || {
            format!("{}: entries of {} messages, {} were applied", self.name, found.len(), expected.len())
        })
    }
}
