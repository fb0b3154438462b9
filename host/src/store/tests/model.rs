//! What a store must hold: plain maps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pelton_core::batch::{Batch, Edit, Hold, HoldBy, Outcome, Settlement, StreamIdentity};
use pelton_core::cursor::Cursor;
use pelton_core::effects::{Event, Space, StateValue};
use pelton_core::ids::{ConsumerId, IdHash, RowId};
use pelton_core::message::DeadLetter;
use pelton_core::parked::{ParkPlace, Parked, ParkedLane};

/// A [`pelton_core::effects::Scope`] that can be ordered.
pub(super) type Scope2 = (ConsumerId, Option<Arc<str>>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) consumers: BTreeMap<ConsumerId, (StreamIdentity, Cursor)>,
    pub(super) holds: BTreeMap<(ConsumerId, HoldBy), Hold>,
    pub(super) state: BTreeMap<(Scope2, Space, Box<str>), StateValue>,
    pub(super) marks: BTreeSet<(ConsumerId, IdHash)>,
    pub(super) outbox: BTreeMap<RowId, (ConsumerId, Event)>,
    pub(super) dead_letters: BTreeMap<(ConsumerId, u64, u64), Arc<DeadLetter>>,
    pub(super) parked: BTreeMap<(ConsumerId, ParkPlace), Arc<Parked>>,
    pub(super) next_row: u64,
    pub(super) next_park: u64,
}

impl Model {
    pub(super) fn apply_batch(&mut self, batch: &Batch) {
        for binding in &batch.bindings {
            self.consumers.insert(binding.consumer, (binding.stream.clone(), Cursor::at(binding.floor)));
        }
        batch.edits.iter().for_each(|edit| self.apply_edit(edit));
        for settlement in &batch.settlements {
            if settlement.released.is_none() {
                self.consumers.get_mut(&settlement.consumer).unwrap().1.settle(settlement.sequence);
            }
            self.apply_outcome(settlement);
        }
        for (consumer, floor) in &batch.floors {
            self.consumers.get_mut(consumer).unwrap().1.raise_floor(*floor);
        }
        for (consumer, first, last) in &batch.stretches {
            self.consumers.get_mut(consumer).unwrap().1.settle_range(*first, *last);
        }
        for row in &batch.published {
            self.outbox.remove(row);
        }
    }

    pub(super) fn apply_edit(&mut self, edit: &Edit) {
        match edit {
            Edit::RemoveDeadLetter { consumer, sequence, published_at_ms } => {
                self.dead_letters.remove(&(*consumer, *sequence, *published_at_ms));
            }
            Edit::Park { consumer, row } => self.park(*consumer, row),
            Edit::RemoveParked { consumer, place } => _ = self.parked.remove(&(*consumer, place.clone())),
            Edit::Hold { consumer, by, hold: Some(hold) } => _ = self.holds.insert((*consumer, *by), hold.clone()),
            Edit::Hold { consumer, by, hold: None } => _ = self.holds.remove(&(*consumer, *by)),
            Edit::MoveCursor { consumer, after, again } => {
                let cursor = &mut self.consumers.get_mut(consumer).unwrap().1;
                match again {
                    Some(_) => *cursor = Cursor::at(*after),
                    None => cursor.raise_floor(*after),
                }
            }
            Edit::State { consumer, key, writes } => {
                for write in &writes.state {
                    let entry = ((*consumer, key.clone()), write.space, write.key.clone());
                    match &write.value {
                        Some(value) => self.state.insert(entry, value.clone()),
                        None => self.state.remove(&entry),
                    };
                }
            }
            Edit::Forget { consumer } => {
                self.consumers.remove(consumer);
                self.holds.retain(|(of, _), _| of != consumer);
                self.state.retain(|((of, _), ..), _| of != consumer);
                self.marks.retain(|(of, _)| of != consumer);
                self.dead_letters.retain(|(of, ..), _| of != consumer);
                self.parked.retain(|(of, _), _| of != consumer);
            }
        }
    }

    fn park(&mut self, consumer: ConsumerId, row: &Arc<Parked>) {
        self.next_park = self.next_park.max(row.id.0 + 1);
        self.parked.insert((consumer, row.place()), row.clone());
    }

    /// All that a settlement does but to the cursor.
    pub(super) fn apply_outcome(&mut self, settlement: &Settlement) {
        let consumer = settlement.consumer;
        if let Some(place) = &settlement.released {
            self.parked.remove(&(consumer, place.clone()));
        }
        match &settlement.outcome {
            Outcome::Applied { mark, state_key, writes, first_row, .. } => {
                self.marks.extend(mark.map(|mark| (consumer, mark)));
                for write in &writes.state {
                    let entry = ((consumer, state_key.clone()), write.space, write.key.clone());
                    match &write.value {
                        Some(value) => self.state.insert(entry, value.clone()),
                        None => self.state.remove(&entry),
                    };
                }
                (first_row.0..).zip(&writes.events).for_each(|(row, event)| self.emit(consumer, row, event));
                self.next_row = self.next_row.max(first_row.0 + writes.events.len() as u64);
            }
            Outcome::Duplicate | Outcome::Stale => {}
            Outcome::Parked(row) => self.park(consumer, row),
            Outcome::DeadLettered { letter, copy } => {
                let key = (consumer, settlement.sequence, letter.message.published_at_ms);
                self.dead_letters.insert(key, letter.clone());
                if let Some((row, event)) = copy {
                    self.emit(consumer, row.0, event);
                }
            }
        }
    }

    fn emit(&mut self, consumer: ConsumerId, row: u64, event: &Event) {
        self.outbox.insert(RowId(row), (consumer, event.clone()));
        self.next_row = self.next_row.max(row + 1);
    }

    /// What a start must be told of the lanes.
    pub(super) fn lanes(&self) -> Vec<ParkedLane> {
        let lanes: BTreeSet<_> = self.parked.keys().map(|(consumer, place)| (*consumer, place.lane.clone())).collect();
        let lane = |(consumer, lane)| {
            let in_lane = |(of, place): &(ConsumerId, ParkPlace)| *of == consumer && place.lane == lane;
            let rows: Vec<_> = self.parked.iter().filter(|(key, _)| in_lane(key)).map(|(_, row)| row).collect();
            let aside: Vec<_> = rows.iter().filter(|row| row.cause.is_aside()).collect();
            ParkedLane {
                consumer,
                rows: rows.len() as u64,
                holding: rows.iter().find(|row| row.cause.holds_key()).map(|row| (row.cause, row.until_ms)),
                aside: aside.len() as u64,
                aside_until_ms: aside.iter().filter_map(|row| row.until_ms).min(),
                lowest_order: rows.iter().map(|row| row.place().order).min().unwrap(),
                lane,
            }
        };
        lanes.into_iter().map(lane).collect()
    }
}
