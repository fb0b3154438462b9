//! What was executed and the view doesn't hold yet, in memory: state entries, marks of message ids, dead letters, parked messages.
//!
//! Each entry has its newest value (or that it is gone) and counts the writes that are not folded into the view yet. Folding `n` writes of an
//! entry takes `n` from the count, and the entry is forgotten at 0. That is exact, because what is applied or noted here is either committed and later
//! folded, or the host dies: so an entry stays as long as a newer value than the view's is on its way, however batches and checkpoints cut the row
//! of its writes. So for each note there is one change in a batch, and for each change one note:
//! - a dead letter: an outcome `DeadLettered`; its removal: an edit `RemoveDeadLetter`;
//! - a parked row: an outcome `Parked`, released or not, or an edit `Park`;
//! - its removal: any other outcome of a settlement with `released`, or an edit `RemoveParked`.

use std::collections::{HashMap, hash_map};
use std::hash::{BuildHasher, RandomState};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use pelton_core::effects::{Scope, Space, StateValue, WriteSet};
use pelton_core::ids::{ConsumerId, IdHash, ParkId};
use pelton_core::message::DeadLetter;
use pelton_core::parked::{ParkLane, ParkPlace, Parked};
use rustc_hash::FxHashMap;

mod entries;
mod rows;
mod state;

use entries::Entries;
pub(super) use rows::{Page, Rows};

/// More shards than threads, so that two executors rarely want the same one.
const SHARDS: usize = 64;

/// Memory that an entry, a scope and a mark are counted with besides their keys and values, in bytes.
const ENTRY_BYTES: usize = 96;
const SCOPE_BYTES: usize = 256;
const MARK_BYTES: usize = 48;
const DEAD_LETTER_BYTES: usize = 256;
const PARKED_BYTES: usize = 384;

struct Entry<T> {
    newest: T,
    /// Writes of this entry that are not in the view yet; never 0.
    unfolded: u32,
}

type StateEntries = Entries<Entry<Option<StateValue>>>;

#[derive(Default)]
struct ScopeEntries {
    user: StateEntries,
    mark: StateEntries,
    host: StateEntries,
}

impl ScopeEntries {
    fn space(&self, space: Space) -> &StateEntries {
        match space {
            Space::User => &self.user,
            Space::Mark => &self.mark,
            Space::Host => &self.host,
        }
    }

    fn space_mut(&mut self, space: Space) -> &mut StateEntries {
        match space {
            Space::User => &mut self.user,
            Space::Mark => &mut self.mark,
            Space::Host => &mut self.host,
        }
    }

    fn is_empty(&self) -> bool {
        self.user.is_empty() && self.mark.is_empty() && self.host.is_empty()
    }
}

/// Ordering keys come from outside, so scopes are hashed with a random seed.
type Scopes = HashMap<Scope, ScopeEntries>;
/// Id hashes are seeded by the store already.
type Marks = FxHashMap<(ConsumerId, IdHash), u32>;
/// Consumer, stream sequence, time of publishing: as in the view.
pub(super) type DeadLetterKey = (ConsumerId, u64, u64);
pub(super) type ParkedKey = (ConsumerId, ParkPlace);

/// The memory held, in bytes.
struct Bytes(AtomicUsize);

