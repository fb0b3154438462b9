//! The model of one consumer: what was published for it, what became of each message, and the fold of what was applied, key by key.
//!
//! Everything is known twice: as of the last durable commit, and as of now, with what was executed and decided since. A crash makes the second the first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pelton_core::batch::{Hold, HoldBy, Newest};
use pelton_core::cursor::Cursor;
use pelton_core::message::{DeadLetter, Message};
use pelton_core::parked::{ParkPlace, Parked};
use pelton_core::policy::Policy;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::violation::{Broken, Checked, holds, there};

/// What became of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing yet.
    #[default]
    Open,
    Parked,
    Applied,
    Duplicate,
    Stale,
    Dead,
    /// An operator dropped it.
    Dropped,
    /// It is not this consumer's.
    NotOurs,
}

/// A message of one incarnation of the stream.
pub(crate) type MessageId = (usize, u64);

/// What is known of a message.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) durable: Fate,
    pub(crate) now: Fate,
    /// It was set aside, or replayed: its place among the others of its key is not kept any more.
    pub(crate) aside_durable: bool,
    pub(crate) aside_now: bool,
    pub(crate) key: u16,
    /// How often a plug-in was called with it.
    pub(crate) calls: u16,
}

/// What the checks have to know of a message that was delivered.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) business_id: Option<Box<str>>,
    /// Its version, if it is ordered by that.
    pub(crate) version: Option<u64>,
    pub(crate) unreadable: bool,
    /// Milliseconds since 1970-01-01 UTC.
    pub(crate) published_at_ms: u64,
}

/// What the plug-in keeps for a key: how many messages it applied, which ones in what order, and the highest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fold {
    count: u64,
    order: u64,
    /// Incarnation and sequence.
    pub(crate) highest: u64,
}

impl Fold {
    pub(crate) fn with(self, (incarnation, sequence): MessageId) -> Self {
        let place = (incarnation as u64) << 48 | sequence;
        let order = (self.order.rotate_left(5) ^ place).wrapping_mul(0x517C_C1B7_2722_0A95);
        Self { count: self.count + 1, order, highest: self.highest.max(place) }
    }

    pub(crate) fn bytes(self) -> bytes::Bytes {
        bytes::Bytes::from([self.count, self.order, self.highest].map(u64::to_be_bytes).concat())
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let part = |place: usize| Some(u64::from_be_bytes(*bytes.get(place..)?.first_chunk()?));
        Some(Self { count: part(0)?, order: part(8)?, highest: part(16)? })
    }
}

/// The fold of all that was applied, and what is parked or dead, as of one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// By key; none for messages without one.
    pub(crate) folds: FxHashMap<Option<u16>, Fold>,
    /// Of all keys, for a consumer whose keys share their state.
    pub(crate) all: Fold,
    /// Business ids of what was applied.
    pub(crate) ids: FxHashSet<(usize, Box<str>)>,
    /// The last version of each entity.
    pub(crate) versions: FxHashMap<u16, u64>,
    /// The last sequence of each key and incarnation that was applied at its place.
    pub(crate) last: FxHashMap<(usize, u16), u64>,
    pub(crate) rows: BTreeMap<ParkPlace, Arc<Parked>>,
    pub(crate) places: FxHashMap<MessageId, ParkPlace>,
    /// Rows that hold their key, by it.
    pub(crate) holders: FxHashMap<Arc<str>, BTreeSet<ParkPlace>>,
    /// By sequence and time of publishing.
    pub(crate) letters: BTreeMap<(u64, u64), Arc<DeadLetter>>,
}

impl View {
    /// A row is there, or another stands in its place.
    pub(crate) fn park(&mut self, row: &Arc<Parked>) {
        let place = row.place();
        self.unpark(&place);
        if row.cause.holds_key()
            && let Some(key) = &row.message.key
        {
            self.holders.entry(Arc::clone(key)).or_default().insert(place.clone());
        }
        self.places.insert(message_id(&row.message), place.clone());
        self.rows.insert(place, Arc::clone(row));
    }

