//! The newest state: overlay first, then the view's snapshot.

use std::ops::Bound;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use bytes::Bytes;
use pelton_core::batch::StreamIdentity;
use pelton_core::effects::{Scope, Space, StateValue, WriteSet};
use pelton_core::ids::{ConsumerId, IdHash};
use pelton_core::message::DeadLetter;
use pelton_core::parked::{ParkPlace, Parked};
use pelton_core::transaction::{ReadError, StateView};
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

use super::error::StoreFailure;
use super::files::Files;
use super::overlay::{Overlay, OverlayPage};
use super::view::Snapshot;

mod listing;
mod state;

pub use listing::{DeadLetterQuery, ParkedQuery, StoredDeadLetter, StoredParked};
pub use state::{StatePage, StatePlace, StoredState};

/// Reads the newest state, and takes what attempts leave. Shared by all executors.
///
/// Every read looks into the overlay first and only then loads the snapshot of the view. A checkpoint publishes the new snapshot before the overlay
/// forgets; so what a reader doesn't find in the overlay any more is in the snapshot that it loads afterwards. The other way round it could load the old
/// snapshot, be overtaken by a checkpoint, and find nothing in either.
pub struct Reader {
    overlay: Overlay,
    snapshot: ArcSwap<Snapshot>,
    seed: u64,
    /// Keeps the view open: a snapshot of a closed file can't be read.
    _files: Arc<Files>,
}

/// Overlay entries looked at in one step of a listing, besides those that were asked for.
const RANGE_STEP: usize = 64;

impl Reader {
    pub(super) fn new(files: Arc<Files>, snapshot: Snapshot, seed: u64) -> Self {
        Self { overlay: Overlay::new(), snapshot: ArcSwap::from_pointee(snapshot), seed, _files: files }
    }

    pub(super) fn publish(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
    }

    pub(super) fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    pub(super) fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// The hash under which an id of a message of this stream is remembered. Seeded by the store.
    #[must_use]
    pub fn hash_id(&self, stream: &StreamIdentity, id: &str) -> IdHash {
        // Hashing each part with the hash before it as the seed keeps the parts apart without copying them into one string.
        let named = xxh3_64_with_seed(stream.name.as_bytes(), self.seed);
        let dated = xxh3_64_with_seed(&stream.created_ns.to_le_bytes(), named);
        IdHash(xxh3_128_with_seed(id.as_bytes(), dated))
    }

    /// Whether a message with this id was applied, durably or not yet.
    ///
    /// # Errors
    /// [`ReadError`] if the view can't be read; the host has to stop then.
    pub fn seen(&self, consumer: ConsumerId, mark: IdHash) -> Result<bool, ReadError> {
        Ok(self.overlay.contains_mark(consumer, mark) || self.snapshot().contains_mark(consumer, mark)?)
    }

    /// Takes what an attempt left, as soon as it returned ok. Later attempts of the key see it at once, before its batch is durable.
    ///
    /// To be called once for each [`pelton_core::batch::Outcome::Applied`], before its batch is appended, and for those of one state key in the order in
    /// which the batches carry them. What is applied here must be appended, or the host must exit: a checkpoint takes from the overlay what it folds.
    pub fn apply(&self, consumer: ConsumerId, state_key: Option<&Arc<str>>, mark: Option<IdHash>, writes: &WriteSet) {
        self.overlay.apply(Scope { consumer, key: state_key.cloned() }, mark, writes);
    }

    /// Takes a dead letter, so that operators see it at once. To be called once for each [`pelton_core::batch::Outcome::DeadLettered`], before its batch is
    /// appended.
    pub fn note_dead_letter(&self, consumer: ConsumerId, sequence: u64, letter: &Arc<DeadLetter>) {
        let key = (consumer, sequence, letter.message.published_at_ms);
        self.overlay.note_dead_letter(key, Some(Arc::clone(letter)));
    }

    /// Takes the removal of a dead letter. To be called once for each [`pelton_core::batch::Edit::RemoveDeadLetter`], before its batch is appended.
    pub fn note_dead_letter_removed(&self, consumer: ConsumerId, sequence: u64, published_at_ms: u64) {
        self.overlay.note_dead_letter((consumer, sequence, published_at_ms), None);
    }

