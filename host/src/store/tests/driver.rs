//! Drives a store with steps that are a few random numbers each, and keeps a plain model of what it must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use pelton_core::batch::{Batch, Binding, Outcome, Settlement, StreamIdentity};
use pelton_core::cursor::Cursor;
use pelton_core::effects::{Event, Scope, Space, StateValue, StateWrite, WriteSet};
use pelton_core::ids::{ConsumerId, IdHash, RowId, Version};
use pelton_core::message::{DeadLetter, FailedAttempt, Failure, GivenUp, Message};
use pelton_core::time::Now;
use pelton_core::transaction::StateView;

use crate::store::Opened;

pub(super) const CONSUMERS: u32 = 2;
/// Keys that would meet if the store's encoding let them: each begins with bytes that another one ends with.
const SCOPE_KEYS: [Option<&str>; 4] = [None, Some(""), Some("a"), Some("a\0\u{1}")];
const KEYS: [&str; 6] = ["", "a", "a\0", "ab", "b", "\u{1}\0\0\0\u{1}a"];
const TTL_MS: u64 = 50;
pub(super) const PROCESSED_IDS_MS: u64 = 1 << 40;

/// One step: what to do, and numbers that say how.
pub(super) type Step = [u8; 4];

/// What a store must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) consumers: BTreeMap<ConsumerId, (StreamIdentity, Cursor)>,
    pub(super) state: BTreeMap<(Scope2, Space, Box<str>), StateValue>,
    pub(super) marks: BTreeSet<(ConsumerId, IdHash)>,
    pub(super) outbox: BTreeMap<RowId, (ConsumerId, Event)>,
    pub(super) dead_letters: BTreeMap<(ConsumerId, u64, u64), DeadLetter>,
    pub(super) next_row: u64,
}

/// A [`Scope`] that can be ordered.
pub(super) type Scope2 = (ConsumerId, Option<Arc<str>>);

impl Model {
    fn apply_batch(&mut self, batch: &Batch) {
        for binding in &batch.bindings {
            self.consumers.insert(binding.consumer, (binding.stream.clone(), Cursor::at(binding.floor)));
        }
        for settlement in &batch.settlements {
            self.consumers.get_mut(&settlement.consumer).unwrap().1.settle(settlement.sequence);
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

    fn apply_outcome(&mut self, settlement: &Settlement) {
        let consumer = settlement.consumer;
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
                for (row, event) in (first_row.0..).zip(&writes.events) {
                    self.outbox.insert(RowId(row), (consumer, event.as_ref().clone()));
                }
                self.next_row = self.next_row.max(first_row.0 + writes.events.len() as u64);
            }
            Outcome::Duplicate => {}
            Outcome::DeadLettered(letter) => {
                let key = (consumer, settlement.sequence, letter.message.published_at_ms);
                self.dead_letters.insert(key, letter.as_ref().clone());
            }
        }
    }
}

/// A store, the batch that is open, and the models of what is durable and of what attempts may see.
pub(super) struct Driver {
    pub(super) store: Opened,
    pub(super) durable: Model,
    pub(super) visible: Model,
    batch: Batch,
    sequences: BTreeMap<ConsumerId, u64>,
    next_row: u64,
    now: Now,
}

/// How a step ended.
#[derive(Debug)]
pub(super) enum Stopped {
    /// An append failed: whether its batch is durable is unknown.
    Append(Box<Model>),
    Checkpoint,
}

impl Driver {
    /// A driver of a new store; its consumers are bound.
    pub(super) fn new(store: Opened) -> Self {
        let mut driver = Self::of(store, Model::default(), 1);
        for consumer in 0..CONSUMERS {
            driver.bind(ConsumerId(consumer), 0).unwrap();
        }
        driver.commit().unwrap();
        driver
    }

    /// A driver of a store that holds what this model says.
    pub(super) fn of(store: Opened, model: Model, tick_ms: u64) -> Self {
        let sequences = model
            .consumers
            .iter()
            .map(|(id, (_, cursor))| (*id, cursor.ranges().last().map_or(cursor.floor(), |(_, last)| last)));
        Self {
            sequences: sequences.collect(),
            next_row: model.next_row.max(1),
            store,
            durable: model.clone(),
            visible: model,
            batch: Batch::default(),
            now: Now { tick_ms, wall_ms: 1_000_000 + tick_ms },
        }
    }

    pub(super) fn now(&self) -> Now {
        self.now
    }

