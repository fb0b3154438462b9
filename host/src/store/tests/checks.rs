//! Compares all that can be read from a store with the models.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use pelton_core::effects::{Scope, Space};
use pelton_core::ids::{ConsumerId, IdHash, ParkId};
use pelton_core::parked::{ParkLane, ParkPlace, Parked};
use pelton_core::transaction::StateView;

use super::driver::{CONSUMERS, Driver, KEYS, SCOPE_KEYS};
use super::model::Model;
use crate::store::{DeadLetterQuery, Opened, ParkedQuery, StoredDeadLetter, StoredParked};

type ParkedRow = ((ConsumerId, ParkPlace), Arc<Parked>);

/// Parked messages, read in pages of `limit`.
fn parked_in_pages(store: &Opened, mut query: ParkedQuery) -> Vec<ParkedRow> {
    let mut all: Vec<ParkedRow> = Vec::new();
    loop {
        let page = store.reader.parked(&query).unwrap();
        assert!(page.len() <= query.limit, "{} rows for {query:?}", page.len());
        let Some(last) = page.last() else { return all };
        query.after = Some((last.consumer, last.row.place()));
        all.extend(page.into_iter().map(|StoredParked { consumer, row }| ((consumer, row.place()), row)));
    }
}

/// Dead letters, read in pages of `limit`.
fn dead_letters_in_pages(store: &Opened, mut query: DeadLetterQuery) -> Vec<StoredDeadLetter> {
    let mut all = Vec::new();
    loop {
        let page = store.reader.dead_letters(&query).unwrap();
        assert!(page.len() <= query.limit, "{} letters for {query:?}", page.len());
        let Some(last) = page.last() else { return all };
        query.after = Some((last.consumer, last.sequence, last.letter.message.published_at_ms));
        all.extend(page);
    }
}

/// Whether a store that was just opened holds what the model says, as far as two models of neighbouring batches can differ.
pub(super) fn holds(store: &Opened, model: &Model) -> bool {
    let recovered = &store.recovered;
    let cursors = recovered.consumers.iter().map(|found| (found.id, &found.stream, &found.cursor));
    let holds =
        recovered.consumers.iter().flat_map(|found| found.holds.iter().map(|(by, hold)| ((found.id, *by), hold)));
    let letters = dead_letters_in_pages(store, DeadLetterQuery { limit: 100, ..DeadLetterQuery::default() });
    let parked = parked_in_pages(store, ParkedQuery { limit: 100, ..ParkedQuery::default() });
    model.consumers.iter().map(|(id, (stream, cursor))| (*id, stream, cursor)).eq(cursors)
        && model.holds.iter().map(|(key, hold)| (*key, hold)).eq(holds)
        && model.outbox.keys().eq(recovered.outbox.iter().map(|row| &row.row))
        && model.next_row.max(1) == recovered.next_row.0
        && model.dead_letters.values().eq(letters.iter().map(|found| &found.letter))
        && model.parked.iter().eq(parked.iter().map(|(key, row)| (key, row)))
}

impl Driver {
    /// Compares all that can be read with the model of what attempts see.
    pub(super) fn check_reads(&self) {
        let now_ms = self.now().wall_ms;
        for consumer in (0..CONSUMERS).map(ConsumerId) {
            for key in SCOPE_KEYS {
                let key: Option<Arc<str>> = key.map(Arc::from);
                let scope = Scope { consumer, key: key.clone() };
                for space in [Space::User, Space::Mark, Space::Host] {
                    for entry in KEYS {
                        let model = self.visible.state.get(&((consumer, key.clone()), space, entry.into()));
                        let model = model.filter(|value| value.is_live(now_ms)).map(|value| value.bytes.clone());
                        let found = self.store.reader.get(&scope, space, entry, now_ms).unwrap();
                        assert_eq!(found, model, "{scope:?} {space:?} {entry:?}");
                    }
                }
                self.check_ranges(&scope);
            }
        }
        self.check_marks();
        self.check_dead_letters();
        self.check_parked();
    }

    fn check_marks(&self) {
        let reader = &self.store.reader;
        for (consumer, mark) in &self.visible.marks {
            assert!(reader.seen(*consumer, *mark).unwrap(), "{mark:?} was forgotten");
            let other = ConsumerId(consumer.0 ^ 1);
            assert_eq!(reader.seen(other, *mark).unwrap(), self.visible.marks.contains(&(other, *mark)));
        }
        assert!(!reader.seen(ConsumerId(0), IdHash(1)).unwrap());
    }

    fn check_dead_letters(&self) {
        let model = &self.visible.dead_letters;
        for consumer in [None, Some(ConsumerId(0)), Some(ConsumerId(1)), Some(ConsumerId(9))] {
            for limit in [1, 3, usize::MAX] {
                let found = dead_letters_in_pages(&self.store, DeadLetterQuery { consumer, after: None, limit });
                let found = found.iter().map(|found| (found.consumer, found.sequence, &found.letter));
                let wanted = model.iter().filter(|((of, _, _), _)| consumer.is_none_or(|consumer| consumer == *of));
                let wanted = wanted.map(|((of, sequence, _), letter)| (*of, *sequence, letter));
                assert!(found.eq(wanted), "dead letters of {consumer:?} in pages of {limit}");
            }
        }
        for (consumer, sequence, _) in model.keys() {
            let found = self.store.reader.dead_letter(*consumer, *sequence).unwrap().unwrap();
            let same = model.range((*consumer, *sequence, 0)..=(*consumer, *sequence, u64::MAX));
            assert_eq!(Some(&found.letter), same.last().map(|(_, newest)| newest));
        }
    }

