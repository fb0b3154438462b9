//! Batches as they become durable: each is laid over the model, and checked for what it may not say.

use std::sync::Arc;

use pelton_core::batch::{Batch, Binding, Edit, Newest, Outcome, Settlement};
use pelton_core::cursor::Cursor;
use pelton_core::effects::{Space, WriteSet};
use pelton_core::ids::ConsumerId;
use pelton_core::message::{DeadLetter, GivenUp, Message};
use pelton_core::parked::{ParkCause, Parked};
use pelton_core::policy::OnGap;

use crate::books::{Books, Facts, Fate, Fold, MessageId, message_id};
use crate::outbox::Outbox;
use crate::script::{Content, Script};
use crate::violation::{Broken, Checked, holds, there};

/// The models of all consumers, and of what they emit.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) books: Vec<Books>,
    pub(crate) outbox: Outbox,
    /// Above the number of every message that was parked, durably.
    pub(crate) next_park: u64,
    /// Outcomes that became durable, for the report: of deliveries, and of parked messages.
    pub(crate) settled: u64,
    pub(crate) released: u64,
    pub(crate) batches: u64,
}

impl Ledger {
    /// Lays a batch over what is durable. `place` finds a consumer by its number in this life of the host.
    pub(crate) fn commit(&mut self, batch: &Batch, place: &dyn Fn(ConsumerId) -> Option<usize>) -> Checked {
        self.batches += 1;
        for binding in &batch.bindings {
            self.bind(binding, place)?;
        }
        for edit in &batch.edits {
            self.edit(edit, place)?;
        }
        for settlement in &batch.settlements {
            self.settle(settlement, place)?;
        }
        for (consumer, floor) in &batch.floors {
            let books = self.of(*consumer, place)?;
            books.cursor.raise_floor(*floor);
            books.covered(0, *floor, "a floor")?;
        }
        for (consumer, first, last) in &batch.stretches {
            let books = self.of(*consumer, place)?;
            books.cursor.settle_range(*first, *last);
            books.covered(*first, *last, "a stretch")?;
        }
        batch.published.iter().try_for_each(|row| self.outbox.give_up(*row))
    }

    fn of(&mut self, id: ConsumerId, place: &dyn Fn(ConsumerId) -> Option<usize>) -> Checked<&mut Books> {
        let books = place(id).and_then(|place| self.books.get_mut(place));
        there(books, Broken::Books, || format!("a batch names {id:?}, which nobody registered"))
    }

    fn bind(&mut self, binding: &Binding, place: &dyn Fn(ConsumerId) -> Option<usize>) -> Checked {
        let books = self.of(binding.consumer, place)?;
        let incarnation = binding.stream.created_ns as usize - 1;
        let right = *binding.name == *books.name && *binding.stream.name == *format!("S{}", books.stream);
        holds(right, Broken::Books, || format!("{} is bound as {binding:?}", books.name))?;
        holds(books.bound.is_none_or(|bound| bound < incarnation), Broken::Books, || {
            format!("{} is bound to {incarnation} after {:?}", books.name, books.bound)
        })?;
        books.bound = Some(incarnation);
        books.cursor = Cursor::at(binding.floor);
        books.newest = None;
        for sequence in 1..=binding.floor {
            // It was to begin with what comes later.
            if books.entry((incarnation, sequence))?.durable == Fate::Open {
                books.becomes_durable((incarnation, sequence), Fate::Open, Fate::NotOurs, false)?;
                books.becomes((incarnation, sequence), Fate::NotOurs, false)?;
            }
        }
        Ok(())
    }

    fn edit(&mut self, edit: &Edit, place: &dyn Fn(ConsumerId) -> Option<usize>) -> Checked {
        match edit {
            Edit::RemoveDeadLetter { consumer, sequence, published_at_ms } => {
                let books = self.of(*consumer, place)?;
                let removed = books.durable.letters.remove(&(*sequence, *published_at_ms));
                holds(removed.is_some(), Broken::Books, || {
                    format!("{}: the dead letter {sequence} is removed and is not there", books.name)
                })
            }
            Edit::Park { consumer, row } => {
                self.next_park = self.next_park.max(row.id.0 + 1);
                let books = self.of(*consumer, place)?;
                if !books.durable.rows.contains_key(&row.place()) {
                    let id = message_id(&row.message);
                    holds(row.cause == ParkCause::Replayed, Broken::Books, || format!("{} parks {row:?}", books.name))?;
                    books.becomes_durable(id, Fate::Dead, Fate::Parked, true)?;
                }
                books.durable.park(row);
                Ok(())
            }
            Edit::RemoveParked { consumer, place: at } => {
                let books = self.of(*consumer, place)?;
                let row = books.durable.unpark(at);
                let row = there(row, Broken::Books, || format!("{}: {at:?} is removed and not there", books.name))?;
                books.becomes_durable(message_id(&row.message), Fate::Parked, Fate::Dropped, false)
            }
            Edit::MoveCursor { .. } | Edit::State { .. } | Edit::Forget { .. } => {
                holds(false, Broken::Books, || format!("{edit:?}: nobody asked for it"))
            }
            Edit::Hold { consumer, by, hold } => {
                let books = self.of(*consumer, place)?;
                match hold {
                    Some(hold) => _ = books.holds.insert(*by, hold.clone()),
                    None => _ = books.holds.remove(by),
                }
                Ok(())
            }
        }
    }