    pub(super) fn step(&mut self, [what, a, b, c]: Step) -> Result<(), Stopped> {
        self.now.tick_ms += u64::from(c % 8);
        self.now.wall_ms += u64::from(c % 8);
        let consumer = ConsumerId(u32::from(a) % CONSUMERS);
        match what % 16 {
            0..=7 => self.attempt(consumer, a, b, c),
            8 => self.settle(consumer, Outcome::Duplicate, a),
            9 => {
                let letter = dead_letter(u64::from(b), self.sequence(consumer, 0));
                let sequence = letter.message.sequence;
                self.store.reader.note_dead_letter(consumer, sequence, &letter);
                self.push(Settlement { consumer, sequence, outcome: Outcome::DeadLettered(Arc::new(letter)) });
            }
            10 => {
                let floor = self.sequences.get(&consumer).copied().unwrap_or(0).saturating_sub(u64::from(b % 3));
                self.batch.floors.push((consumer, floor));
                self.batch.stretches.push((consumer, floor + 2, floor + 2 + u64::from(c % 4)));
            }
            11 => return self.bind(consumer, u64::from(b)),
            12 | 13 => return self.commit(),
            14 => {
                let skip = usize::from(b % 3);
                let rows = self.durable.outbox.keys().skip(skip).take(usize::from(c % 4)).copied();
                let new: Vec<_> = rows.filter(|row| !self.batch.published.contains(row)).collect();
                self.batch.published.extend(new);
            }
            _ => {
                self.store.checkpointer.run(self.now).map_err(|_| Stopped::Checkpoint)?;
            }
        }
        Ok(())
    }

    fn sequence(&mut self, consumer: ConsumerId, skipped: u64) -> u64 {
        let sequence = self.sequences.entry(consumer).or_default();
        *sequence += 1 + skipped;
        *sequence
    }

    fn bind(&mut self, consumer: ConsumerId, floor: u64) -> Result<(), Stopped> {
        // A binding holds for all that its batch settles; so what is open goes first.
        if !self.batch.settlements.is_empty() {
            self.commit()?;
        }
        let stream = StreamIdentity { name: "orders".into(), created_ns: floor as i64 };
        self.sequences.insert(consumer, floor.max(self.sequences.get(&consumer).copied().unwrap_or(0)));
        self.batch.bindings.push(Binding { consumer, name: format!("consumer-{}", consumer.0).into(), stream, floor });
        Ok(())
    }

    fn attempt(&mut self, consumer: ConsumerId, a: u8, b: u8, c: u8) {
        let state_key: Option<Arc<str>> = SCOPE_KEYS[usize::from(a / 2) % SCOPE_KEYS.len()].map(Arc::from);
        let mark = (!b.is_multiple_of(3)).then(|| IdHash(u128::from(b) << 64 | u128::from(c)));
        let mut state: Vec<StateWrite> = (0..usize::from(b % 4)).map(|n| self.write(n, a, b, c)).collect();
        state.sort_by(|x, y| (x.space, &x.key).cmp(&(y.space, &y.key)));
        state.dedup_by(|x, y| (x.space, &x.key) == (y.space, &y.key));
        let events = (0..c % 3).map(|n| Arc::new(event(consumer, self.next_row + u64::from(n)))).collect();
        let writes = WriteSet { state, events };
        let first_row = RowId(self.next_row);
        self.next_row += writes.events.len() as u64;
        self.store.reader.apply(consumer, state_key.as_ref(), mark, &writes);
        let version = Version([b % 2; 32]);
        self.settle(consumer, Outcome::Applied { version, mark, state_key, writes, first_row }, a % 2);
    }

    fn write(&self, n: usize, a: u8, b: u8, c: u8) -> StateWrite {
        let key = KEYS[(usize::from(b) + n * usize::from(c)) % KEYS.len()];
        let space = if (usize::from(c) + n).is_multiple_of(4) { Space::Mark } else { Space::User };
        let value = (!(usize::from(b / 4) + usize::from(c) + n).is_multiple_of(3)).then(|| StateValue {
            bytes: Bytes::from(vec![a ^ b; 1 + usize::from(c) * usize::from(n as u8 % 2) * 20]),
            expires_at_ms: c.is_multiple_of(5).then_some(self.now.wall_ms + TTL_MS),
        });
        StateWrite { space, key: key.into(), value }
    }

    fn settle(&mut self, consumer: ConsumerId, outcome: Outcome, skipped: u8) {
        let sequence = self.sequence(consumer, u64::from(skipped % 2));
        self.push(Settlement { consumer, sequence, outcome });
    }

    fn push(&mut self, settlement: Settlement) {
        self.visible.apply_outcome(&settlement);
        self.batch.settlements.push(settlement);
    }

    pub(super) fn commit(&mut self) -> Result<(), Stopped> {
        let batch = std::mem::take(&mut self.batch);
        let mut after = self.durable.clone();
        after.apply_batch(&batch);
        if self.store.log.append(&batch).is_err() {
            return Err(Stopped::Append(Box::new(after)));
        }
        self.durable = after;
        // Nothing of it is open any more, so both agree again.
        self.visible = self.durable.clone();
        Ok(())
    }

