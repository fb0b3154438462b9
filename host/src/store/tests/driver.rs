//! Drives a store with steps that are a few random numbers each, and keeps a plain model of what it must hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use pelton_core::batch::{Batch, Binding, Edit, Hold, HoldBy, Outcome, Settlement, StreamIdentity};
use pelton_core::effects::{Event, Space, StateValue, StateWrite, WriteSet};
use pelton_core::ids::{ConsumerId, IdHash, ParkId, RowId, Version};
use pelton_core::message::{DeadLetter, FailedAttempt, Failure, GivenUp, Message};
use pelton_core::parked::{ParkCause, ParkPlace, Parked};
use pelton_core::time::Now;

use super::model::Model;
use crate::store::Opened;

pub(super) const CONSUMERS: u32 = 2;
/// Keys that would meet if the store's encoding let them: each begins with bytes that another one ends with.
pub(super) const SCOPE_KEYS: [Option<&str>; 4] = [None, Some(""), Some("a"), Some("a\0\u{1}")];
pub(super) const KEYS: [&str; 6] = ["", "a", "a\0", "ab", "b", "\u{1}\0\0\0\u{1}a"];
const SPACES: [Space; 4] = [Space::Mark, Space::User, Space::User, Space::Host];
const TTL_MS: u64 = 50;
pub(super) const PROCESSED_IDS_MS: u64 = 1 << 40;

/// One step: what to do, and numbers that say how.
pub(super) type Step = [u8; 4];

/// A store, the batch that is open, and the models of what is durable and of what attempts may see.
pub(super) struct Driver {
    pub(super) store: Opened,
    pub(super) durable: Model,
    pub(super) visible: Model,
    batch: Batch,
    sequences: BTreeMap<ConsumerId, u64>,
    next_row: u64,
    next_park: u64,
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
            next_park: model.next_park.max(1),
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
        match what % 32 {
            0..=7 => self.attempt(consumer, a, b, c),
            8 => self.settle(consumer, if b % 2 == 0 { Outcome::Duplicate } else { Outcome::Stale }, a),
            9 | 10 => self.give_up(consumer, b, c, None),
            11 => {
                let floor = self.sequences.get(&consumer).copied().unwrap_or(0).saturating_sub(u64::from(b % 3));
                self.batch.floors.push((consumer, floor));
                self.batch.stretches.push((consumer, floor + 2, floor + 2 + u64::from(c % 4)));
            }
            12 => return self.bind(consumer, u64::from(b)),
            13..=15 => return self.commit(),
            16 => {
                let skip = usize::from(b % 3);
                let rows = self.durable.outbox.keys().skip(skip).take(usize::from(c % 4)).copied();
                let new: Vec<_> = rows.filter(|row| !self.batch.published.contains(row)).collect();
                self.batch.published.extend(new);
            }
            17..=20 => self.park(consumer, a, b, c),
            21 => self.park_again(a, b, c),
            22..=24 => self.release(a, b, c),
            25 => return self.edit_parked(a, b, c),
            26 => return self.replay(a, b),
            27 => return self.hold(consumer, b, c),
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
        let outcome = self.applied(consumer, a, b, c);
        self.settle(consumer, outcome, a % 2);
    }

    fn applied(&mut self, consumer: ConsumerId, a: u8, b: u8, c: u8) -> Outcome {
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
        Outcome::Applied { version: Version([b % 2; 32]), mark, state_key, writes, first_row }
    }

    fn write(&self, n: usize, a: u8, b: u8, c: u8) -> StateWrite {
        let key = KEYS[(usize::from(b) + n * usize::from(c)) % KEYS.len()];
        let space = SPACES[(usize::from(c) + n) % SPACES.len()];
        let value = (!(usize::from(b / 4) + usize::from(c) + n).is_multiple_of(3)).then(|| StateValue {
            bytes: Bytes::from(vec![a ^ b; 1 + usize::from(c) * usize::from(n as u8 % 2) * 20]),
            expires_at_ms: c.is_multiple_of(5).then_some(self.now.wall_ms + TTL_MS),
        });
        StateWrite { space, key: key.into(), value }
    }

