//! From records of the log to net changes: of several writes of one entry only the last is left, of an event that was published meanwhile nothing.
//!
//! Within a record the edits come before the settlements. Each change counts the writes that it stands for, removals too: as many as the overlay was told of.
//!
//! The changes borrow from the bytes of the records and are sorted as the tables are, so that each page of a table is touched once. Records are decoded one by one: all
//! of a checkpoint's at once would be as much memory again as their bytes.

use std::collections::{BTreeMap, BTreeSet};

use pelton_core::batch::{Again, Newest};
use pelton_core::ids::ConsumerId;
use rustc_hash::FxHashMap;

use super::error::CheckpointError;
use super::record::{
    AppliedRecord, BatchRecord, DeadLetterRecord, EditRecord, EventRecord, OutcomeRecord, ParkedRecord, PlaceRecord,
    SettlementRecord, SpaceRecord, StateRecord, ValueRecord,
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
    pub(super) letter: Option<Box<DeadLetterRecord<'r>>>,
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
    pub(super) row: Option<Box<ParkedRecord<'r>>>,
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
    pub(super) event: EventRecord<'r>,
    /// When it was committed: milliseconds since 1970-01-01 UTC.
    pub(super) since_ms: u64,
}

/// The outbox while records are folded. Nothing is published before its commit is durable, so the record that says so comes after the one that adds the row.
#[derive(Default)]
struct Outbox<'r> {
    waiting: FxHashMap<u64, OutboxAdded<'r>>,
    /// Those that the view has, if anybody has.
    published: Vec<u64>,
}

impl<'r> Outbox<'r> {
    fn add(&mut self, added: OutboxAdded<'r>) {
        self.waiting.insert(added.row, added);
    }

    fn publish(&mut self, row: u64) {
        if self.waiting.remove(&row).is_none() {
            self.published.push(row);
        }
    }

    fn into_changes(self) -> OutboxChanges<'r> {
        let (mut added, mut removed): (Vec<_>, _) = (self.waiting.into_values().collect(), self.published);
        added.sort_unstable_by_key(|added| added.row);
        removed.sort_unstable();
        OutboxChanges { added, removed }
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
    records: impl Iterator<Item = Result<(u64, BatchRecord<'r>), CheckpointError>>,
    consumers: &mut BTreeMap<ConsumerId, Consumer>,
) -> Result<Changes<'r>, CheckpointError> {
    let mut changes = Changes::default();
    let mut outbox = Outbox::default();
    for record in records {
        let (position, record) = record?;
        move_cursors(position, &record, consumers, &mut changes.consumers)?;
        changes.messages += record.settlements.iter().filter(|settlement| settlement.released.is_none()).count();
        for edit in record.edits {
            gather_edit(edit, &mut changes);
        }
        let mut gathered = Gathered { changes: &mut changes, outbox: &mut outbox, wall_ms: record.wall_ms };
        for settlement in record.settlements {
            gathered.take(settlement);
        }
        let bound = record.bindings.iter().map(|binding| binding.consumer.saturating_add(1)).max();
        changes.next_consumer = changes.next_consumer.max(bound.unwrap_or_default());
        for forgotten in changes.forgotten.iter().map(|consumer| ConsumerId(*consumer)) {
            consumers.remove(&forgotten);
            changes.consumers.remove(&forgotten);
        }
        record.published.into_iter().for_each(|row| outbox.publish(row));
    }
    coalesce_state(&mut changes.state);
    coalesce_marks(&mut changes.marks);
    coalesce_dead_letters(&mut changes.dead_letters);
    coalesce_parked(&mut changes.parked);
    changes.outbox = outbox.into_changes();
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

fn gather_edit<'r>(edit: EditRecord<'r>, changes: &mut Changes<'r>) {
    match edit {
        EditRecord::RemoveDeadLetter { consumer, sequence, published_at_ms } => {
            let removed = DeadLetterChange { consumer, sequence, published_at_ms, letter: None, writes: 1 };
            changes.dead_letters.push(removed);
        }
        EditRecord::Park { consumer, row } => gather_parked(consumer, row, changes),
        EditRecord::RemoveParked { consumer, place } => {
            changes.parked.push(ParkedChange { consumer, place, row: None, writes: 1 });
        }
        EditRecord::State { consumer, key, writes } => gather_state(consumer, key, &writes, changes),
        EditRecord::Forget { consumer } => changes.forgotten.push(consumer),
        EditRecord::Hold { .. } | EditRecord::MoveCursor { .. } => {}
    }
}

fn gather_parked<'r>(consumer: u32, row: Box<ParkedRecord<'r>>, changes: &mut Changes<'r>) {
    changes.next_park = changes.next_park.max(row.id + 1);
    changes.parked.push(ParkedChange { consumer, place: row.place(), row: Some(row), writes: 1 });
}

fn gather_state<'r>(consumer: u32, scope_key: Option<&'r str>, writes: &[StateRecord<'r>], changes: &mut Changes<'r>) {
    changes.state.extend(writes.iter().map(|write| StateChange {
        consumer,
        scope_key,
        space: write.space,
        key: write.key,
        value: write.value,
        writes: 1,
    }));
}

/// Where the settlements of a record go.
struct Gathered<'c, 'r> {
    changes: &'c mut Changes<'r>,
    outbox: &'c mut Outbox<'r>,
    wall_ms: u64,
}

impl<'r> Gathered<'_, 'r> {
    fn take(&mut self, settlement: SettlementRecord<'r>) {
        let SettlementRecord { consumer, sequence, released, outcome } = settlement;
        match outcome {
            OutcomeRecord::Applied(applied) => self.take_applied(consumer, applied),
            OutcomeRecord::Duplicate | OutcomeRecord::Stale => {}
            OutcomeRecord::DeadLettered { letter, copy } => {
                let published_at_ms = letter.message.published_at_ms;
                let letter = DeadLetterChange { consumer, sequence, published_at_ms, letter: Some(letter), writes: 1 };
                self.changes.dead_letters.push(letter);
                if let Some((row, event)) = copy {
                    self.add_event(row, consumer, *event);
                }
            }
            OutcomeRecord::Parked(row) => {
                // It replaces the row that it was released from: nothing is to be removed, and nobody was told of a removal.
                gather_parked(consumer, row, self.changes);
                return;
            }
        }
        if let Some(place) = released {
            self.changes.parked.push(ParkedChange { consumer, place, row: None, writes: 1 });
        }
    }

    fn take_applied(&mut self, consumer: u32, applied: AppliedRecord<'r>) {
        gather_state(consumer, applied.state_key, &applied.state, self.changes);
        let mark = applied.mark.map(|mark| MarkChange { consumer, hash: u128::from_be_bytes(mark), writes: 1 });
        self.changes.marks.extend(mark);
        for (row, event) in (applied.first_row..).zip(applied.events) {
            self.add_event(row, consumer, event);
        }
        // Rows are given out for none as well.
        self.changes.next_row = self.changes.next_row.max(applied.first_row);
    }

    fn add_event(&mut self, row: u64, consumer: u32, event: EventRecord<'r>) {
        self.changes.next_row = self.changes.next_row.max(row + 1);
        self.outbox.add(OutboxAdded { row, consumer, event, since_ms: self.wall_ms });
    }
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
            kept.letter = later.letter.take();
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
            kept.row = later.row.take();
            kept.writes += later.writes;
        }
        same
    });
}