impl Bytes {
    fn grow(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    fn shrink(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// See the module's documentation.
pub(super) struct Overlay {
    scopes: Box<[Mutex<Scopes>]>,
    marks: Box<[Mutex<Marks>]>,
    dead_letters: Rows<DeadLetterKey, Arc<DeadLetter>>,
    parked: Rows<ParkedKey, Arc<Parked>>,
    /// Where the rows in `parked` stand. Changed under its lock together with them.
    places: Mutex<FxHashMap<(ConsumerId, ParkId), ParkPlace>>,
    /// Decides which lock guards what, never what is read or written.
    hasher: RandomState,
    bytes: Bytes,
}

/// One page of overlay entries in a range.
pub(super) struct OverlayPage {
    /// Keys in order, with their newest value; none: deleted.
    pub(super) entries: Vec<(Box<str>, Option<StateValue>)>,
    /// Whether these are all that the range has.
    pub(super) complete: bool,
}

impl Overlay {
    pub(super) fn new() -> Self {
        Self {
            scopes: (0..SHARDS).map(|_| Mutex::default()).collect(),
            marks: (0..SHARDS).map(|_| Mutex::default()).collect(),
            dead_letters: Rows::new(dead_letter_weight),
            parked: Rows::new(parked_weight),
            places: Mutex::default(),
            hasher: RandomState::new(),
            bytes: Bytes(AtomicUsize::new(0)),
        }
    }

    /// The memory held, in bytes, as it is counted: keys, values, and an estimate of what they are kept in.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.0.load(Ordering::Relaxed)
    }

    /// Lays a write set over the view.
    pub(super) fn apply(&self, scope: Scope, mark: Option<IdHash>, writes: &WriteSet) {
        let consumer = scope.consumer;
        if let Some(mark) = mark
            && let Some(shard) = shard(&self.marks, mark_shard(mark))
        {
            match shard.lock().entry((consumer, mark)) {
                hash_map::Entry::Occupied(mut known) => *known.get_mut() += 1,
                hash_map::Entry::Vacant(vacant) => {
                    vacant.insert(1);
                    self.bytes.grow(MARK_BYTES);
                }
            }
        }
        if writes.state.is_empty() {
            return;
        }
        let Some(shard) = self.scope_shard(&scope) else { return };
        let mut grown = 0;
        let mut shrunk = 0;
        {
            let mut scopes = shard.lock();
            let entries = scopes.entry(scope).or_insert_with_key(|scope| {
                grown += scope_weight(scope);
                ScopeEntries::default()
            });
            for write in &writes.state {
                let entries = entries.space_mut(write.space);
                match entries.get_mut(&write.key) {
                    Some(known) => {
                        grown += value_weight(write.value.as_ref());
                        shrunk += value_weight(known.newest.as_ref());
                        known.newest = write.value.clone();
                        known.unfolded += 1;
                    }
                    None => {
                        grown += ENTRY_BYTES + write.key.len() + value_weight(write.value.as_ref());
                        entries.insert(write.key.clone(), Entry { newest: write.value.clone(), unfolded: 1 });
                    }
                }
            }
            // Counted under the lock, so that what is forgotten was counted before.
            self.bytes.grow(grown);
        }
        self.bytes.shrink(shrunk);
    }

    /// The newest value of an entry: the outer none says that the overlay knows nothing of it, the inner that it is deleted.
    pub(super) fn get(&self, scope: &Scope, space: Space, key: &str) -> Option<Option<StateValue>> {
        let scopes = self.scope_shard(scope)?.lock();
        scopes.get(scope)?.space(space).get(key).map(|entry| entry.newest.clone())
    }

    /// Entries of [`Space::User`] whose key begins with `prefix` from `from` on, at most `limit` of them.
    pub(super) fn range(&self, scope: &Scope, prefix: &str, from: Bound<&str>, limit: usize) -> OverlayPage {
        let mut page = OverlayPage { entries: Vec::new(), complete: true };
        let Some(shard) = self.scope_shard(scope) else { return page };
        let scopes = shard.lock();
        let Some(entries) = scopes.get(scope) else { return page };
        let matching = entries.user.range(lower_bound(prefix, from));
        for (key, entry) in matching.take_while(|(key, _)| key.starts_with(prefix)) {
            if page.entries.len() == limit {
                page.complete = false;
                break;
            }
            page.entries.push((key.into(), entry.newest.clone()));
        }
        page
    }

    /// Whether the mark is here.
    pub(super) fn contains_mark(&self, consumer: ConsumerId, mark: IdHash) -> bool {
        shard(&self.marks, mark_shard(mark)).is_some_and(|shard| shard.lock().contains_key(&(consumer, mark)))
    }

    /// Lays a dead letter over the view; none: it is gone.
    pub(super) fn note_dead_letter(&self, key: DeadLetterKey, letter: Option<Arc<DeadLetter>>) {
        self.dead_letters.note(key, letter, &self.bytes);
    }

    /// Lays a parked message over the view; none: it is gone.
    pub(super) fn note_parked(&self, consumer: ConsumerId, place: ParkPlace, row: Option<Arc<Parked>>) {
        let mut places = self.places.lock();
        places.insert((consumer, place.id), place.clone());
        self.parked.note((consumer, place), row, &self.bytes);
    }

    /// The newest dead letters.
    pub(super) fn dead_letters(&self) -> &Rows<DeadLetterKey, Arc<DeadLetter>> {
        &self.dead_letters
    }

    /// The newest parked messages.
    pub(super) fn parked(&self) -> &Rows<ParkedKey, Arc<Parked>> {
        &self.parked
    }

    /// The parked message of this number: the outer none says that the overlay knows nothing of it, the inner that it is gone.
    pub(super) fn parked_row(&self, consumer: ConsumerId, id: ParkId) -> Option<Option<Arc<Parked>>> {
        let places = self.places.lock();
        let place = places.get(&(consumer, id))?.clone();
        self.parked.get(&(consumer, place))
    }

    /// Takes `folded` writes of each of these entries of one scope from what the view doesn't hold.
    pub(super) fn forget_state<'k>(&self, scope: &Scope, folded: impl Iterator<Item = (Space, &'k str, u32)>) {
        let Some(shard) = self.scope_shard(scope) else { return };
        let mut scopes = shard.lock();
        let Some(entries) = scopes.get_mut(scope) else { return };
        let mut freed = 0;
        for (space, key, count) in folded {
            let entries = entries.space_mut(space);
            let Some(entry) = entries.get_mut(key) else { continue };
            entry.unfolded = entry.unfolded.saturating_sub(count);
            if entry.unfolded == 0
                && let Some(entry) = entries.remove(key)
            {
                freed += ENTRY_BYTES + key.len() + value_weight(entry.newest.as_ref());
            }
        }
        if entries.is_empty() {
            scopes.remove(scope);
            freed += scope_weight(scope);
        }
        self.bytes.shrink(freed);
    }