    /// A message becomes a dead letter: a new one, or one that was parked.
    fn give_up(&mut self, consumer: ConsumerId, b: u8, c: u8, released: Option<&Parked>) {
        let message = match released {
            Some(row) => row.message.clone(),
            None => Arc::new(message(u64::from(b), self.sequence(consumer, 0), Some("a"), None)),
        };
        let letter = Arc::new(dead_letter(message.clone()));
        let copy = c.is_multiple_of(2).then(|| {
            self.next_row += 1;
            (RowId(self.next_row - 1), Arc::new(event(consumer, self.next_row - 1)))
        });
        self.store.reader.note_dead_letter(consumer, message.sequence, &letter);
        let outcome = Outcome::DeadLettered { letter, copy };
        self.conclude(consumer, message.sequence, released, outcome);
    }

    /// A new message is parked instead of handled.
    fn park(&mut self, consumer: ConsumerId, a: u8, b: u8, c: u8) {
        let sequence = self.sequence(consumer, u64::from(c % 2));
        let key = SCOPE_KEYS[usize::from(b / 2) % SCOPE_KEYS.len()];
        let message = message(u64::from(b), sequence, key, c.is_multiple_of(3).then(|| u64::from(a % 16)));
        let row = self.new_row(Arc::new(message), b, c);
        self.store.reader.note_parked(consumer, &row);
        self.conclude(consumer, sequence, None, Outcome::Parked(row));
    }

    fn new_row(&mut self, message: Arc<Message>, b: u8, c: u8) -> Arc<Parked> {
        let id = ParkId(self.next_park);
        self.next_park += 1;
        Arc::new(Parked {
            id,
            cause: cause(b, c),
            until_ms: (!c.is_multiple_of(4)).then(|| u64::from(c)),
            parked_at_ms: self.now.wall_ms,
            releases: 0,
            attempts: u32::from(b),
            failures: u32::from(c % 3),
            history: dead_letter(message.clone()).history,
            message,
        })
    }

    /// One of the parked messages that can be seen.
    fn some_parked(&self, a: u8) -> Option<(ConsumerId, Arc<Parked>)> {
        let place = usize::from(a) % self.visible.parked.len().max(1);
        self.visible.parked.iter().nth(place).map(|((consumer, _), row)| (*consumer, row.clone()))
    }

    /// A parked message was tried, and is parked again.
    fn park_again(&mut self, a: u8, b: u8, c: u8) {
        let Some((consumer, row)) = self.some_parked(a) else { return };
        let again =
            Parked { cause: cause(b, c), until_ms: Some(u64::from(c)), releases: row.releases + 1, ..(*row).clone() };
        let again = Arc::new(again);
        self.store.reader.note_parked(consumer, &again);
        self.conclude(consumer, row.message.sequence, Some(&row), Outcome::Parked(again));
    }

    /// A parked message was tried, and has its outcome.
    fn release(&mut self, a: u8, b: u8, c: u8) {
        let Some((consumer, row)) = self.some_parked(a) else { return };
        let outcome = match b % 8 {
            0 => Outcome::Duplicate,
            1 => Outcome::Stale,
            2 | 3 => return self.give_up(consumer, b, c, Some(&row)),
            _ => self.applied(consumer, a, b, c),
        };
        self.conclude(consumer, row.message.sequence, Some(&row), outcome);
    }

    /// An operator drops a parked message or changes its payload.
    fn edit_parked(&mut self, a: u8, b: u8, c: u8) -> Result<(), Stopped> {
        let Some((consumer, row)) = self.some_parked(a) else { return Ok(()) };
        if b.is_multiple_of(2) {
            return self.edit(Edit::RemoveParked { consumer, place: row.place() });
        }
        let message = Message { payload: Bytes::from(vec![b; usize::from(c)]), ..(*row.message).clone() };
        let row = Arc::new(Parked { message: Arc::new(message), ..(*row).clone() });
        self.edit(Edit::Park { consumer, row })
    }

