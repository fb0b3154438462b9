//! JetStream as a host sees it: streams that grow, are lost in part or are made anew, and for each consumer where it stands and what it has not acknowledged.

use std::collections::BTreeSet;
use std::sync::Arc;

use pelton_core::batch::StreamIdentity;

use crate::chance::Chance;
use crate::plan::{SUBJECTS, StreamPlan};
use crate::script::Content;

/// A message as it was published. Its sequence is its place in its incarnation, from 1.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    /// The number of its subject.
    pub(crate) subject: u8,
    /// The number of its key.
    pub(crate) key: u16,
    /// Its business id; none: it has none.
    pub(crate) id: Option<u64>,
    /// The version of its entity, which is its key.
    pub(crate) version: u64,
    pub(crate) content: Content,
    /// Milliseconds since 1970-01-01 UTC.
    pub(crate) at_ms: u64,
    /// No plug-in can be given it.
    pub(crate) unreadable: bool,
}

/// A stream from its creation to its deletion.
#[derive(Debug)]
pub(crate) struct Incarnation {
    pub(crate) identity: Arc<StreamIdentity>,
    pub(crate) messages: Vec<Published>,
}

/// Versions of one entity.
#[derive(Debug, Default)]
struct Entity {
    last: u64,
    kept_back: Vec<u64>,
}

/// One stream and those of its name before it.
#[derive(Debug)]
pub(crate) struct Stream {
    plan: StreamPlan,
    pub(crate) incarnations: Vec<Incarnation>,
    pub(crate) to_come: u64,
    /// It shows only this many messages: the broker restarted from an older state.
    pub(crate) backwards: Option<u64>,
    pub(crate) keys: Vec<Arc<str>>,
    entities: Vec<Entity>,
    next_id: u64,
}

impl Stream {
    pub(crate) fn new(number: usize, plan: &StreamPlan) -> Self {
        let mut stream = Self {
            plan: plan.clone(),
            incarnations: Vec::new(),
            to_come: plan.messages,
            backwards: None,
            keys: (0..plan.keys).map(|key| format!("k{key}").into()).collect(),
            entities: Vec::new(),
            next_id: 0,
        };
        stream.make_anew(number);
        stream
    }

    /// The stream is deleted and made anew, under the same name.
    pub(crate) fn make_anew(&mut self, number: usize) {
        let created_ns = self.incarnations.len() as i64 + 1;
        let identity = Arc::new(StreamIdentity { name: format!("S{number}").into(), created_ns });
        self.incarnations.push(Incarnation { identity, messages: Vec::new() });
        self.entities = (0..self.plan.keys).map(|_| Entity::default()).collect();
        self.backwards = None;
    }

    /// The place of the incarnation that is there.
    pub(crate) fn last(&self) -> usize {
        self.incarnations.len() - 1
    }

    pub(crate) fn now(&self) -> &Incarnation {
        &self.incarnations[self.last()]
    }

    /// The last sequence that it shows.
    pub(crate) fn last_sequence(&self) -> u64 {
        let all = self.now().messages.len() as u64;
        self.backwards.map_or(all, |shown| shown.min(all))
    }

    pub(crate) fn burst(&self, chance: &mut Chance) -> u64 {
        chance.between(1, self.plan.burst).min(self.to_come)
    }

    pub(crate) fn pause_ms(&self, chance: &mut Chance) -> u64 {
        chance.between(1, self.plan.pause_ms)
    }

    /// One more message.
    pub(crate) fn publish(&mut self, chance: &mut Chance, at_ms: u64) -> &Published {
        self.to_come -= 1;
        // Skewed: the first keys have most of the messages.
        let keys = self.plan.keys;
        let most = chance.below(keys) + 1;
        let key = if chance.one_in(2) { chance.below(keys) } else { chance.below(most) };
        let version = self.version(key as usize, chance);
        let place = self.last();
        let messages = &mut self.incarnations[place].messages;
        let again = chance.one_in(self.plan.one_duplicate_in) && !messages.is_empty();
        let again = if again { messages.get(chance.place(messages.len())).cloned() } else { None };
        self.next_id += 1;
        let id = (!chance.one_in(10)).then_some(self.next_id);
        let mut published = Published {
            subject: chance.below(SUBJECTS) as u8,
            key: key as u16,
            id,
            version,
            content: Content::by_chance(chance, self.plan.poisoned >> key & 1 == 1),
            at_ms,
            unreadable: chance.one_in(150),
        };
        if let Some(before) = again.filter(|before| before.id.is_some()) {
            published.id = before.id;
            if !chance.one_in(4) {
                published = Published { at_ms, ..before };
            }
        }
        if published.unreadable {
            published.id = None;
        }
        messages.push(published);
        &messages[messages.len() - 1]
    }

    fn version(&mut self, key: usize, chance: &mut Chance) -> u64 {
        let entity = &mut self.entities[key];
        if !entity.kept_back.is_empty() && chance.one_in(3) {
            let place = chance.place(entity.kept_back.len());
            return entity.kept_back.swap_remove(place);
        }
        if entity.last > 0 && chance.one_in(25) {
            return chance.between(1, entity.last);
        }
        if chance.one_in(self.plan.one_late_in) {
            entity.last += 1;
            entity.kept_back.push(entity.last);
        }
        entity.last += 1;
        entity.last
    }
}

/// What the broker knows of a consumer.
#[derive(Debug, Default)]
pub(crate) struct Subscription {
    pub(crate) generation: Option<u64>,
    /// The core was told where it stands.
    pub(crate) positioned: bool,
    /// The last sequence that was delivered.
    pub(crate) position: u64,
    /// Messages pulled for and not delivered yet.
    pub(crate) credit: usize,
    /// A delivery is on the agenda.
    pub(crate) scheduled: bool,
    /// A redelivery is on the agenda.
    pub(crate) redelivers: bool,
    /// Delivered, and not acknowledged as far as the broker knows.
    pub(crate) pending: BTreeSet<u64>,
}

impl Subscription {
    /// A new generation begins behind this sequence.
    pub(crate) fn begin(&mut self, generation: u64, after: u64) {
        *self = Self { generation: Some(generation), position: after, ..Self::default() };
    }

    /// It is over.
    pub(crate) fn end(&mut self) {
        self.generation = None;
        self.credit = 0;
    }
}
