//! Processed ids against a plain set, with runs, blocks and merges so small that a few hundred ids go through all of them.

use std::collections::{BTreeMap, BTreeSet};

use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase};

use super::filter::Filter;
use super::*;

/// A view with nothing but processed ids, and what it must hold.
struct Ids {
    database: Database,
    looked_up: ProcessedIds,
    model: BTreeMap<u64, BTreeSet<Id>>,
    generation: u64,
    filter_bytes_max: usize,
}

fn marks(ids: &BTreeSet<Id>) -> Vec<MarkChange> {
    ids.iter().map(|(consumer, hash)| MarkChange { consumer: *consumer, hash: *hash, writes: 1 }).collect()
}

/// As random as hashes are.
fn id(n: u64) -> Id {
    let hash = u128::from(n.wrapping_mul(0x9E37_79B9_7F4A_7C15)) << 64 | u128::from(n);
    (u32::try_from(n % 3).unwrap(), hash)
}

impl Ids {
    fn new(filter_bytes_max: usize) -> Self {
        let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
        let looked_up = ProcessedIds::none(filter_bytes_max);
        Self { database, looked_up, model: BTreeMap::new(), generation: 1, filter_bytes_max }
    }

    /// One transaction, and what readers see afterwards.
    fn change(&mut self, change: impl FnOnce(&WriteTransaction)) {
        let transaction = self.database.begin_write().unwrap();
        change(&transaction);
        transaction.commit().unwrap();
        let transaction = self.database.begin_read().unwrap();
        self.looked_up = self.looked_up.renewed(&transaction, self.generation).unwrap();
    }

    fn insert(&mut self, ids: impl IntoIterator<Item = Id>) {
        let ids: BTreeSet<Id> = ids.into_iter().collect();
        let generation = self.generation;
        self.change(|transaction| insert(transaction, generation, &marks(&ids)).unwrap());
        self.model.entry(generation).or_default().extend(ids);
    }

    fn step_generation(&mut self) {
        self.generation += 1;
        let generation = self.generation;
        self.change(|transaction| expire(transaction, generation).unwrap());
        self.model.retain(|number, _| number + 1 >= generation);
    }

    fn forget(&mut self, consumer: u32) {
        self.change(|transaction| forget(transaction, consumer).unwrap());
        self.model.values_mut().for_each(|ids| ids.retain(|id| id.0 != consumer));
    }

    /// As after a restart: nothing is known but what is stored.
    fn reopen(&mut self) {
        self.looked_up = ProcessedIds::none(self.filter_bytes_max);
        self.change(|_| ());
    }

    fn runs(&self) -> Runs {
        let transaction = self.database.begin_read().unwrap();
        Runs::load(&transaction.open_table(RUNS).unwrap(), self.generation).unwrap()
    }

    /// All runs, by how many ids they have, and their filters.
    fn filters(&self) -> impl Iterator<Item = (u64, Option<&Filter>)> {
        let places = self.looked_up.generations.iter().flat_map(|generation| &generation.places);
        let runs = places.flat_map(|place| place.runs.iter().chain(place.moved.iter().map(|moved| &moved.output)));
        runs.map(|filtered| (filtered.run.ids, filtered.filter.as_ref()))
    }

    /// Everything that was inserted is found and nothing else, and the blocks hold each id once.
    fn check(&self, up_to: u64) {
        for n in 0..up_to {
            let id = id(n);
            let known = self.model.values().any(|ids| ids.contains(&id));
            assert_eq!(self.looked_up.contains(ConsumerId(id.0), IdHash(id.1)).unwrap(), known, "{n}");
        }
        for Generation { number, blocks, places } in &self.looked_up.generations {
            let mut stored: Vec<Id> = Vec::new();
            for place in places {
                let moved = place.moved.as_ref();
                for (run, _) in place.all_runs() {
                    let of_run = blocks::of_run(blocks, run.number, None).unwrap().flat_map(|block| block.unwrap().ids);
                    // A block that was moved in part still has all of its ids.
                    let is_output = moved.is_some_and(|moved| moved.output.run == run);
                    stored.extend(of_run.filter(|id| moved.is_none_or(|moved| (*id <= moved.last) == is_output)));
                }
            }
            stored.sort_unstable();
            assert!(
                stored.iter().eq(self.model.get(number).into_iter().flatten()),
                "the blocks of generation {number}"
            );
        }
    }
}

#[test]
fn ids_are_found_whatever_is_merged_forgotten_and_read_anew() {
    for filter_bytes_max in [0, 200, 1 << 20] {
        let (mut ids, mut next) = (Ids::new(filter_bytes_max), 0);
        for round in 0_u64..120 {
            // From one id to more than the smallest size class has.
            let many = 1 + round * 7 % 41;
            ids.insert((next..next + many).map(id));
            next += many;
            match round % 40 {
                13 => ids.forget(u32::try_from(round % 3).unwrap()),
                31 => ids.step_generation(),
                number if number % 6 == 0 => ids.reopen(),
                _ => {}
            }
            ids.check(next + 20);
        }
    }
}