    /// A row is gone.
    pub(crate) fn unpark(&mut self, place: &ParkPlace) -> Option<Arc<Parked>> {
        let row = self.rows.remove(place)?;
        self.places.remove(&message_id(&row.message));
        self.lets_go(&row.message);
        Some(row)
    }

    /// Whatever holds this message's key because of it, does not any more.
    pub(crate) fn lets_go(&mut self, message: &Message) {
        let Some(key) = &message.key else { return };
        let Some(holders) = self.holders.get_mut(key) else { return };
        holders.retain(|place| self.rows.get(place).is_some_and(|row| row.message.sequence != message.sequence));
        if holders.is_empty() {
            self.holders.remove(key);
        }
    }
}

/// Which message it is. Incarnations are created at 1, 2, 3, … nanoseconds.
pub(crate) fn message_id(message: &Message) -> MessageId {
    (message.stream.created_ns as usize - 1, message.sequence)
}

/// The number in a key.
pub(crate) fn key_number(message: &Message) -> Option<u16> {
    message.key.as_ref().and_then(|key| key.trim_start_matches('k').parse().ok())
}

/// Of one incarnation of the consumer's stream.
#[derive(Debug, Default)]
pub(crate) struct OfStream {
    /// By sequence, from 1.
    pub(crate) entries: Vec<Entry>,
    /// Ours, and without an outcome that is durable.
    pub(crate) unsettled: BTreeSet<u64>,
    /// By key: ours, at their place, and without an outcome now.
    pub(crate) waiting: FxHashMap<u16, BTreeSet<u64>>,
}

/// One consumer.
#[derive(Debug)]
pub(crate) struct Books {
    pub(crate) name: Box<str>,
    pub(crate) stream: usize,
    pub(crate) keyed: bool,
    pub(crate) policy: Policy,
    /// A policy that it has or had gives up what is exhausted, or parks it.
    pub(crate) ever_dead: bool,
    pub(crate) ever_parked: bool,
    pub(crate) streams: Vec<OfStream>,
    /// The incarnation that it reads, durably.
    pub(crate) bound: Option<usize>,
    pub(crate) cursor: Cursor,
    /// The newest message of its stream that was settled.
    pub(crate) newest: Option<Newest>,
    pub(crate) holds: BTreeMap<HoldBy, Hold>,
    pub(crate) facts: FxHashMap<MessageId, Facts>,
    pub(crate) durable: View,
    pub(crate) now: View,
}

impl Books {
    pub(crate) fn new(name: Box<str>, stream: usize, keyed: bool, policy: Policy) -> Self {
        let mut books = Self {
            name,
            stream,
            keyed,
            policy: policy.clone(),
            ever_dead: false,
            ever_parked: false,
            streams: vec![OfStream::default()],
            bound: None,
            cursor: Cursor::default(),
            newest: None,
            holds: BTreeMap::new(),
            facts: FxHashMap::default(),
            durable: View::default(),
            now: View::default(),
        };
        books.change(policy);
        books
    }

    pub(crate) fn change(&mut self, policy: Policy) {
        self.ever_dead |= policy.on_exhausted == pelton_core::policy::OnExhausted::DeadLetter;
        self.ever_parked |= policy.on_exhausted == pelton_core::policy::OnExhausted::ParkKey;
        self.policy = policy;
    }

    /// Whether its keys are ordered by the streams' sequences, not by versions.
    pub(crate) fn by_sequence(&self) -> bool {
        self.keyed && self.policy.versions.is_none()
    }

    /// A message was published; `ours` says whether it is on this consumer's subjects.
    pub(crate) fn published(&mut self, incarnation: usize, key: u16, ours: bool) {
        while self.streams.len() <= incarnation {
            self.streams.push(OfStream::default());
        }
        let of_stream = &mut self.streams[incarnation];
        let fate = if ours { Fate::Open } else { Fate::NotOurs };
        of_stream.entries.push(Entry { durable: fate, now: fate, key, ..Entry::default() });
        if ours {
            let sequence = of_stream.entries.len() as u64;
            of_stream.unsettled.insert(sequence);
            of_stream.waiting.entry(key).or_default().insert(sequence);
        }
    }

