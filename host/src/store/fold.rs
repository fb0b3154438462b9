//! From records of the log to net changes: of several writes of one entry only the last is left, of an event that was published meanwhile nothing.
//!
//! Within a record the edits come before the settlements. Each change counts the writes that it stands for, removals too: as many as the overlay was told of.
//!
//! The changes borrow from the records and are sorted as the tables are, so that each page of a table is touched once.

use std::collections::{BTreeMap, BTreeSet};

use pelton_core::batch::{Again, Newest};
use pelton_core::ids::ConsumerId;
use rustc_hash::FxHashSet;

use super::error::CheckpointError;
use super::record::{
    AppliedRecord, BatchRecord, DeadLetterRecord, EditRecord, EventRecord, OutcomeRecord, ParkedRecord, PlaceRecord,
    SettlementRecord, SpaceRecord, ValueRecord,
};
use super::view::Consumer;

/// The last write of one state entry.
pub(super) struct StateChange<'r> {
    pub(super) consumer: u32,
    pub(super) scope_key: Option<&'r str>,
    pub(super) space: SpaceRecord,
    pub(super) key: &'r str,
    /// None: deleted.
    pub(super) value: Option<ValueRecord<'r>>,
    /// How many writes it is the last of.
    pub(super) writes: u32,
}

impl<'r> StateChange<'r> {
    /// Sorts as the encoded keys do.
    fn order(&self) -> (u32, Option<(usize, &'r str)>, SpaceRecord, &'r str) {
        (self.consumer, self.scope_key.map(|key| (key.len(), key)), self.space, self.key)
    }
}

/// The mark of a message id that was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MarkChange {
    pub(super) consumer: u32,
    pub(super) hash: u128,
    /// How often it is in the records.
    pub(super) writes: u32,
}

/// The last that became of a dead letter.
pub(super) struct DeadLetterChange<'r> {
    pub(super) consumer: u32,
    pub(super) sequence: u64,
    pub(super) published_at_ms: u64,
    /// None: removed.
    pub(super) letter: Option<&'r DeadLetterRecord<'r>>,
    /// How many changes it is the last of.
    pub(super) writes: u32,
}

impl DeadLetterChange<'_> {
    /// Sorts as the encoded keys do.
    fn order(&self) -> (u32, u64, u64) {
        (self.consumer, self.sequence, self.published_at_ms)
    }
}

/// The last that became of a parked message.
pub(super) struct ParkedChange<'r> {
    pub(super) consumer: u32,
    pub(super) place: PlaceRecord<'r>,
    /// None: removed.
    pub(super) row: Option<&'r ParkedRecord<'r>>,
    /// How many changes it is the last of.
    pub(super) writes: u32,
}

impl<'r> ParkedChange<'r> {
    fn order(&self) -> (u32, PlaceRecord<'r>) {
        (self.consumer, self.place)
    }
}

/// An event that waits to be published.
pub(super) struct OutboxAdded<'r> {
    pub(super) row: u64,
    pub(super) consumer: u32,
    pub(super) event: &'r EventRecord<'r>,
    /// When it was committed: milliseconds since 1970-01-01 UTC.
    pub(super) since_ms: u64,
}

impl OutboxChanges<'_> {
    /// Those that have no time yet were committed at this one.
    fn note_times(&mut self, wall_ms: u64) {
        let new = self.added.iter_mut().rev().take_while(|added| added.since_ms == 0);
        new.for_each(|added| added.since_ms = wall_ms);
    }
}

/// Rows to add and rows to remove; none is in both.
#[derive(Default)]
pub(super) struct OutboxChanges<'r> {
    pub(super) added: Vec<OutboxAdded<'r>>,
    pub(super) removed: Vec<u64>,
}

/// The net result of some records.
#[derive(Default)]
pub(super) struct Changes<'r> {
    /// Those whose cursor, binding or holds changed.
    pub(super) consumers: BTreeSet<ConsumerId>,
    pub(super) state: Vec<StateChange<'r>>,
    pub(super) marks: Vec<MarkChange>,
    pub(super) outbox: OutboxChanges<'r>,
    pub(super) dead_letters: Vec<DeadLetterChange<'r>>,
    pub(super) parked: Vec<ParkedChange<'r>>,
    /// Nothing is left of these; nothing of them comes after.
    pub(super) forgotten: Vec<u32>,
    /// One above the last consumer that the records bind.
    pub(super) next_consumer: u32,
    /// One above the last outbox row that the records name.
    pub(super) next_row: u64,
    /// One above the last parked message that the records name.
    pub(super) next_park: u64,
    /// How many deliveries the records settle.
    pub(super) messages: usize,
}

