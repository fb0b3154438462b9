//! The store as the simulation needs it: folds batches, and checks each as it becomes durable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::streams::Broker;
use super::violation::{Broken, Checked, holds};
use crate::batch::{Again, Batch, Edit, Outcome, Settlement};
use crate::cursor::Cursor;
use crate::effects::Event;
use crate::ids::{ConsumerId, IdHash, RowId};
use crate::machine::{KnownConsumer, OutboxRow, Recovered};
use crate::message::{DeadLetter, Message};
use crate::parked::{ParkCause, ParkPlace, Parked, ParkedLane};

/// A message: its consumer, the incarnation of its stream, its sequence.
pub(super) type Name = (ConsumerId, i64, u64);

/// The parked messages of all consumers.
pub(super) type ParkedRows = BTreeMap<(ConsumerId, ParkPlace), Arc<Parked>>;

pub(super) fn name_of(consumer: ConsumerId, message: &Message) -> Name {
    (consumer, message.stream.created_ns, message.sequence)
}

/// What was applied of each key, durably or not: enough to tell what may be applied next.
#[derive(Clone, Debug, Default)]
pub(super) struct Applied {
    messages: BTreeSet<Name>,
    /// The last message of each key, by incarnation and sequence.
    last: BTreeMap<(ConsumerId, Arc<str>), (i64, u64)>,
    /// The last version of each entity.
    pub(super) versions: BTreeMap<(ConsumerId, Arc<str>), u64>,
    /// Messages that left the order of their key: set aside, or replayed.
    pub(super) excused: BTreeSet<Name>,
}

impl Applied {
    /// A message is applied: for the first time, and in its turn.
    pub(super) fn add(&mut self, consumer: ConsumerId, message: &Message) -> Checked {
        let name = name_of(consumer, message);
        holds(self.messages.insert(name), Broken::Twice, || format!("{name:?} is applied again"))?;
        let Some(key) = message.key.clone() else { return Ok(()) };
        if let Some(version) = message.entity_version {
            let last = self.versions.insert((consumer, key), version);
            return holds(last.is_none_or(|last| last < version), Broken::KeyOrder, || {
                format!("{name:?}: version {version} after {last:?}")
            });
        }
        if self.excused.contains(&name) {
            return Ok(());
        }
        let last = self.last.insert((consumer, key), (name.1, name.2)).unwrap_or_default();
        holds(last < (name.1, name.2), Broken::KeyOrder, || format!("{name:?} is applied after {last:?}"))
    }

    pub(super) fn note_parked(&mut self, consumer: ConsumerId, row: &Parked) {
        if row.cause.is_aside() || row.cause == ParkCause::Replayed {
            self.excused.insert(name_of(consumer, &row.message));
        }
    }
}

/// What is durable.
#[derive(Debug, Default)]
pub(super) struct Durable {
    pub(super) consumers: BTreeMap<ConsumerId, KnownConsumer>,
    pub(super) marks: BTreeSet<(ConsumerId, IdHash)>,
    pub(super) outbox: BTreeMap<RowId, (ConsumerId, Arc<Event>)>,
    pub(super) next_row: u64,
    /// Every message that is settled with its stream.
    pub(super) settled: BTreeSet<Name>,
    /// Every message that needs no attempt any more.
    pub(super) finished: BTreeSet<Name>,
    pub(super) applied: Applied,
    pub(super) parked: ParkedRows,
    pub(super) next_park: u64,
    pub(super) dead: BTreeMap<Name, Arc<DeadLetter>>,
}

