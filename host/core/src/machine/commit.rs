//! The open batch, where outcomes wait for the next commit in the order in which they came, and the commit that is under way.
//!
//! What always holds: one commit is under way at a time; deliveries are settled with JetStream, and events handed to the relay, when it is durable.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::core::{Core, Timer};
use super::event::{Action, OutboxRow};
use crate::batch::{Batch, Binding, Edit, Newest, Outcome, Settlement};
use crate::breaks::Break;
use crate::ids::{ConsumerId, RowId};

/// Outcomes and edits of one record, at most.
const ITEMS_MAX: usize = 8_192;
/// Effects of one record, in bytes, at most (one outcome may pass it).
const BYTES_MAX: usize = 8 << 20;
/// Acknowledged rows that are worth a commit of their own.
const PUBLISHED_WORTH_A_COMMIT: usize = 16_384;

/// Effects that may wait for the commit, in bytes: at them no further run begins (those that are out may pass it).
const OPEN_BYTES_MAX: usize = 64 << 20;

/// One thing that waits for the next commit.
#[derive(Debug)]
enum Item {
    Edit(Edit),
    /// With the time at which its stream stored the message.
    Settlement(Settlement, u64),
}

/// What waits for the next commit, in the order in which it came.
#[derive(Debug, Default)]
pub(crate) struct OpenBatch {
    pub(crate) bindings: Vec<Binding>,
    items: VecDeque<(Item, usize)>,
    bytes: usize,
    pub(crate) published: Vec<RowId>,
}

impl OpenBatch {
    /// Appends an outcome whose effects take `bytes`, of a message that its stream stored at `published_at_ms`.
    pub(crate) fn push(&mut self, settlement: Settlement, published_at_ms: u64, bytes: usize) {
        self.bytes += bytes;
        self.items.push_back((Item::Settlement(settlement, published_at_ms), bytes));
    }

    /// Appends an edit that takes `bytes`.
    pub(crate) fn edit(&mut self, edit: Edit, bytes: usize) {
        self.bytes += bytes;
        self.items.push_back((Item::Edit(edit), bytes));
    }

    /// Whether a commit should begin now. `flush` asks for one even if only acknowledged rows would be in it.
    pub(crate) fn is_due(&self, flush: bool) -> bool {
        !self.bindings.is_empty()
            || !self.items.is_empty()
            || self.published.len() >= PUBLISHED_WORTH_A_COMMIT
            || (flush && !self.published.is_empty())
    }

    /// Whether so much waits that nothing more should be begun: the disk does not keep up.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= OPEN_BYTES_MAX
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.is_due(true)
    }

    /// Takes what goes into the next record, within its limits. A record's edits are applied before its settlements, so an edit that comes
    /// after a settlement is left for the record after it.
    fn take(&mut self) -> Taken {
        let Taken { mut edits, mut settlements, mut newest, mut applied } = Taken::default();
        let mut bytes = 0;
        while bytes < BYTES_MAX && edits.len() + settlements.len() < ITEMS_MAX {
            let Some((item, weight)) = self.items.pop_front() else { break };
            match item {
                Item::Edit(edit) if settlements.is_empty() => edits.push(edit),
                Item::Settlement(settlement, published_at_ms) => {
                    if matches!(settlement.outcome, Outcome::Applied { .. }) {
                        applied.push((settlement.consumer, published_at_ms));
                    }
                    if settlement.released.is_none() {
                        let read = Newest { sequence: settlement.sequence, published_at_ms };
                        let known = newest.entry(settlement.consumer).or_insert(read);
                        *known = read.max(*known);
                    }
                    settlements.push(settlement);
                }
                Item::Edit(_) => {
                    self.items.push_front((item, weight));
                    break;
                }
            }
            bytes += weight;
        }
        self.bytes -= bytes;
        Taken { edits, settlements, newest, applied }
    }
}

/// What goes into one record.
#[derive(Debug, Default)]
struct Taken {
    edits: Vec<Edit>,
    settlements: Vec<Settlement>,
    /// The newest delivery of each consumer among them.
    newest: BTreeMap<ConsumerId, Newest>,
    /// When the messages were published that were applied, by consumer.
    applied: Vec<(ConsumerId, u64)>,
}

/// A commit that is under way.
#[derive(Debug)]
pub(super) struct InCommit {
    batch: Arc<Batch>,
    /// Per consumer: how many deliveries it settles.
    settled: BTreeMap<ConsumerId, (usize, usize)>,
    /// Per consumer: outcomes of messages that were parked.
    released: BTreeMap<ConsumerId, usize>,
    /// When the messages were published that it applies, by consumer.
    applied: Vec<(ConsumerId, u64)>,
    /// What it settles, to look up; put together when it is first asked for.
    sequences: Option<FxHashSet<(ConsumerId, u64)>>,
}