    fn check_parked(&self) {
        let model = &self.visible.parked;
        let mut lanes: Vec<_> = SCOPE_KEYS.iter().flatten().map(|key| ParkLane::Key((*key).into())).collect();
        lanes.extend(model.keys().map(|(_, place)| place.lane.clone()).find(|lane| matches!(lane, ParkLane::Alone(_))));
        let lanes: Vec<_> = [None].into_iter().chain(lanes.into_iter().map(Some)).collect();
        for consumer in [None, Some(ConsumerId(0)), Some(ConsumerId(1)), Some(ConsumerId(9))] {
            for lane in &lanes {
                let belongs = |(of, place): &(ConsumerId, ParkPlace)| {
                    consumer.is_none_or(|consumer| consumer == *of)
                        && lane.as_ref().is_none_or(|lane| *lane == place.lane)
                };
                let wanted: Vec<_> = model.iter().filter(|(key, _)| belongs(key)).collect();
                for limit in [1, 3, usize::MAX] {
                    let query = ParkedQuery { consumer, lane: lane.clone(), after: None, limit };
                    let found = parked_in_pages(&self.store, query);
                    assert!(
                        found.iter().map(|(key, row)| (key, row)).eq(wanted.iter().copied()),
                        "{consumer:?} {lane:?} in pages of {limit}: {found:?}"
                    );
                }
                if let (Some(consumer), Some(lane)) = (consumer, lane) {
                    self.check_fetches(
                        consumer,
                        lane,
                        &wanted.iter().map(|(_, row)| (*row).clone()).collect::<Vec<_>>(),
                    );
                }
            }
        }
        for ((consumer, _), row) in model {
            let found = self.store.reader.parked_row(*consumer, row.id).unwrap();
            assert_eq!(found, Some(StoredParked { consumer: *consumer, row: row.clone() }));
        }
        for id in 0..self.visible.next_park + 1 {
            for consumer in (0..CONSUMERS).map(ConsumerId) {
                let is_there = model.iter().any(|((of, _), row)| *of == consumer && row.id == ParkId(id));
                assert_eq!(self.store.reader.parked_row(consumer, ParkId(id)).unwrap().is_some(), is_there);
            }
        }
    }

    fn check_fetches(&self, consumer: ConsumerId, lane: &ParkLane, wanted: &[Arc<Parked>]) {
        for (rows_max, bytes_max) in [(1, usize::MAX), (3, usize::MAX), (usize::MAX, 1), (usize::MAX, usize::MAX)] {
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let rows = self.store.reader.fetch_parked(consumer, lane, after, rows_max, bytes_max).unwrap();
                let all_but_last: usize = rows.iter().rev().skip(1).map(|row| row.weight()).sum();
                assert!(rows.len() <= rows_max && all_but_last < bytes_max);
                let Some(last) = rows.last() else { break };
                after = Some((last.place().order, last.id));
                found.extend(rows);
            }
            assert_eq!(found, wanted, "{consumer:?} {lane:?} by {rows_max} rows, {bytes_max} bytes");
        }
    }

    fn check_ranges(&self, scope: &Scope) {
        let now_ms = self.now().wall_ms;
        for prefix in ["", "a", "b"] {
            for from in [Bound::Unbounded, Bound::Excluded("a"), Bound::Included("ab"), Bound::Excluded("z")] {
                for limit in [1, 2, 100] {
                    let model = self.visible.state.iter().filter(|((of, space, key), value)| {
                        of.0 == scope.consumer
                            && of.1 == scope.key
                            && *space == Space::User
                            && key.starts_with(prefix)
                            && std::ops::RangeBounds::<str>::contains(&(from, Bound::<&str>::Unbounded), key.as_ref())
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
        let holds =
            recovered.consumers.iter().flat_map(|found| found.holds.iter().map(|hold| (found.id, hold.clone())));
        let holds: BTreeMap<_, _> = holds.map(|(id, (by, hold))| ((id, by), hold)).collect();
        assert_eq!(holds, self.durable.holds);
        let outbox = recovered.outbox.iter().map(|row| (row.row, (row.consumer, row.event.clone())));
        assert_eq!(outbox.collect::<BTreeMap<_, _>>(), self.durable.outbox);
        assert!(recovered.outbox.is_sorted_by_key(|row| row.row));
        assert_eq!(recovered.next_row.0, self.durable.next_row.max(1));
        let mut letters = BTreeMap::new();
        self.durable.dead_letters.keys().for_each(|(consumer, _, _)| *letters.entry(*consumer).or_insert(0_u64) += 1);
        assert_eq!(recovered.dead_letters, letters);
        assert_eq!(recovered.parked, self.durable.lanes());
        assert_eq!(recovered.next_park.0, self.durable.next_park.max(1));
        assert_eq!(self.store.reader.overlay_bytes(), 0);
    }
}