impl Durable {
    /// Folds a batch: what a real store does, and no more.
    pub(super) fn apply(&mut self, batch: &Batch, broker: &Broker) -> Checked {
        for binding in &batch.bindings {
            let (id, name, stream) = (binding.consumer, binding.name.clone(), binding.stream.clone());
            let holds = self.consumers.get(&id).map_or_else(Vec::new, |known| known.holds.clone());
            self.consumers.insert(
                id,
                KnownConsumer {
                    id,
                    name,
                    stream,
                    cursor: Cursor::at(binding.floor),
                    holds,
                    newest: None,
                    again: Again::default(),
                },
            );
        }
        batch.edits.iter().try_for_each(|edit| self.edit(edit))?;
        batch.settlements.iter().try_for_each(|settlement| self.settle(settlement, broker))?;
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

    fn edit(&mut self, edit: &Edit) -> Checked {
        match edit {
            Edit::RemoveDeadLetter { consumer, sequence, published_at_ms } => {
                // In this world a message says of which incarnation it is by the time of its publishing.
                let letter = self.dead.remove(&(*consumer, *published_at_ms as i64, *sequence));
                holds(letter.is_some(), Broken::Books, || format!("{edit:?}: there is none"))
            }
            Edit::Park { consumer, row } => {
                self.finished.remove(&name_of(*consumer, &row.message));
                self.park(*consumer, row);
                Ok(())
            }
            Edit::RemoveParked { consumer, place } => {
                let row = self.parked.remove(&(*consumer, place.clone()));
                self.finished.extend(row.as_ref().map(|row| name_of(*consumer, &row.message)));
                holds(row.is_some(), Broken::Books, || format!("{edit:?}: there is none"))
            }
            Edit::Hold { consumer, by, hold } => {
                let known = self.consumers.get_mut(consumer).expect("bound before it is held");
                known.holds.retain(|(other, _)| other != by);
                known.holds.extend(hold.clone().map(|hold| (*by, hold)));
                Ok(())
            }
            Edit::MoveCursor { .. } | Edit::State { .. } | Edit::Forget { .. } => {
                holds(false, Broken::Books, || format!("{edit:?}: nobody asked for it"))
            }
        }
    }

    fn park(&mut self, consumer: ConsumerId, row: &Arc<Parked>) {
        self.next_park = self.next_park.max(row.id.0 + 1);
        self.applied.note_parked(consumer, row);
        self.parked.insert((consumer, row.place()), Arc::clone(row));
    }

    fn settle(&mut self, settlement: &Settlement, broker: &Broker) -> Checked {
        let Settlement { consumer, sequence, released, outcome } = settlement;
        let known = self.consumers.get_mut(consumer).expect("bound before anything is settled");
        let mut message = None;
        if let Some(place) = released {
            let row = self.parked.remove(&(*consumer, place.clone()));
            message = row.map(|row| Arc::clone(&row.message));
            holds(message.is_some(), Broken::Twice, || format!("{settlement:?}: it is not parked"))?;
        } else {
            known.cursor.settle(*sequence);
            let name = (*consumer, known.stream.created_ns, *sequence);
            let new = self.settled.insert(name);
            holds(new, Broken::Twice, || format!("{name:?} is settled again"))?;
            let stream = broker.streams.get(&(name.0, name.1));
            message = message.or_else(|| stream?.messages.get(sequence).cloned());
        }
        let message = message.expect("only what was delivered is settled");
        if !matches!(outcome, Outcome::Parked(_)) {
            self.finished.insert(name_of(*consumer, &message));
        }
        self.apply_outcome(*consumer, &message, outcome)
    }

    fn apply_outcome(&mut self, consumer: ConsumerId, message: &Message, outcome: &Outcome) -> Checked {
        let name = name_of(consumer, message);
        match outcome {
            Outcome::Applied { mark, writes, first_row, state_key, .. } => {
                holds(*mark == message.mark, Broken::Books, || format!("{name:?} is marked with {mark:?}"))?;
                holds(state_key.is_none() || *state_key == message.key, Broken::Books, || {
                    format!("{name:?} changes the state of {state_key:?}")
                })?;
                let new = mark.is_none_or(|mark| self.marks.insert((consumer, mark)));
                holds(new, Broken::Twice, || format!("{} is applied again, as {name:?}", message.id))?;
                self.applied.add(consumer, message)?;
                for (row, event) in (first_row.0..).zip(&writes.events) {
                    self.emit(consumer, RowId(row), event)?;
                }
                Ok(())
            }
            Outcome::Duplicate => {
                let known = message.mark.is_some_and(|mark| self.marks.contains(&(consumer, mark)));
                holds(known, Broken::Lost, || format!("{name:?} is no duplicate"))
            }
            Outcome::Stale => {
                let key = message.key.clone().expect("only keyed messages have versions");
                let last = self.applied.versions.get(&(consumer, key)).copied();
                holds(message.entity_version <= last, Broken::Lost, || {
                    format!("{name:?} is not stale, {last:?} is last")
                })
            }
            Outcome::DeadLettered { letter, copy } => {
                holds(*letter.message == *message, Broken::Books, || format!("dead letter of {name:?}: {letter:?}"))?;
                self.dead.insert(name, Arc::clone(letter));
                copy.as_ref().map_or(Ok(()), |(row, event)| self.emit(consumer, *row, event))
            }
            Outcome::Parked(row) => {
                holds(*row.message == *message, Broken::Books, || format!("{name:?} is parked as {row:?}"))?;
                self.park(consumer, row);
                Ok(())
            }
        }
    }

    fn emit(&mut self, consumer: ConsumerId, row: RowId, event: &Arc<Event>) -> Checked {
        holds(row.0 >= self.next_row, Broken::Books, || format!("{row:?} is used again"))?;
        self.next_row = row.0 + 1;
        self.outbox.insert(row, (consumer, Arc::clone(event)));
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
            let unsettled = unsettled.map(|(sequence, _)| sequence);
            format!("{what} of {consumer:?} goes from {first} to {last}, unsettled is {unsettled:?}")
        })
    }

    /// What a start finds.
    pub(super) fn recovered(&self) -> Recovered {
        let row = |(row, (consumer, event)): (&RowId, &(ConsumerId, Arc<Event>))| OutboxRow {
            row: *row,
            consumer: *consumer,
            event: Arc::clone(event),
            since_ms: 0,
        };
        let mut parked: Vec<ParkedLane> = Vec::new();
        // Rows of one lane stand side by side, in order.
        for ((consumer, place), row) in &self.parked {
            if parked.last().is_none_or(|last| (last.consumer, &last.lane) != (*consumer, &place.lane)) {
                parked.push(ParkedLane {
                    consumer: *consumer,
                    lane: place.lane.clone(),
                    rows: 0,
                    holding: None,
                    aside: 0,
                    aside_until_ms: None,
                    lowest_order: place.order,
                });
            }
            let lane = parked.last_mut().expect("there is one now");
            lane.rows += 1;
            if row.cause.holds_key() {
                lane.holding.get_or_insert((row.cause, row.until_ms));
            }
            if row.cause.is_aside() {
                lane.aside += 1;
                lane.aside_until_ms = lane.aside_until_ms.into_iter().chain(row.until_ms).min();
            }
        }
        Recovered {
            consumers: self.consumers.values().cloned().collect(),
            outbox: self.outbox.iter().map(row).collect(),
            next_row: self.next_row,
            parked,
            next_park: self.next_park,
            next_consumer: 0,
        }
    }
}
