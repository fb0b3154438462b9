//! What must hold after each step, and at the end.

use super::violation::{Broken, Checked, holds};
use super::world::{Tally, World};
use crate::machine::consumer::Phase;

impl World {
    /// The books agree with what happened, and the limits are kept.
    pub(super) fn check_books(&mut self) -> Checked {
        for (consumer, state) in &self.core.consumers {
            let tally = self.life.books.get(consumer).copied().unwrap_or_default();
            let counters = state.counters;
            let booked = Tally {
                applied: counters.applied,
                duplicates: counters.duplicates,
                failed: counters.retries + tally.given_up,
                given_up: counters.dead_letters - tally.unreadable,
                unreadable: tally.unreadable,
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

    /// All is done, and nothing is left of it.
    pub(super) fn check_end(&mut self) -> Checked {
        for consumer in self.policies.keys().copied().collect::<Vec<_>>() {
            let stream = self.broker.stream(consumer);
            let created = stream.identity.created_ns;
            let last = stream.messages.keys().next_back().copied().unwrap_or(0);
            let unsettled: Vec<u64> = stream.messages.keys().copied().collect();
            let is_settled = |sequence: &u64| self.durable.settled.contains(&(consumer, created, *sequence));
            let unsettled: Vec<u64> = unsettled.into_iter().filter(|sequence| !is_settled(sequence)).collect();
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
            holds(empty && state.cursor.ranges().count() == 0, Broken::Leak, || format!("{state:?}"))?;
        }
        let core = &self.core;
        let outbox = &self.durable.outbox;
        holds(outbox.is_empty(), Broken::Stuck, || format!("not published: {outbox:?}"))?;
        let missing = (0..self.durable.next_row).find(|row| !self.broker.events.contains(&crate::ids::RowId(*row)));
        holds(missing.is_none(), Broken::RowRemoved, || format!("row {missing:?} never reached JetStream"))?;
        let empty = core.claims.is_empty() && core.blocked.is_empty() && core.timers.is_empty() && core.open.is_empty();
        holds(empty && core.lanes.is_empty() && core.relay.is_empty(), Broken::Leak, || format!("{core:?}"))
    }
}
