//! The store as the simulation needs it: folds batches, and checks each as it becomes durable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::streams::Broker;
use super::violation::{Broken, Checked, holds};
use crate::batch::{Batch, Outcome};
use crate::cursor::Cursor;
use crate::effects::Event;
use crate::ids::{ConsumerId, IdHash, RowId};
use crate::machine::{KnownConsumer, OutboxRow, Recovered};

/// What is durable.
#[derive(Debug, Default)]
pub(super) struct Durable {
    pub(super) consumers: BTreeMap<ConsumerId, KnownConsumer>,
    pub(super) marks: BTreeSet<(ConsumerId, IdHash)>,
    pub(super) outbox: BTreeMap<RowId, (ConsumerId, Arc<Event>)>,
    pub(super) next_row: u64,
    /// Every settled message: consumer, incarnation of the stream, sequence.
    pub(super) settled: BTreeSet<(ConsumerId, i64, u64)>,
    /// The last message of each key that was applied: for the checks only.
    pub(super) last_of_key: BTreeMap<(ConsumerId, i64, Arc<str>), u64>,
}

impl Durable {
    /// Folds a batch: what a real store does, and no more.
    pub(super) fn apply(&mut self, batch: &Batch, broker: &Broker) -> Checked {
        for binding in &batch.bindings {
            let (id, name, stream) = (binding.consumer, binding.name.clone(), binding.stream.clone());
            let cursor = Cursor::at(binding.floor);
            self.consumers.insert(id, KnownConsumer { id, name, stream, cursor });
        }
        for settlement in &batch.settlements {
            let consumer = settlement.consumer;
            let known = self.consumers.get_mut(&consumer).expect("bound before anything is settled");
            known.cursor.settle(settlement.sequence);
            let created = known.stream.created_ns;
            let new = self.settled.insert((consumer, created, settlement.sequence));
            holds(new, Broken::Twice, || format!("{consumer:?} settles {} again", settlement.sequence))?;
            self.apply_outcome(consumer, created, settlement.sequence, &settlement.outcome, broker)?;
        }
        for (consumer, floor) in &batch.floors {
            self.consumers.get_mut(consumer).expect("bound").cursor.raise_floor(*floor);
            self.covered(broker, *consumer, *floor, "the floor in a batch")?;
        }
        for (consumer, first, last) in &batch.stretches {
            self.consumers.get_mut(consumer).expect("bound").cursor.settle_range(*first, *last);
            self.settled_within(broker, *consumer, *first, *last, "a stretch in a batch")?;
        }
        for row in &batch.published {
            holds(broker.events.contains(row), Broken::RowRemoved, || {
                format!("{row:?} is removed, JetStream has it not")
            })?;
            self.outbox.remove(row);
        }
        Ok(())
    }

    fn apply_outcome(
        &mut self,
        consumer: ConsumerId,
        created: i64,
        sequence: u64,
        outcome: &Outcome,
        broker: &Broker,
    ) -> Checked {
        let message = broker.streams.get(&(consumer, created)).and_then(|stream| stream.messages.get(&sequence));
        let message = message.expect("only what was delivered is settled");
        match outcome {
            Outcome::Applied { mark, writes, first_row, state_key, .. } => {
                holds(*mark == message.mark, Broken::Books, || format!("{sequence} is marked with {mark:?}"))?;
                holds(state_key.is_none() || *state_key == message.key, Broken::Books, || {
                    format!("{sequence} changes the state of {state_key:?}")
                })?;
                let new = mark.is_none_or(|mark| self.marks.insert((consumer, mark)));
                holds(new, Broken::Twice, || format!("{consumer:?} applies {} again, as {sequence}", message.id))?;
                if let Some(key) = message.key.clone() {
                    let last = self.last_of_key.insert((consumer, created, key), sequence).unwrap_or(0);
                    holds(last < sequence, Broken::KeyOrder, || format!("{consumer:?}: {sequence} after {last}"))?;
                }
                for (row, event) in (first_row.0..).zip(&writes.events) {
                    holds(row >= self.next_row, Broken::Books, || format!("row {row} is used again"))?;
                    self.next_row = row + 1;
                    self.outbox.insert(RowId(row), (consumer, Arc::clone(event)));
                }
            }
            Outcome::Duplicate => {
                let known = message.mark.is_some_and(|mark| self.marks.contains(&(consumer, mark)));
                holds(known, Broken::Books, || format!("{consumer:?}: {sequence} is no duplicate"))?;
            }
            Outcome::DeadLettered(letter) => {
                holds(letter.message == *message, Broken::Books, || format!("dead letter of {sequence}: {letter:?}"))?;
            }
        }
        Ok(())
    }

    /// Nothing of the stream that the consumer is bound to is unsettled up to `floor`.
    pub(super) fn covered(&self, broker: &Broker, consumer: ConsumerId, floor: u64, what: &str) -> Checked {
        self.settled_within(broker, consumer, 0, floor, what)
    }

    fn settled_within(&self, broker: &Broker, consumer: ConsumerId, first: u64, last: u64, what: &str) -> Checked {
        let Some(created) = self.consumers.get(&consumer).map(|known| known.stream.created_ns) else { return Ok(()) };
        let Some(stream) = broker.streams.get(&(consumer, created)) else { return Ok(()) };
        let unsettled =
            stream.messages.range(first..=last).find(|(s, _)| !self.settled.contains(&(consumer, created, **s)));
        holds(unsettled.is_none(), Broken::SettledTooEarly, || {
            format!(
                "{what} of {consumer:?} goes from {first} to {last}, unsettled is {:?}",
                unsettled.map(|(sequence, _)| sequence)
            )
        })
    }

    /// What a start finds.
    pub(super) fn recovered(&self) -> Recovered {
        let row = |(row, (consumer, event)): (&RowId, &(ConsumerId, Arc<Event>))| OutboxRow {
            row: *row,
            consumer: *consumer,
            event: Arc::clone(event),
        };
        Recovered {
            consumers: self.consumers.values().cloned().collect(),
            outbox: self.outbox.iter().map(row).collect(),
            next_row: self.next_row,
        }
    }
}
