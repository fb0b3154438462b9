//! What must hold after each step, and at the end.

use std::collections::BTreeMap;

use super::violation::{Broken, Checked, holds};
use super::world::{Tally, World};
use crate::ids::ConsumerId;
use crate::machine::consumer::Phase;
use crate::parked::ParkLane;

impl World {
    /// The books agree with what happened, and the limits are kept.
    pub(super) fn check_books(&mut self) -> Checked {
        self.check_parked()?;
        for (consumer, state) in &self.core.consumers {
            let tally = self.life.books.get(consumer).copied().unwrap_or_default();
            let counters = state.counters;
            let failures = counters.failures;
            let booked = Tally {
                applied: counters.applied,
                duplicates: counters.duplicates,
                failed: failures.retry
                    + failures.reject
                    + failures.park
                    + failures.trap
                    + failures.timeout
                    + failures.limit,
                dead_letters: counters.dead_letters,
                published: counters.published,
                outbox_rows: state.outbox_rows,
            };
            holds(booked == tally, Broken::Books, || format!("{consumer:?}: {booked:?}, happened has {tally:?}"))?;
            let running = self.life.runs.values().filter(|run| run.consumer == *consumer).count();
            holds(running == state.running, Broken::Books, || format!("{consumer:?}: {} runs", state.running))?;
            let most = self.policies.get(consumer).map_or(0, |policy| policy.messages_held_max);
            let in_hand = state.in_hand() + state.requested;
            holds(in_hand <= most, Broken::Limit, || format!("{consumer:?} has {in_hand} of {most} messages in hand"))?;
            let subscription = self.broker.subscription(*consumer);
            if subscription.generation == Some(state.generation) && state.phase == Phase::Running {
                let (credit, requested) = (subscription.credit, state.requested);
                holds(credit == requested, Broken::Books, || {
                    format!("{consumer:?}: credit {credit}, {requested} asked")
                })?;
            }
        }
        holds(self.core.runs_out == self.life.runs.len(), Broken::Books, || "runs".into())
    }

    /// The core counts what is parked as the store has it.
    fn check_parked(&self) -> Checked {
        let mut known: BTreeMap<(ConsumerId, &ParkLane), (u64, u64)> = BTreeMap::new();
        for ((consumer, place), row) in &self.life.parked {
            let (rows, aside) = known.entry((*consumer, &place.lane)).or_default();
            *rows += 1;
            *aside += u64::from(row.cause.is_aside());
        }
        for (consumer, state) in &self.core.consumers {
            let rows: u64 = known.iter().filter(|((of, _), _)| of == consumer).map(|(_, (rows, _))| rows).sum();
            holds(state.parked_rows == rows, Broken::Lost, || {
                format!("{consumer:?}: {rows} messages are parked, {} known", state.parked_rows)
            })?;
            let booked: u64 = state.parked.values().map(|book| book.rows).sum();
            holds(booked == rows, Broken::Books, || format!("{consumer:?}: {rows} parked, {booked} in books"))?;
            let paused = self.paused.contains(consumer);
            holds(state.is_paused() == paused, Broken::Held, || format!("{consumer:?}: paused is {paused}"))?;
        }
        for ((consumer, lane), (rows, aside)) in known {
            let book = self.core.consumers.get(&consumer).and_then(|state| state.parked.get(lane));
            let agrees = book.is_some_and(|book| (book.rows, book.aside) == (rows, aside));
            holds(agrees, Broken::Books, || format!("{lane:?}: {rows} rows, {aside} aside; {book:?}"))?;
        }
        Ok(())
    }

    /// All is done, and nothing is left of it.
    pub(super) fn check_end(&mut self) -> Checked {
        for consumer in self.policies.keys().copied().collect::<Vec<_>>() {
            let stream = self.broker.stream(consumer);
            let created = stream.identity.created_ns;
            let last = stream.messages.keys().next_back().copied().unwrap_or(0);
            let unsettled: Vec<u64> = stream.messages.keys().copied().collect();
            let is_settled = |sequence: &u64| self.durable.settled.contains(&(consumer, created, *sequence));
            let is_done = |sequence: &u64| {
                is_settled(sequence) && self.durable.finished.contains(&(consumer, created, *sequence))
            };
            let unsettled: Vec<u64> = unsettled.into_iter().filter(|sequence| !is_done(sequence)).collect();
            let core = &self.core;
            holds(unsettled.is_empty(), Broken::Stuck, || {
                format!("{consumer:?} waits: {unsettled:?} {:?}", core.status())
            })?;
            let known = &self.durable.consumers[&consumer];
            let state = &core.consumers[&consumer];
            holds(state.durable_floor == last, Broken::Stuck, || format!("the floor is stuck: {:?}", state.cursor))?;
            holds(known.cursor.highest() == last, Broken::Books, || format!("{:?}", known.cursor))?;
            let empty = state.is_quiet() && state.held_bytes() == 0 && state.committing_bytes == 0;
            let empty = empty && state.by_key.is_empty() && state.ready.is_empty() && state.waiting_retry == 0;
            let parked = state.parked.is_empty()
                && state.parked_rows == 0
                && state.releases.under_way + state.held_releases.under_way == 0;
            let queues = state.releases.queue.is_empty()
                && state.held_releases.queue.is_empty()
                && state.recovered_untils.is_empty();
            let empty = empty && parked && queues && state.committing_released == 0;
            holds(empty && state.cursor.ranges().count() == 0, Broken::Leak, || format!("{state:?}"))?;
        }
        let parked = &self.durable.parked;
        holds(parked.is_empty(), Broken::Stuck, || format!("still parked: {parked:?}"))?;
        let core = &self.core;
        let outbox = &self.durable.outbox;
        holds(outbox.is_empty(), Broken::Stuck, || format!("not published: {outbox:?}"))?;
        let missing = (0..self.durable.next_row).find(|row| !self.broker.events.contains(&crate::ids::RowId(*row)));
        holds(missing.is_none(), Broken::RowRemoved, || format!("row {missing:?} never reached JetStream"))?;
        let empty = core.claims.is_empty() && core.blocked.is_empty() && core.timers.is_empty() && core.open.is_empty();
        holds(empty && core.lanes.is_empty() && core.relay.is_empty(), Broken::Leak, || format!("{core:?}"))
    }
}
