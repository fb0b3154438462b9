//! Dead letters and parked messages, a page at a time: the overlay's rows over the view's.
//!
//! A page is put together in steps. Each looks at a bounded stretch of the overlay, and then at the same stretch of the snapshot that is loaded after; so
//! a row that a checkpoint moves meanwhile is found in one of them. Rows of the view that the overlay hides are passed without being read.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use pelton_core::ids::{ConsumerId, ParkId};
use pelton_core::message::DeadLetter;
use pelton_core::parked::{ParkLane, ParkPlace, Parked};
use pelton_core::transaction::ReadError;

use super::Reader;
use crate::store::error::StoreFailure;
use crate::store::overlay::{DeadLetterKey, Page, ParkedKey};

/// A dead letter and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDeadLetter {
    /// The consumer that gave it up.
    pub consumer: ConsumerId,
    /// The message's sequence in the consumer's stream.
    pub sequence: u64,
    /// The message, why it was given up, and its history.
    pub letter: Arc<DeadLetter>,
}

/// Which dead letters to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterQuery {
    /// Those of this consumer; none: of all.
    pub consumer: Option<ConsumerId>,
    /// Those behind this one: consumer, sequence, and when its stream stored it, in milliseconds since 1970-01-01 UTC.
    pub after: Option<(ConsumerId, u64, u64)>,
    /// So many at most.
    pub limit: usize,
}

/// A parked message and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredParked {
    /// The consumer that it waits for.
    pub consumer: ConsumerId,
    /// The message and why it is parked.
    pub row: Arc<Parked>,
}

/// Which parked messages to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParkedQuery {
    /// Those of this consumer; none: of all.
    pub consumer: Option<ConsumerId>,
    /// Those of this lane; none: of all.
    pub lane: Option<ParkLane>,
    /// Those behind this one.
    pub after: Option<(ConsumerId, ParkPlace)>,
    /// So many at most.
    pub limit: usize,
}

/// Overlay rows looked at in one step. Few in tests, so that pages take several.
const STEP: usize = if cfg!(test) { 3 } else { 128 };

impl Reader {
    /// Dead letters by consumer, sequence and time of publishing.
    ///
    /// # Errors
    /// [`ReadError`] if the view can't be read; the host has to stop then.
    pub fn dead_letters(&self, query: &DeadLetterQuery) -> Result<Vec<StoredDeadLetter>, ReadError> {
        let start = query.consumer.map(|consumer| (consumer, 0, 0));
        let from = later(query.after.map_or(Bound::Unbounded, Bound::Excluded), start);
        let mut found = Vec::new();
        self.dead_letters_from(
            from,
            |key| query.consumer.is_none_or(|consumer| consumer == key.0),
            |letter| {
                found.push(letter);
                found.len() < query.limit
            },
        )?;
        found.truncate(query.limit);
        Ok(found)
    }

    /// One dead letter; if the stream was made anew and its sequences began again, the newest with this sequence.
    ///
    /// # Errors
    /// [`ReadError`] if the view can't be read; the host has to stop then.
    pub fn dead_letter(&self, consumer: ConsumerId, sequence: u64) -> Result<Option<StoredDeadLetter>, ReadError> {
        let mut newest = None;
        self.dead_letters_from(
            Bound::Included((consumer, sequence, 0)),
            |key| (key.0, key.1) == (consumer, sequence),
            |letter| {
                newest = Some(letter);
                true
            },
        )?;
        Ok(newest)
    }

    fn dead_letters_from(
        &self,
        from: Bound<DeadLetterKey>,
        belongs: impl Fn(&DeadLetterKey) -> bool,
        mut take: impl FnMut(StoredDeadLetter) -> bool,
    ) -> Result<(), ReadError> {
        let mut from = Some(from);
        while let Some(stretch) = from.take() {
            let page = self.overlay.dead_letters().page(stretch.as_ref(), &belongs, STEP);
            let mut merge = Merge::of(page, |(consumer, sequence, _): DeadLetterKey, letter| {
                take(StoredDeadLetter { consumer, sequence, letter })
            });
            self.snapshot()
                .dead_letters()
                .range(stretch, |key, load| if belongs(&key) { merge.stored(key, load) } else { Ok(false) })?;
            from = merge.finish().map(Bound::Excluded);
        }
        Ok(())
    }