    fn settle(&mut self, settlement: &Settlement, place: &dyn Fn(ConsumerId) -> Option<usize>) -> Checked {
        let Settlement { consumer, sequence, released, outcome } = settlement;
        let number = place(*consumer).unwrap_or(usize::MAX);
        if released.is_some() {
            self.released += 1;
        } else {
            self.settled += 1;
        }
        if let Outcome::Parked(row) = outcome {
            self.next_park = self.next_park.max(row.id.0 + 1);
        }
        self.outbox.commit(number, outcome)?;
        let books = self.of(*consumer, place)?;
        let name = books.name.clone();
        let (id, from) = match released {
            None => {
                books.cursor.settle(*sequence);
                let bound = there(books.bound, Broken::Books, || format!("{name} settles, and is not bound"))?;
                if books.newest.is_none_or(|newest| newest.sequence < *sequence) {
                    let published_at_ms = books.facts.get(&(bound, *sequence)).map_or(0, |facts| facts.published_at_ms);
                    books.newest = Some(Newest { sequence: *sequence, published_at_ms });
                }
                ((bound, *sequence), Fate::Open)
            }
            Some(at) => {
                let row = books.durable.unpark(at);
                let row = there(row, Broken::Twice, || format!("{name}: {at:?} is released and is not parked"))?;
                (message_id(&row.message), Fate::Parked)
            }
        };
        holds(id.1 == *sequence, Broken::Books, || format!("{name}: {sequence} was parked as {id:?}"))?;
        match outcome {
            Outcome::Applied { mark, state_key, writes, .. } => {
                books.applied(id, mark.is_some(), state_key.as_ref(), writes)?;
                books.becomes_durable(id, from, Fate::Applied, false)
            }
            Outcome::Duplicate => books.becomes_durable(id, from, Fate::Duplicate, false),
            Outcome::Stale => {
                books.stale(id)?;
                books.becomes_durable(id, from, Fate::Stale, false)
            }
            Outcome::DeadLettered { letter, copy } => {
                books.dead(id, letter, copy.is_some())?;
                books.becomes_durable(id, from, Fate::Dead, false)
            }
            Outcome::Parked(row) => {
                let same = message_id(&row.message) == id && released.as_ref().is_none_or(|at| *at == row.place());
                holds(same, Broken::Books, || format!("{name}: {id:?} at {released:?} is parked as {row:?}"))?;
                books.may_park(row)?;
                books.durable.park(row);
                books.becomes_durable(id, from, Fate::Parked, row.cause.is_aside())
            }
        }
    }
}

impl Books {
    /// A message's effects are durable: they have to be the fold of those before it and itself, at its place.
    fn applied(&mut self, id: MessageId, marked: bool, state_key: Option<&Arc<str>>, writes: &WriteSet) -> Checked {
        let (name, by_sequence, keyed, shared) =
            (self.name.clone(), self.by_sequence(), self.keyed, self.policy.shared_state);
        let entry = *self.entry(id)?;
        holds(entry.now == Fate::Applied, Broken::Outcome, || {
            format!("{name}: {id:?} is applied, and no attempt of this life was ok: {entry:?}")
        })?;
        let key = keyed.then_some(entry.key);
        let scope_ok = state_key.is_some() == (keyed && !shared);
        holds(scope_ok, Broken::State, || format!("{name}: {id:?} changes the state of {state_key:?}"))?;
        let fold = self.durable.folds.entry(key).or_default();
        *fold = fold.with(id);
        let fold = *fold;
        let entry_name = state_entry(key);
        let written = |entry: &str| {
            let write = writes.state.iter().find(|write| write.space == Space::User && *write.key == *entry)?;
            Fold::read(&write.value.as_ref()?.bytes)
        };
        let found = written(&entry_name);
        holds(key.is_none() || found == Some(fold), Broken::State, || {
            format!("{name}: {id:?} leaves {found:?} for {key:?}, the fold of what is durable is {fold:?}")
        })?;
        self.durable.all = self.durable.all.with(id);
        if shared {
            let (found, all) = (written("all"), self.durable.all);
            holds(found == Some(all), Broken::State, || {
                format!("{name}: {id:?} leaves {found:?} for all keys, the fold of what is durable is {all:?}")
            })?;
        }
        self.note_id(id, marked)?;
        if by_sequence && !entry.aside_now && !entry.aside_durable {
            let last = self.durable.last.insert((id.0, entry.key), id.1).unwrap_or(0);
            holds(last < id.1, Broken::KeyOrder, || format!("{name}: {id:?} is applied after {last}"))?;
        }
        Ok(())
    }

