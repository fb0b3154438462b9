//! JetStream as the simulation needs it: streams that grow, a position in each, and the events that it was given.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::chance::Chance;
use crate::batch::StreamIdentity;
use crate::ids::{ConsumerId, IdHash, RowId};
use crate::machine::Arrival;
use crate::message::Message;

/// One incarnation of a consumer's stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) identity: StreamIdentity,
    /// The messages on the consumer's subjects; the sequences between them are other subjects' messages.
    pub(super) messages: BTreeMap<u64, Arc<Message>>,
    pub(super) unreadable: BTreeSet<u64>,
    pub(super) last_sequence: u64,
    /// Messages still to be published.
    pub(super) to_come: u64,
    /// The versions of entities, by key, if its messages have any: they outlive the stream.
    pub(super) versions: Option<BTreeMap<Arc<str>, Versions>>,
}

/// The versions of one entity: which is next, and which were left out and come later.
#[derive(Clone, Debug, Default)]
pub(super) struct Versions {
    next: u64,
    owed: Vec<u64>,
}

impl Versions {
    /// A version for one more message: mostly the next, now and then one that was published before, or one that was left out, some of which never come.
    fn take(&mut self, chance: &mut Chance) -> u64 {
        if self.next > 0 && chance.one_in(10) {
            return chance.between(1, self.next);
        }
        if !self.owed.is_empty() && chance.one_in(2) {
            let place = chance.below(self.owed.len() as u64) as usize;
            return self.owed.remove(place);
        }
        self.next += 1;
        while chance.one_in(8) {
            if !chance.one_in(4) {
                self.owed.push(self.next);
            }
            self.next += 1;
        }
        self.next
    }
}

impl Stream {
    pub(super) fn new(consumer: ConsumerId, created_ns: i64, to_come: u64) -> Self {
        let identity = StreamIdentity { name: format!("S{}", consumer.0).into(), created_ns };
        Self {
            identity,
            messages: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            last_sequence: 0,
            to_come,
            versions: None,
        }
    }

    /// One more message, often after some that are not this consumer's. Some bear the id of another message, of the same key or not.
    pub(super) fn publish(&mut self, chance: &mut Chance) {
        if chance.one_in(3) {
            self.last_sequence += chance.between(1, 5);
        }
        self.last_sequence += 1;
        self.to_come -= 1;
        let sequence = self.last_sequence;
        // Skewed: half of all keyed messages have the first key, a quarter the second, …
        let skewed = chance.below(64).trailing_ones();
        let key = (!chance.one_in(6)).then(|| Arc::from(format!("k{skewed}")));
        let again = chance.below(self.messages.len() as u64 * 8 + 1) as usize;
        let id = self.messages.values().nth(again).map_or_else(|| format!("id-{sequence}").into(), |m| m.id.clone());
        let number = id.trim_start_matches("id-").parse::<u128>().unwrap_or(0);
        let incarnation = self.identity.created_ns as u128;
        // Messages without a key have their sequence for an id, half of the time.
        let marked = key.is_some() || !sequence.is_multiple_of(2);
        let entity_version =
            key.clone().and_then(|key| Some(self.versions.as_mut()?.entry(key).or_default().take(chance)));
        let message = Message {
            mark: marked.then_some(IdHash(number << 16 | incarnation)),
            id,
            subject: "in".into(),
            key,
            headers: Vec::new(),
            payload: Bytes::new(),
            sequence,
            // Says of which incarnation it is.
            published_at_ms: self.identity.created_ns as u64,
            stream: Arc::new(self.identity.clone()),
            entity_version,
        };
        if chance.one_in(40) {
            self.unreadable.insert(sequence);
        }
        self.messages.insert(sequence, Arc::new(message));
    }

    /// Up to `count` messages after `position`.
    pub(super) fn after(&self, position: u64, count: usize) -> Vec<Arrival> {
        let arrival = |(sequence, message): (&u64, &Arc<Message>)| Arrival {
            message: Arc::clone(message),
            unreadable: self.unreadable.contains(sequence).then(|| "not JSON".into()),
        };
        self.messages.range(position + 1..).take(count).map(arrival).collect()
    }
}

/// A consumer's subscription.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) generation: Option<u64>,
    pub(super) position: u64,
    /// Messages pulled for and not delivered yet.
    pub(super) credit: usize,
    /// The core was told where it stands.
    pub(super) positioned: bool,
    /// A delivery is on the agenda.
    pub(super) scheduled: bool,
}

impl Subscription {
    pub(super) fn end(&mut self) {
        self.generation = None;
        self.credit = 0;
    }
}

/// The broker.
#[derive(Debug, Default)]
pub(super) struct Broker {
    /// By consumer and creation time; the last of a consumer is the one that is there.
    pub(super) streams: BTreeMap<(ConsumerId, i64), Stream>,
    pub(super) subscriptions: BTreeMap<ConsumerId, Subscription>,
    /// Rows whose event it has stored.
    pub(super) events: BTreeSet<RowId>,
}

impl Broker {
    pub(super) fn stream(&mut self, consumer: ConsumerId) -> &mut Stream {
        self.streams.range_mut((consumer, 0)..=(consumer, i64::MAX)).next_back().unwrap().1
    }

    pub(super) fn subscription(&mut self, consumer: ConsumerId) -> &mut Subscription {
        self.subscriptions.entry(consumer).or_insert(Subscription {
            generation: None,
            position: 0,
            credit: 0,
            positioned: false,
            scheduled: false,
        })
    }

    /// The host is gone, and with it its subscriptions.
    pub(super) fn host_is_gone(&mut self) {
        for subscription in self.subscriptions.values_mut() {
            subscription.end();
        }
    }
}