    /// Parked messages of a lane in their order, behind this order and number: until they are `rows_max`, or `bytes_max` bytes; at least one if there is one.
    ///
    /// # Errors
    /// [`ReadError`] if the view can't be read; the host has to stop then.
    pub fn fetch_parked(
        &self,
        consumer: ConsumerId,
        lane: &ParkLane,
        after: Option<(u64, ParkId)>,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Arc<Parked>>, ReadError> {
        let from = match after {
            Some((order, id)) => Bound::Excluded(ParkPlace { lane: lane.clone(), order, id }),
            None => Bound::Included(lane_start(lane)),
        };
        let (mut rows, mut bytes) = (Vec::new(), 0);
        self.parked_from(consumer, Some(lane), from, |row| {
            bytes += row.weight();
            rows.push(row);
            rows.len() < rows_max && bytes < bytes_max
        })?;
        Ok(rows)
    }

    /// Parked messages by consumer and place.
    ///
    /// # Errors
    /// [`ReadError`] if the view can't be read; the host has to stop then.
    pub fn parked(&self, query: &ParkedQuery) -> Result<Vec<StoredParked>, ReadError> {
        let mut found = Vec::new();
        let mut after = query.after.clone();
        let first = after.as_ref().map_or(ConsumerId(0), |(consumer, _)| *consumer);
        let mut next = self.next_parked_consumer(query.consumer.map_or(first, |consumer| consumer.max(first)))?;
        while let Some(consumer) = next.filter(|next| query.consumer.is_none_or(|only| only == *next))
            && found.len() < query.limit
        {
            let after = after.take().filter(|(of, _)| *of == consumer).map(|(_, place)| place);
            let from = later(after.map_or(Bound::Unbounded, Bound::Excluded), query.lane.as_ref().map(lane_start));
            self.parked_from(consumer, query.lane.as_ref(), from, |row| {
                found.push(StoredParked { consumer, row });
                found.len() < query.limit
            })?;
            let Some(behind) = consumer.0.checked_add(1) else { break };
            next = self.next_parked_consumer(ConsumerId(behind))?;
        }
        Ok(found)
    }

    /// The parked message of this number.
    ///
    /// # Errors
    /// [`ReadError`] if the view can't be read; the host has to stop then.
    pub fn parked_row(&self, consumer: ConsumerId, id: ParkId) -> Result<Option<StoredParked>, ReadError> {
        let row = match self.overlay.parked_row(consumer, id) {
            Some(newest) => newest,
            None => self.snapshot().parked().get(consumer, id)?,
        };
        Ok(row.map(|row| StoredParked { consumer, row }))
    }

    /// The first consumer from this one on that may have parked messages.
    fn next_parked_consumer(&self, from: ConsumerId) -> Result<Option<ConsumerId>, StoreFailure> {
        let lowest = ParkPlace { lane: ParkLane::Key("".into()), order: 0, id: ParkId(0) };
        let newest = self.overlay.parked().next_key(&(from, lowest)).map(|(consumer, _)| consumer);
        let stored = self.snapshot().parked().next_consumer(from)?;
        Ok(newest.into_iter().chain(stored).min())
    }

    /// Gives `take` the rows of a consumer, or of one of its lanes, in order, while it returns true.
    fn parked_from(
        &self,
        consumer: ConsumerId,
        lane: Option<&ParkLane>,
        from: Bound<ParkPlace>,
        mut take: impl FnMut(Arc<Parked>) -> bool,
    ) -> Result<(), StoreFailure> {
        let in_lane = |place: &ParkPlace| lane.is_none_or(|lane| place.lane == *lane);
        let lowest = || ParkPlace { lane: ParkLane::Key("".into()), order: 0, id: ParkId(0) };
        let mut from = Some(if let Bound::Unbounded = from { Bound::Included(lowest()) } else { from });
        while let Some(stretch) = from.take() {
            let first = stretch.clone().map(|place| (consumer, place));
            let belongs = |(of, place): &ParkedKey| *of == consumer && in_lane(place);
            let page = self.overlay.parked().page(first.as_ref(), belongs, STEP);
            let mut merge = Merge::of(page, |_: ParkedKey, row| take(row));
            self.snapshot().parked().range(consumer, stretch.as_ref(), |place, load| {
                if in_lane(&place) { merge.stored((consumer, place), load) } else { Ok(false) }
            })?;
            from = merge.finish().map(|(_, place)| Bound::Excluded(place));
        }
        Ok(())
    }
}

/// The lowest place that a lane can have.
fn lane_start(lane: &ParkLane) -> ParkPlace {
    ParkPlace { lane: lane.clone(), order: 0, id: ParkId(0) }
}

/// The bound that is further behind: this one, or the key itself.
fn later<K: Ord>(bound: Bound<K>, start: Option<K>) -> Bound<K> {
    match (bound, start) {
        (bound, None) => bound,
        (Bound::Excluded(after), Some(start)) if after >= start => Bound::Excluded(after),
        (Bound::Included(first), Some(start)) if first >= start => Bound::Included(first),
        (_, Some(start)) => Bound::Included(start),
    }
}

/// Lays a page of the overlay over the view's rows up to the page's end.
struct Merge<K, V, T> {
    newest: VecDeque<(K, Option<V>)>,
    /// The last key of the page, if there are more behind it.
    until: Option<K>,
    /// Takes the rows in order, and says whether it wants more.
    take: T,
    wants_more: bool,
}

impl<K: Clone + Ord, V, T: FnMut(K, V) -> bool> Merge<K, V, T> {
    fn of(page: Page<K, V>, take: T) -> Self {
        let until = if page.complete { None } else { page.entries.last().map(|(key, _)| key.clone()) };
        Self { newest: page.entries.into(), until, take, wants_more: true }
    }

    /// Takes the next row of the view, in the order of the keys. Says whether it wants another.
    fn stored(&mut self, key: K, load: &dyn Fn() -> Result<V, StoreFailure>) -> Result<bool, StoreFailure> {
        while self.wants_more && self.newest.front().is_some_and(|(newest, _)| *newest < key) {
            self.take_newest();
        }
        if !self.wants_more || self.until.as_ref().is_some_and(|until| key > *until) {
            return Ok(false);
        }
        if self.newest.front().is_some_and(|(newest, _)| *newest == key) {
            self.take_newest();
        } else {
            self.wants_more = (self.take)(key, load()?);
        }
        Ok(self.wants_more)
    }

    fn take_newest(&mut self) {
        if let Some((key, Some(row))) = self.newest.pop_front() {
            self.wants_more = (self.take)(key, row);
        }
    }

    /// Takes what is left of the page. Gives back where to go on, if there may be more and it is wanted.
    fn finish(mut self) -> Option<K> {
        while self.wants_more && !self.newest.is_empty() {
            self.take_newest();
        }
        self.until.filter(|_| self.wants_more)
    }
}