    /// Compares all that can be read with the model of what attempts see.
    pub(super) fn check_reads(&self) {
        let reader = &self.store.reader;
        let now_ms = self.now.wall_ms;
        for consumer in (0..CONSUMERS).map(ConsumerId) {
            for key in SCOPE_KEYS {
                let key: Option<Arc<str>> = key.map(Arc::from);
                let scope = Scope { consumer, key: key.clone() };
                for space in [Space::User, Space::Mark] {
                    for entry in KEYS {
                        let model = self.visible.state.get(&((consumer, key.clone()), space, entry.into()));
                        let model = model.filter(|value| value.is_live(now_ms)).map(|value| value.bytes.clone());
                        assert_eq!(
                            reader.get(&scope, space, entry, now_ms).unwrap(),
                            model,
                            "{scope:?} {space:?} {entry:?}"
                        );
                    }
                }
                self.check_ranges(&scope);
            }
            let letters: Vec<_> = reader.dead_letters(Some(consumer), usize::MAX).unwrap();
            let letters = letters.iter().map(|letter| (letter.sequence, letter.letter.as_ref()));
            let model = self.visible.dead_letters.iter().filter(|((of, _, _), _)| *of == consumer);
            assert!(
                letters.eq(model.map(|((_, sequence, _), letter)| (*sequence, letter))),
                "dead letters of {consumer:?}"
            );
        }
        for (consumer, sequence, _) in self.visible.dead_letters.keys() {
            let found = reader.dead_letter(*consumer, *sequence).unwrap().unwrap();
            let same = self.visible.dead_letters.range((*consumer, *sequence, 0)..=(*consumer, *sequence, u64::MAX));
            assert_eq!(Some(found.letter.as_ref()), same.last().map(|(_, newest)| newest));
        }
        for (consumer, mark) in &self.visible.marks {
            assert!(reader.seen(*consumer, *mark).unwrap(), "{mark:?} was forgotten");
            let other = ConsumerId(consumer.0 ^ 1);
            assert_eq!(reader.seen(other, *mark).unwrap(), self.visible.marks.contains(&(other, *mark)));
        }
        assert!(!reader.seen(ConsumerId(0), IdHash(1)).unwrap());
    }

    fn check_ranges(&self, scope: &Scope) {
        let now_ms = self.now.wall_ms;
        for prefix in ["", "a", "b"] {
            for from in [Bound::Unbounded, Bound::Excluded("a"), Bound::Included("ab"), Bound::Excluded("z")] {
                for limit in [1, 2, 100] {
                    let model = self.visible.state.iter().filter(|((of, space, key), value)| {
                        of.0 == scope.consumer
                            && of.1 == scope.key
                            && *space == Space::User
                            && key.starts_with(prefix)
                            && (from, Bound::Unbounded).contains_key(key)
                            && value.is_live(now_ms)
                    });
                    let model: Vec<_> =
                        model.map(|((_, _, key), value)| (key.clone(), value.bytes.clone())).take(limit).collect();
                    let found = self.store.reader.range(scope, prefix, from, limit, now_ms).unwrap();
                    assert_eq!(found, model, "{scope:?} prefix {prefix:?} from {from:?} limit {limit}");
                }
            }
        }
    }

    /// Compares what a store that was just opened says it found with the model of what is durable.
    pub(super) fn check_recovered(&self) {
        let recovered = &self.store.recovered;
        let consumers =
            recovered.consumers.iter().map(|found| (found.id, (found.stream.clone(), found.cursor.clone())));
        assert_eq!(consumers.collect::<BTreeMap<_, _>>(), self.durable.consumers);
        let outbox = recovered.outbox.iter().map(|row| (row.row, (row.consumer, row.event.clone())));
        assert_eq!(outbox.collect::<BTreeMap<_, _>>(), self.durable.outbox);
        assert!(recovered.outbox.is_sorted_by_key(|row| row.row));
        assert_eq!(recovered.next_row.0, self.durable.next_row.max(1));
        let mut letters = BTreeMap::new();
        self.durable.dead_letters.keys().for_each(|(consumer, _, _)| *letters.entry(*consumer).or_insert(0_u64) += 1);
        assert_eq!(recovered.dead_letters, letters);
        assert_eq!(self.store.reader.overlay_bytes(), 0);
    }
}

trait ContainsKey {
    fn contains_key(&self, key: &str) -> bool;
}

impl ContainsKey for (Bound<&str>, Bound<&str>) {
    fn contains_key(&self, key: &str) -> bool {
        std::ops::RangeBounds::<str>::contains(self, key)
    }
}

fn event(consumer: ConsumerId, row: u64) -> Event {
    Event {
        id: format!("{}:{row}", consumer.0).into(),
        subject: "out.events".into(),
        key: row.is_multiple_of(2).then(|| Arc::from("key")),
        headers: vec![("trace".into(), row.to_string().into())],
        payload: Bytes::from(vec![row as u8; 100]),
    }
}

pub(super) fn dead_letter(number: u64, sequence: u64) -> DeadLetter {
    let message = Message {
        id: format!("id-{number}").into(),
        mark: Some(IdHash(number.into())),
        subject: "in.orders".into(),
        key: Some("a".into()),
        headers: vec![],
        payload: Bytes::from_static(b"payload"),
        sequence,
        published_at_ms: number,
    };
    let failure = Failure::Trap { reason: "unreachable".into() };
    DeadLetter {
        message: Arc::new(message),
        cause: GivenUp::Exhausted,
        history: vec![FailedAttempt { at_ms: number, version: Version([1; 32]), failure }],
        attempts: 1,
        at_ms: number,
    }
}