impl Core {
    pub(super) fn close_batch(&mut self) {
        if self.in_commit.is_some() || !self.open.is_due(self.flush_due || self.draining) {
            return;
        }
        self.flush_due = false;
        if let Some(tick_ms) = self.flush_at_tick_ms.take() {
            self.timers.remove(&(tick_ms, Timer::Flush));
        }
        let Taken { edits, settlements, newest, applied } = self.open.take();
        let mut settled: BTreeMap<ConsumerId, (usize, usize)> = BTreeMap::new();
        // Deliveries: what was parked was settled with its stream when it was parked.
        let deliveries = || settlements.iter().filter(|settlement| settlement.released.is_none());
        for Settlement { consumer, sequence, .. } in deliveries() {
            if let Some(state) = self.consumers.get_mut(consumer) {
                let bytes = state.settle(*sequence);
                let entry = settled.entry(*consumer).or_default();
                *entry = (entry.0 + 1, entry.1 + bytes);
            }
        }
        for (id, newest) in &newest {
            if let Some(state) = self.consumers.get_mut(id) {
                state.newest = state.newest.max(Some(*newest));
            }
        }
        let newest = settled.keys().filter_map(|id| Some((*id, self.consumers.get(id)?.newest?))).collect();
        let mut released: BTreeMap<ConsumerId, usize> = BTreeMap::new();
        for settlement in settlements.iter().filter(|settlement| settlement.released.is_some()) {
            *released.entry(settlement.consumer).or_default() += 1;
        }
        let consumers = &mut self.consumers;
        let floor = |id: &ConsumerId| consumers.get_mut(id).map(|state| (*id, state.close_floor()));
        let floors = settled.keys().filter_map(floor).collect();
        let stretch = |Settlement { consumer, sequence, .. }: &Settlement| {
            let (first, last) = self.consumers.get_mut(consumer)?.join_around(*sequence)?;
            Some((*consumer, first, last))
        };
        let stretches = deliveries().filter_map(stretch).collect();
        let batch = Arc::new(Batch {
            wall_ms: self.now.wall_ms,
            bindings: std::mem::take(&mut self.open.bindings),
            floors,
            stretches,
            settlements,
            edits,
            newest,
            published: std::mem::take(&mut self.open.published),
        });
        if self.settings.breaks.has(Break::AckBeforeCommit) {
            self.settle_with_broker(&batch);
        }
        self.actions.push_back(Action::Commit(Arc::clone(&batch)));
        self.in_commit = Some(InCommit { batch, settled, released, applied, sequences: None });
    }

    pub(super) fn committed(&mut self) {
        let Some(InCommit { batch, settled, released, applied, .. }) = self.in_commit.take() else { return };
        self.measure(&applied);
        for (id, floor) in &batch.floors {
            if let Some(state) = self.consumers.get_mut(id) {
                state.durable_floor = state.durable_floor.max(*floor);
            }
        }
        for (id, count) in released {
            if let Some(state) = self.consumers.get_mut(&id) {
                state.committing_released -= count;
            }
        }
        for (id, (count, bytes)) in settled {
            if let Some(state) = self.consumers.get_mut(&id) {
                state.committing -= count;
                state.committing_bytes -= bytes;
                state.rise_if_idle();
            }
        }
        if !self.settings.breaks.has(Break::AckBeforeCommit) {
            self.settle_with_broker(&batch);
        }
        if !self.settings.breaks.has(Break::PublishBeforeCommit) {
            for Settlement { consumer, outcome, .. } in &batch.settlements {
                self.hand_to_relay(*consumer, outcome, batch.wall_ms);
            }
        }
    }

    /// What was applied is durable now.
    fn measure(&mut self, applied: &[(ConsumerId, u64)]) {
        for (consumer, published_at_ms) in applied {
            if let Some(state) = self.consumers.get_mut(consumer) {
                state.end_to_end_ms.record(self.now.wall_ms.saturating_sub(*published_at_ms));
            }
        }
    }

    /// The events of an outcome may leave.
    pub(super) fn hand_to_relay(&mut self, consumer: ConsumerId, outcome: &Outcome, since_ms: u64) {
        let mut push =
            |row, event: &Arc<_>| self.relay.push(OutboxRow { row, consumer, event: Arc::clone(event), since_ms });
        match outcome {
            Outcome::Applied { writes, first_row, .. } => {
                for (offset, event) in (0..).zip(&writes.events) {
                    push(RowId(first_row.0 + offset), event);
                }
            }
            Outcome::DeadLettered { copy: Some((row, event)), .. } => push(*row, event),
            Outcome::DeadLettered { copy: None, .. } | Outcome::Duplicate | Outcome::Stale | Outcome::Parked(_) => {}
        }
    }

    fn settle_with_broker(&mut self, batch: &Batch) {
        let mut sequences: BTreeMap<ConsumerId, Vec<u64>> = BTreeMap::new();
        for settlement in batch.settlements.iter().filter(|settlement| settlement.released.is_none()) {
            sequences.entry(settlement.consumer).or_default().push(settlement.sequence);
        }
        for (consumer, floor) in &batch.floors {
            let sequences = sequences.remove(consumer).unwrap_or_default();
            let floor = self.consumers.get(consumer).map_or(*floor, |state| state.durable_floor.max(*floor));
            self.actions.push_back(Action::Settle { consumer: *consumer, floor, sequences });
        }
    }

    /// JetStream delivered what was settled before: it missed that, so it is told again. What is still being committed is told
    /// by its own commit; telling it here would break G5.
    pub(super) fn settle_again(&mut self, consumer: ConsumerId, mut sequences: Vec<u64>) {
        if let Some(InCommit { batch, sequences: committing, .. }) = &mut self.in_commit {
            let deliveries = || batch.settlements.iter().filter(|settlement| settlement.released.is_none());
            let all = || deliveries().map(|settlement| (settlement.consumer, settlement.sequence)).collect();
            let committing = committing.get_or_insert_with(all);
            sequences.retain(|sequence| !committing.contains(&(consumer, *sequence)));
        }
        if let Some(state) = self.consumers.get_mut(&consumer) {
            state.rise_if_idle();
            self.actions.push_back(Action::Settle { consumer, floor: state.durable_floor, sequences });
        }
    }
}