    /// Each id is applied once; versions rise. Both were written down when the message was executed.
    fn note_id(&mut self, id: MessageId, marked: bool) -> Checked {
        let name = self.name.clone();
        let facts = self.facts.get(&id).cloned();
        let Facts { business_id, version, .. } =
            there(facts, Broken::Books, || format!("{name}: {id:?} was never delivered"))?;
        holds(marked == business_id.is_some(), Broken::Outcome, || format!("{name}: {id:?} is marked: {marked}"))?;
        if let Some(business_id) = business_id {
            let new = self.durable.ids.insert((id.0, business_id.clone()));
            holds(new, Broken::Twice, || format!("{name}: {business_id} is applied again, as {id:?}"))?;
        }
        let key = self.entry(id)?.key;
        if let Some(version) = version {
            let last = self.durable.versions.insert(key, version);
            holds(last.is_none_or(|last| last < version), Broken::KeyOrder, || {
                format!("{name}: version {version} of k{key} is applied after {last:?}")
            })?;
        }
        Ok(())
    }

    fn stale(&mut self, id: MessageId) -> Checked {
        let name = self.name.clone();
        let version = self.facts.get(&id).and_then(|facts| facts.version);
        let key = self.entry(id)?.key;
        let last = self.durable.versions.get(&key).copied();
        let stale = version.is_some_and(|version| last.is_some_and(|last| version <= last));
        holds(stale, Broken::Outcome, || {
            format!("{name}: {id:?} of version {version:?} is stale, the last of its entity is {last:?}")
        })
    }

    /// A message is given up for a reason that it can have.
    fn dead(&mut self, id: MessageId, letter: &Arc<DeadLetter>, copied: bool) -> Checked {
        let name = self.name.clone();
        let message = &letter.message;
        let content = Content::decode(&message.payload);
        let content = there(content, Broken::Outcome, || format!("{name}: {id:?} has a strange payload"))?;
        let versions = self.policy.versions;
        let may = match letter.cause {
            GivenUp::Unreadable(_) => self.facts.get(&id).is_some_and(|facts| facts.unreadable),
            GivenUp::Rejected => content.script == Script::Reject,
            GivenUp::Exhausted => self.ever_dead && letter.attempts > 0,
            GivenUp::ParkedTooLong => content.script == Script::AfterLater,
            GivenUp::GapNeverFilled => versions.is_some_and(|versions| versions.on_gap == OnGap::DeadLetter),
        };
        holds(may && message_id(message) == id, Broken::Outcome, || format!("{name}: {id:?} is given up: {letter:?}"))?;
        holds(copied == self.policy.dead_letter_subject.is_some(), Broken::Outcome, || {
            format!("{name}: {id:?} is given up, an event tells of it: {copied}")
        })?;
        let before = self.durable.letters.insert((id.1, message.published_at_ms), Arc::clone(letter));
        holds(before.is_none(), Broken::Twice, || format!("{name}: {id:?} is a dead letter already"))
    }

    fn may_park(&self, row: &Parked) -> Checked {
        let script = Content::decode(&row.message.payload).map(|content| content.script);
        let may = match row.cause {
            ParkCause::Exhausted => self.ever_parked,
            ParkCause::Asked => script == Some(Script::AfterLater),
            ParkCause::Gap { .. } => self.policy.versions.is_some(),
            ParkCause::Behind => row.message.key.is_some(),
            // One that was tried; or one of its key that came again in front of it. Also one without a key, where such messages would fill the books.
            ParkCause::Retrying => row.message.key.is_some() || !row.history.is_empty(),
            ParkCause::Replayed => false,
        };
        holds(may, Broken::Outcome, || format!("{}: parked without a reason: {row:?}", self.name))
    }

    /// A message was delivered.
    pub(crate) fn note_delivered(&mut self, message: &Message, unreadable: bool) {
        let business_id = message.mark.map(|_| message.id.clone());
        let (version, published_at_ms) = (message.entity_version, message.published_at_ms);
        let facts = Facts { business_id, version, unreadable, published_at_ms };
        self.facts.insert(message_id(message), facts);
    }
}

/// The plug-in's state entry of a key.
pub(crate) fn state_entry(key: Option<u16>) -> String {
    key.map_or_else(|| "alone".to_owned(), |key| format!("k{key}"))
}