    /// An operator has a dead letter handled again, or drops it.
    fn replay(&mut self, a: u8, b: u8) -> Result<(), Stopped> {
        let place = usize::from(a) % self.visible.dead_letters.len().max(1);
        let Some(((consumer, sequence, published_at_ms), letter)) =
            self.visible.dead_letters.iter().nth(place).map(|(key, letter)| (*key, letter.clone()))
        else {
            return Ok(());
        };
        self.edit(Edit::RemoveDeadLetter { consumer, sequence, published_at_ms })?;
        if b.is_multiple_of(3) {
            return Ok(());
        }
        let mut row = self.new_row(letter.message.clone(), 0, 0);
        Arc::make_mut(&mut row).cause = ParkCause::Replayed;
        self.edit(Edit::Park { consumer, row })
    }

    fn hold(&mut self, consumer: ConsumerId, b: u8, c: u8) -> Result<(), Stopped> {
        let by = if b.is_multiple_of(2) { HoldBy::Operator } else { HoldBy::Breaker };
        let hold = (!c.is_multiple_of(3)).then(|| Hold { since_ms: u64::from(c), reason: format!("{b}").into() });
        self.edit(Edit::Hold { consumer, by, hold })
    }

    /// Tells the overlay of an edit and has the next batch carry it.
    fn edit(&mut self, edit: Edit) -> Result<(), Stopped> {
        // Edits are applied before the settlements of their batch; so what is settled goes first.
        if !self.batch.settlements.is_empty() {
            self.commit()?;
        }
        let reader = &self.store.reader;
        match &edit {
            Edit::RemoveDeadLetter { consumer, sequence, published_at_ms } => {
                reader.note_dead_letter_removed(*consumer, *sequence, *published_at_ms);
            }
            Edit::Park { consumer, row } => reader.note_parked(*consumer, row),
            Edit::RemoveParked { consumer, place } => reader.note_unparked(*consumer, place),
            Edit::State { consumer, key, writes } => reader.apply(*consumer, key.as_ref(), None, writes),
            Edit::Hold { .. } | Edit::MoveCursor { .. } | Edit::Forget { .. } => {}
        }
        self.visible.apply_edit(&edit);
        self.batch.edits.push(edit);
        Ok(())
    }

    fn settle(&mut self, consumer: ConsumerId, outcome: Outcome, skipped: u8) {
        let sequence = self.sequence(consumer, u64::from(skipped % 2));
        self.conclude(consumer, sequence, None, outcome);
    }

    fn conclude(&mut self, consumer: ConsumerId, sequence: u64, released: Option<&Parked>, outcome: Outcome) {
        let released: Option<ParkPlace> = released.map(Parked::place);
        if let Some(place) = &released
            && !matches!(outcome, Outcome::Parked(_))
        {
            self.store.reader.note_unparked(consumer, place);
        }
        let settlement = Settlement { consumer, sequence, released, outcome };
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
}

fn cause(b: u8, c: u8) -> ParkCause {
    let causes = [
        ParkCause::Exhausted,
        ParkCause::Retrying,
        ParkCause::Asked,
        ParkCause::Gap { expected: u64::from(c) },
        ParkCause::Behind,
        ParkCause::Behind,
    ];
    causes[usize::from(b) % causes.len()]
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

pub(super) fn message(number: u64, sequence: u64, key: Option<&str>, entity_version: Option<u64>) -> Message {
    Message {
        id: format!("id-{number}").into(),
        mark: Some(IdHash(number.into())),
        subject: "in.orders".into(),
        key: key.map(Arc::from),
        headers: vec![],
        payload: Bytes::from_static(b"payload"),
        sequence,
        published_at_ms: number,
        stream: Arc::new(StreamIdentity { name: "orders".into(), created_ns: number as i64 }),
        entity_version,
    }
}

pub(super) fn dead_letter(message: Arc<Message>) -> DeadLetter {
    let number = message.published_at_ms;
    let failure = Failure::Trap { reason: "unreachable".into() };
    DeadLetter {
        message,
        cause: GivenUp::Exhausted,
        history: vec![FailedAttempt { at_ms: number, version: Version([1; 32]), failure }],
        attempts: 1,
        at_ms: number,
    }
}