    pub(crate) fn entry(&mut self, (incarnation, sequence): MessageId) -> Checked<&mut Entry> {
        let name = &self.name;
        let entry = self
            .streams
            .get_mut(incarnation)
            .and_then(|of_stream| of_stream.entries.get_mut((sequence as usize).wrapping_sub(1)));
        there(entry, Broken::Books, || format!("{name}: there is no message {sequence} of incarnation {incarnation}"))
    }

    /// What is known of it now changes; a message with an outcome, or set aside, makes room for those behind it.
    pub(crate) fn becomes(&mut self, id: MessageId, fate: Fate, aside: bool) -> Checked {
        let entry = self.entry(id)?;
        entry.now = fate;
        entry.aside_now |= aside;
        let (key, waits) = (entry.key, matches!(fate, Fate::Open | Fate::Parked) && !entry.aside_now);
        if !waits && let Some(waiting) = self.streams[id.0].waiting.get_mut(&key) {
            waiting.remove(&id.1);
        }
        Ok(())
    }

    /// What is known durably changes. Each message gets one outcome, and a parked one one more.
    pub(crate) fn becomes_durable(&mut self, id: MessageId, from: Fate, fate: Fate, aside: bool) -> Checked {
        let name = self.name.clone();
        let entry = self.entry(id)?;
        holds(entry.durable == from, Broken::Twice, || {
            format!("{name}: {id:?} becomes {fate:?}, which was {:?} and not {from:?}", entry.durable)
        })?;
        entry.durable = fate;
        entry.aside_durable |= aside;
        if from == Fate::Open {
            self.streams[id.0].unsettled.remove(&id.1);
        }
        Ok(())
    }

    /// Before an attempt: it has to be the message's turn.
    pub(crate) fn its_turn(&mut self, message: &Message) -> Checked {
        let id = message_id(message);
        let (name, by_sequence) = (self.name.clone(), self.by_sequence());
        let entry = *self.entry(id)?;
        holds(matches!(entry.now, Fate::Open | Fate::Parked), Broken::Twice, || {
            format!("{name}: {id:?} is handled again, and is {:?}", entry.now)
        })?;
        let Some(key) = &message.key else { return Ok(()) };
        if entry.now == Fate::Open {
            let holder = self.now.holders.get(key);
            holds(holder.is_none(), Broken::KeyOrder, || format!("{name}: {id:?} overtakes {holder:?}"))?;
        }
        if !by_sequence || entry.aside_now {
            return Ok(());
        }
        let first = self.streams[id.0].waiting.get(&entry.key).and_then(|waiting| waiting.first());
        holds(first == Some(&id.1), Broken::KeyOrder, || format!("{name}: {id:?} of {key} is handled before {first:?}"))
    }

    /// Nothing of the stream that it is bound to is unsettled up to this sequence.
    pub(crate) fn covered(&self, first: u64, last: u64, what: &str) -> Checked {
        let Some(of_stream) = self.bound.and_then(|bound| self.streams.get(bound)) else { return Ok(()) };
        let left = if first <= last { of_stream.unsettled.range(first..=last).next() } else { None };
        holds(left.is_none(), Broken::SettledTooEarly, || {
            format!("{}: {what} covers {first} to {last}, and {left:?} is not settled", self.name)
        })
    }

    /// The host is gone, and with it all that was not durable.
    pub(crate) fn host_is_gone(&mut self) {
        self.now = self.durable.clone();
        for of_stream in &mut self.streams {
            of_stream.waiting.values_mut().for_each(BTreeSet::clear);
            for (sequence, entry) in (1..).zip(&mut of_stream.entries) {
                entry.now = entry.durable;
                entry.aside_now = entry.aside_durable;
                if matches!(entry.now, Fate::Open | Fate::Parked) && !entry.aside_now {
                    of_stream.waiting.entry(entry.key).or_default().insert(sequence);
                }
            }
        }
    }
}