/// Folds records, in the order of their positions, moves the consumers' cursors and sets their holds.
pub(super) fn fold<'r>(
    records: &'r [(u64, BatchRecord<'r>)],
    consumers: &mut BTreeMap<ConsumerId, Consumer>,
) -> Result<Changes<'r>, CheckpointError> {
    let mut changes = Changes::default();
    let mut published = FxHashSet::default();
    for (position, record) in records {
        move_cursors(*position, record, consumers, &mut changes.consumers)?;
        changes.messages += record.settlements.iter().filter(|settlement| settlement.released.is_none()).count();
        for edit in &record.edits {
            gather_edit(edit, &mut changes);
        }
        for settlement in &record.settlements {
            gather(settlement, &mut changes);
        }
        changes.outbox.note_times(record.wall_ms);
        let bound = record.bindings.iter().map(|binding| binding.consumer.saturating_add(1)).max();
        changes.next_consumer = changes.next_consumer.max(bound.unwrap_or_default());
        for forgotten in changes.forgotten.iter().map(|consumer| ConsumerId(*consumer)) {
            consumers.remove(&forgotten);
            changes.consumers.remove(&forgotten);
        }
        published.extend(record.published.iter().copied());
    }
    coalesce_state(&mut changes.state);
    coalesce_marks(&mut changes.marks);
    coalesce_dead_letters(&mut changes.dead_letters);
    coalesce_parked(&mut changes.parked);
    changes.outbox.added.retain(|added| !published.remove(&added.row));
    changes.outbox.added.sort_by_key(|added| added.row);
    changes.outbox.removed = published.into_iter().collect();
    changes.outbox.removed.sort_unstable();
    Ok(changes)
}

fn move_cursors(
    position: u64,
    record: &BatchRecord<'_>,
    consumers: &mut BTreeMap<ConsumerId, Consumer>,
    changed: &mut BTreeSet<ConsumerId>,
) -> Result<(), CheckpointError> {
    for binding in &record.bindings {
        let consumer = consumers.entry(ConsumerId(binding.consumer)).or_default();
        consumer.bind(binding);
        changed.insert(ConsumerId(binding.consumer));
    }
    let mut cursor_of = |consumer: u32, step: &dyn Fn(&mut Consumer)| {
        let consumer = ConsumerId(consumer);
        let unknown = CheckpointError::UnknownConsumer { consumer, position };
        step(consumers.get_mut(&consumer).ok_or(unknown)?);
        changed.insert(consumer);
        Ok(())
    };
    for edit in &record.edits {
        // A consumer that is not known can't have anything that could be changed, so this is checked for all of them.
        cursor_of(edit.consumer(), &|consumer| match edit {
            EditRecord::Hold { by, hold, .. } => consumer.set_hold((*by).into(), *hold),
            EditRecord::MoveCursor { after, again, .. } => consumer.move_cursor(*after, again.map(Again::from)),
            _ => {}
        })?;
    }
    // Floors first: what they cover needs no range of its own on the way.
    for (consumer, floor) in &record.floors {
        cursor_of(*consumer, &|consumer| consumer.cursor.raise_floor(*floor))?;
    }
    for (consumer, sequence, published_at_ms) in &record.newest {
        let newest = Newest { sequence: *sequence, published_at_ms: *published_at_ms };
        cursor_of(*consumer, &|consumer| consumer.newest = Some(newest))?;
    }
    for (consumer, first, last) in &record.stretches {
        cursor_of(*consumer, &|consumer| consumer.cursor.settle_range(*first, *last))?;
    }
    for settlement in &record.settlements {
        // What was released from its parked row was settled when it was parked, maybe in a stream that is gone.
        cursor_of(settlement.consumer, &|consumer| {
            if settlement.released.is_none() {
                consumer.cursor.settle(settlement.sequence);
            }
        })?;
    }
    Ok(())
}