    /// Takes a parked message, or what replaces one. To be called once for each [`pelton_core::batch::Outcome::Parked`] and each
    /// [`pelton_core::batch::Edit::Park`], before its batch is appended, in the order in which batches carry them.
    pub fn note_parked(&self, consumer: ConsumerId, row: &Arc<Parked>) {
        self.overlay.note_parked(consumer, row.place(), Some(Arc::clone(row)));
    }

    /// Takes the end of a parked message. To be called once for each settlement that was released with another outcome than
    /// [`pelton_core::batch::Outcome::Parked`] and each [`pelton_core::batch::Edit::RemoveParked`], before its batch is appended, in the same order.
    pub fn note_unparked(&self, consumer: ConsumerId, place: &ParkPlace) {
        self.overlay.note_parked(consumer, place.clone(), None);
    }

    /// The memory that the overlay holds, in bytes: what a checkpoint has to fold before more can be taken in.
    #[must_use]
    pub fn overlay_bytes(&self) -> usize {
        self.overlay.bytes()
    }
}

impl StateView for Reader {
    fn get(&self, scope: &Scope, space: Space, key: &str, now_ms: u64) -> Result<Option<Bytes>, ReadError> {
        let newest = match self.overlay.get(scope, space, key) {
            Some(newest) => newest,
            None => self.snapshot().get(scope, space, key)?,
        };
        Ok(newest.filter(|value| value.is_live(now_ms)).map(|value| value.bytes))
    }

    fn range(
        &self,
        scope: &Scope,
        prefix: &str,
        from: Bound<&str>,
        limit: usize,
        now_ms: u64,
    ) -> Result<Vec<(Box<str>, Bytes)>, ReadError> {
        let mut found = Found { entries: Vec::new(), limit, now_ms };
        let mut from = from.map(Box::<str>::from);
        while found.entries.len() < limit {
            let page =
                self.overlay.range(scope, prefix, from.as_ref().map(Box::as_ref), limit.saturating_add(RANGE_STEP));
            let next = if page.complete { None } else { page.entries.last().map(|(key, _)| key.clone()) };
            merge(
                page,
                &self.snapshot(),
                (scope, prefix, from.as_ref().map(Box::as_ref)),
                next.as_deref(),
                &mut found,
            )?;
            match next {
                Some(next) => from = Bound::Excluded(next),
                None => break,
            }
        }
        Ok(found.entries)
    }
}

/// What a listing has so far.
struct Found {
    entries: Vec<(Box<str>, Bytes)>,
    limit: usize,
    now_ms: u64,
}

impl Found {
    fn wants_more(&self) -> bool {
        self.entries.len() < self.limit
    }

    fn take(&mut self, key: Box<str>, value: Option<StateValue>) {
        if let Some(value) = value.filter(|value| value.is_live(self.now_ms))
            && self.wants_more()
        {
            self.entries.push((key, value.bytes));
        }
    }
}

/// Lays a page of the overlay over the entries of the view up to the key `until`.
fn merge(
    page: OverlayPage,
    view: &Snapshot,
    (scope, prefix, from): (&Scope, &str, Bound<&str>),
    until: Option<&str>,
    found: &mut Found,
) -> Result<(), StoreFailure> {
    let mut newest = page.entries.into_iter().peekable();
    view.range(scope, prefix, from, |key, expires_at_ms, bytes| {
        if until.is_some_and(|until| key > until) {
            return false;
        }
        while let Some((before, value)) = newest.next_if(|(newest, _)| newest.as_ref() < key) {
            found.take(before, value);
        }
        if let Some((same, value)) = newest.next_if(|(newest, _)| newest.as_ref() == key) {
            found.take(same, value);
        } else if found.wants_more() {
            found.take(key.into(), Some(StateValue { bytes: Bytes::copy_from_slice(bytes), expires_at_ms }));
        }
        found.wants_more()
    })?;
    for (key, value) in newest {
        found.take(key, value);
    }
    Ok(())
}