#[test]
fn runs_stay_few() {
    let mut ids = Ids::new(1 << 20);
    let (mut places_max, each) = (0, 16);
    for round in 0..1_000 {
        ids.insert((round * each..(round + 1) * each).map(id));
        places_max = places_max.max(ids.runs().places().count());
    }
    // 16,000 ids are up to 4^5 times as many as a run begins with: each of the size classes has at most three runs that wait, and a merge.
    assert!(places_max <= 6 * 4, "{places_max} places");
    ids.check(1_000 * each);
}

#[test]
fn a_checkpoint_moves_no_more_than_it_brings() {
    let mut ids = Ids::new(1 << 20);
    (0..64).for_each(|round| ids.insert((round * 16..(round + 1) * 16).map(id)));
    let stored = |ids: &Ids| -> BTreeMap<u32, u64> {
        let of = |generation: &Generation| -> Vec<(u32, u64)> {
            let runs = generation.places.iter().flat_map(Place::all_runs).map(|(run, _)| run.number);
            let count = |run| {
                blocks::of_run(&generation.blocks, run, None)
                    .unwrap()
                    .map(|block| block.unwrap().ids.len() as u64)
                    .sum()
            };
            runs.map(|run| (run, count(run))).collect()
        };
        ids.looked_up.generations.iter().flat_map(of).collect()
    };
    for round in 64..256 {
        let before = stored(&ids);
        ids.insert((round * 16..(round + 1) * 16).map(id));
        let after = stored(&ids);
        let written: u64 =
            after.iter().map(|(run, count)| count.saturating_sub(before.get(run).copied().unwrap_or(0))).sum();
        // 16 new ones and as many for each of the five merges that there can be, and what one reading of a merge moves at most beyond that.
        assert!(written <= 16 + 5 * (16 + 4 * 2 * 5), "round {round}: {written} ids were written for 16 new ones");
    }
}

#[test]
fn an_id_that_comes_a_second_time_is_kept_once() {
    let mut ids = Ids::new(1 << 20);
    (0..32).for_each(|_| ids.insert((0..16).map(id)));
    let stored: u64 = ids.runs().places().flat_map(|place| place.runs).map(|filtered| filtered.run.ids).sum();
    assert!(stored <= 8 * 16, "{stored} of 512: no more than eight runs are not merged yet");
    for n in 0..16 {
        assert!(ids.looked_up.contains(ConsumerId(id(n).0), IdHash(id(n).1)).unwrap());
    }
}

#[test]
fn filters_have_no_more_memory_than_they_may_and_small_runs_first() {
    for bytes_max in (100..700).step_by(50) {
        let mut ids = Ids::new(bytes_max);
        let mut without = 0;
        for round in 0..60 {
            ids.insert((round * 10..(round + 1) * 10).map(id));
            let runs: Vec<_> = ids.filters().map(|(ids, filter)| (ids, filter.map(Filter::bytes))).collect();
            let bytes: usize = runs.iter().filter_map(|(_, bytes)| *bytes).sum();
            assert!(bytes <= bytes_max, "{bytes} of {bytes_max} bytes: {runs:?}");
            let smallest = runs.iter().map(|(ids, _)| *ids).min().unwrap();
            // Ten bits an id, and three quarters of the memory for new ones.
            let has_room = smallest as usize * 10 / 8 + 8 <= bytes_max / 4 * 3;
            assert!(!has_room || !runs.contains(&(smallest, None)), "the smallest goes without: {runs:?}");
            without += runs.iter().filter(|(_, bytes)| bytes.is_none()).count();
        }
        assert!(without > 0 || bytes_max > 600, "no run had to do without with {bytes_max} bytes");
    }
}

#[test]
fn a_run_that_is_too_long_for_one_checkpoint_gets_its_filter_by_and_by() {
    let mut ids = Ids::new(1 << 20);
    ids.insert([id(0)]);
    ids.insert((1..1_000).map(id));
    let passed = |ids: &Ids| {
        let filter = ids.filters().max_by_key(|(ids, _)| *ids).unwrap().1.unwrap();
        (1_000..2_000).filter(|n| filter.may_have(id(*n))).count()
    };
    let mut before = passed(&ids);
    assert!(before > 800, "{before} of 1,000");
    while before > 50 {
        ids.change(|_| ());
        let now = passed(&ids);
        assert!(now < before, "{now}");
        before = now;
        ids.check(1_100);
    }
}

#[test]
fn a_filter_lets_few_ids_pass_that_it_does_not_have() {
    let mut ids = Ids::new(1 << 20);
    ids.insert((0..10_000).map(id));
    let filter = ids.filters().next().unwrap().1.unwrap();
    let passed = (10_000..40_000).filter(|n| filter.may_have(id(*n))).count();
    assert!(passed < 600, "{passed} of 30,000");
    let other = (0..10_000).filter(|n| filter.may_have((id(*n).0 + 1, id(*n).1))).count();
    assert!(other < 200, "{other} of 10,000 ids of other consumers");
}

#[test]
fn a_generation_lasts_its_running_time_and_steps_once_however_late_the_checkpoint() {
    let mut meta = Meta::new(0);
    meta.running_ms = 999;
    assert!(!step_generation(&mut meta, 1_000));
    meta.running_ms = 50_000;
    assert!(step_generation(&mut meta, 1_000));
    assert_eq!(meta.generation, 2);
    meta.running_ms += 999;
    assert!(!step_generation(&mut meta, 1_000), "the ids written just before the step would be dropped");
}