fn gather_edit<'r>(edit: &'r EditRecord<'r>, changes: &mut Changes<'r>) {
    match edit {
        EditRecord::RemoveDeadLetter { consumer, sequence, published_at_ms } => {
            changes.dead_letters.push(DeadLetterChange {
                consumer: *consumer,
                sequence: *sequence,
                published_at_ms: *published_at_ms,
                letter: None,
                writes: 1,
            });
        }
        EditRecord::Park { consumer, row } => gather_parked(*consumer, row, changes),
        EditRecord::RemoveParked { consumer, place } => {
            changes.parked.push(ParkedChange { consumer: *consumer, place: *place, row: None, writes: 1 });
        }
        EditRecord::State { consumer, key, writes } => changes.state.extend(writes.iter().map(|write| StateChange {
            consumer: *consumer,
            scope_key: *key,
            space: write.space,
            key: write.key,
            value: write.value,
            writes: 1,
        })),
        EditRecord::Forget { consumer } => changes.forgotten.push(*consumer),
        EditRecord::Hold { .. } | EditRecord::MoveCursor { .. } => {}
    }
}

fn gather<'r>(settlement: &'r SettlementRecord<'r>, changes: &mut Changes<'r>) {
    let SettlementRecord { consumer, sequence, released, outcome } = settlement;
    let consumer = *consumer;
    match outcome {
        OutcomeRecord::Applied(applied) => gather_applied(consumer, applied, changes),
        OutcomeRecord::Duplicate | OutcomeRecord::Stale => {}
        OutcomeRecord::DeadLettered { letter, copy } => {
            changes.dead_letters.push(DeadLetterChange {
                consumer,
                sequence: *sequence,
                published_at_ms: letter.message.published_at_ms,
                letter: Some(letter),
                writes: 1,
            });
            if let Some((row, event)) = copy {
                changes.outbox.added.push(OutboxAdded { row: *row, consumer, event, since_ms: 0 });
                changes.next_row = changes.next_row.max(row + 1);
            }
        }
        OutcomeRecord::Parked(row) => {
            // It replaces the row that it was released from: nothing is to be removed, and nobody was told of a removal.
            gather_parked(consumer, row, changes);
            return;
        }
    }
    if let Some(place) = released {
        changes.parked.push(ParkedChange { consumer, place: *place, row: None, writes: 1 });
    }
}

fn gather_parked<'r>(consumer: u32, row: &'r ParkedRecord<'r>, changes: &mut Changes<'r>) {
    changes.next_park = changes.next_park.max(row.id + 1);
    changes.parked.push(ParkedChange { consumer, place: row.place(), row: Some(row), writes: 1 });
}

fn gather_applied<'r>(consumer: u32, applied: &'r AppliedRecord<'r>, changes: &mut Changes<'r>) {
    changes.state.extend(applied.state.iter().map(|write| StateChange {
        consumer,
        scope_key: applied.state_key,
        space: write.space,
        key: write.key,
        value: write.value,
        writes: 1,
    }));
    changes.marks.extend(applied.mark.map(|mark| MarkChange { consumer, hash: u128::from_be_bytes(mark), writes: 1 }));
    let rows = (applied.first_row..).zip(&applied.events);
    changes.outbox.added.extend(rows.map(|(row, event)| OutboxAdded { row, consumer, event, since_ms: 0 }));
    changes.next_row = changes.next_row.max(applied.first_row + applied.events.len() as u64);
}

/// Leaves the last write of each entry. The sort is stable, so that of equal ones the last is the newest.
fn coalesce_state(state: &mut Vec<StateChange<'_>>) {
    state.sort_by(|a, b| a.order().cmp(&b.order()));
    state.dedup_by(|later, kept| {
        let same = later.order() == kept.order();
        if same {
            kept.value = later.value;
            kept.writes += later.writes;
        }
        same
    });
}

fn coalesce_marks(marks: &mut Vec<MarkChange>) {
    marks.sort_unstable();
    marks.dedup_by(|later, kept| {
        let same = (later.consumer, later.hash) == (kept.consumer, kept.hash);
        if same {
            kept.writes += later.writes;
        }
        same
    });
}

/// Leaves the last of each; the sort is stable.
fn coalesce_dead_letters(letters: &mut Vec<DeadLetterChange<'_>>) {
    letters.sort_by_key(DeadLetterChange::order);
    letters.dedup_by(|later, kept| {
        let same = later.order() == kept.order();
        if same {
            kept.letter = later.letter;
            kept.writes += later.writes;
        }
        same
    });
}

/// Leaves the last of each; the sort is stable.
fn coalesce_parked(parked: &mut Vec<ParkedChange<'_>>) {
    parked.sort_by_key(ParkedChange::order);
    parked.dedup_by(|later, kept| {
        let same = later.order() == kept.order();
        if same {
            kept.row = later.row;
            kept.writes += later.writes;
        }
        same
    });
}