    /// Takes `folded` settlements with this mark from what the view doesn't hold.
    pub(super) fn forget_mark(&self, consumer: ConsumerId, mark: IdHash, folded: u32) {
        let Some(shard) = shard(&self.marks, mark_shard(mark)) else { return };
        let mut marks = shard.lock();
        let Some(unfolded) = marks.get_mut(&(consumer, mark)) else { return };
        *unfolded = unfolded.saturating_sub(folded);
        if *unfolded == 0 {
            marks.remove(&(consumer, mark));
            self.bytes.shrink(MARK_BYTES);
        }
    }

    /// Takes `folded` notes of a dead letter from what the view doesn't hold.
    pub(super) fn forget_dead_letter(&self, key: DeadLetterKey, folded: u32) {
        self.dead_letters.forget(&key, folded, &self.bytes);
    }

    /// Takes `folded` notes of a parked message from what the view doesn't hold.
    pub(super) fn forget_parked(&self, key: &ParkedKey, folded: u32) {
        let mut places = self.places.lock();
        if self.parked.forget(key, folded, &self.bytes) {
            places.remove(&(key.0, key.1.id));
        }
    }

    fn scope_shard(&self, scope: &Scope) -> Option<&Mutex<Scopes>> {
        shard(&self.scopes, self.hasher.hash_one(scope))
    }
}

fn shard<T>(shards: &[Mutex<T>], hash: u64) -> Option<&Mutex<T>> {
    shards.get((hash % SHARDS as u64) as usize)
}

fn mark_shard(mark: IdHash) -> u64 {
    // Not the low bits: the map inside the shard tells its entries apart by those.
    (mark.0 >> 64) as u64
}

/// Where a listing of keys with this prefix begins.
pub(super) fn lower_bound<'a>(prefix: &'a str, from: Bound<&'a str>) -> Bound<&'a str> {
    match from {
        Bound::Included(key) if key >= prefix => Bound::Included(key),
        Bound::Excluded(key) if key >= prefix => Bound::Excluded(key),
        _ => Bound::Included(prefix),
    }
}

fn value_weight(value: Option<&StateValue>) -> usize {
    value.map_or(0, |value| value.bytes.len())
}

fn scope_weight(scope: &Scope) -> usize {
    SCOPE_BYTES + scope.key.as_ref().map_or(0, |key| key.len())
}

fn dead_letter_weight(_: &DeadLetterKey, letter: Option<&Arc<DeadLetter>>) -> usize {
    let content = letter.map_or(0, |letter| {
        let history: usize = letter.history.iter().map(|attempt| 64 + attempt.failure.reason().len()).sum();
        letter.message.weight() + history
    });
    DEAD_LETTER_BYTES + content
}

fn parked_weight((_, place): &ParkedKey, row: Option<&Arc<Parked>>) -> usize {
    let key = if let ParkLane::Key(key) = &place.lane { key.len() } else { 0 };
    PARKED_BYTES + key + row.map_or(0, |row| row.weight())
}
