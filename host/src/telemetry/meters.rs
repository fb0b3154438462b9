//! What the threads of the host count while they work, and a scrape reads: atomic numbers, reached through handles that are made when a consumer is deployed.
//!
//! What the core counts is read from the core. A meter that is read while it is written to may be behind by what is being counted at that moment; it never goes
//! back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use pelton_core::histogram::{BUCKETS, Histogram, bucket_of};
use pelton_core::ids::Version;
use pelton_core::message::Failure;

use super::exemplars::Traced;
use crate::wasm::Output;

/// Versions of one consumer that are told apart; the one called least recently goes first.
const VERSIONS_MAX: usize = 4;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds to it.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// What it is now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A histogram that many threads count into.
#[derive(Debug)]
pub struct Distribution {
    counts: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Default for Distribution {
    fn default() -> Self {
        Self { counts: std::array::from_fn(|_| AtomicU64::new(0)), sum: AtomicU64::new(0) }
    }
}

impl Distribution {
    /// Counts a value.
    pub fn record(&self, value: u64) {
        if let Some(count) = self.counts.get(bucket_of(value)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// What was counted so far.
    #[must_use]
    pub fn read(&self) -> Histogram {
        let mut counts = [0; BUCKETS];
        for (count, atomic) in counts.iter_mut().zip(&self.counts) {
            *count = atomic.load(Ordering::Relaxed);
        }
        Histogram::of(counts, self.sum.load(Ordering::Relaxed))
    }
}

/// What came of a call of the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Called {
    /// It returned ok.
    Ok,
    /// It asked for another attempt.
    Retry,
    /// It rejected the message.
    Reject,
    /// It said that it is not the message's turn.
    Park,
    /// The instance trapped.
    Trap,
    /// It ran past its time.
    Timeout,
    /// It passed another limit.
    Limit,
}

impl Called {
    /// All of them, in the order of their counts.
    pub const ALL: [Self; 7] =
        [Self::Ok, Self::Retry, Self::Reject, Self::Park, Self::Trap, Self::Timeout, Self::Limit];

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Retry => "retry",
            Self::Reject => "reject",
            Self::Park => "park",
            Self::Trap => "trap",
            Self::Timeout => "timeout",
            Self::Limit => "limit",
        }
    }

    /// How this failure is counted.
    #[must_use]
    pub fn failed(failure: &Failure) -> Self {
        match failure {
            Failure::Retry { .. } => Self::Retry,
            Failure::Reject { .. } => Self::Reject,
            Failure::Park { .. } => Self::Park,
            Failure::Trap { .. } => Self::Trap,
            Failure::Timeout { .. } => Self::Timeout,
            Failure::Limit { .. } => Self::Limit,
        }
    }
}

/// What one version of a consumer's plug-in did.
#[derive(Debug)]
pub struct VersionMeters {
    /// The version.
    pub version: Version,
    called: [Count; Called::ALL.len()],
    /// Time of its attempts, in microseconds.
    pub duration_us: Distribution,
}

impl VersionMeters {
    fn new(version: Version) -> Self {
        Self { version, called: Default::default(), duration_us: Distribution::default() }
    }

    /// Counts an attempt that took so many microseconds.
    pub fn attempt(&self, called: Called, took_us: u64) {
        if let Some(count) = self.called.get(called as usize) {
            count.add(1);
        }
        self.duration_us.record(took_us);
    }

    /// How many attempts ended so.
    #[must_use]
    pub fn called(&self, called: Called) -> u64 {
        self.called.get(called as usize).map_or(0, Count::get)
    }
}

/// What is counted for one consumer, beside what the core counts.
#[derive(Debug, Default)]
pub struct ConsumerMeters {
    /// From a message's delivery to its first attempt, in microseconds.
    pub queue_wait_us: Distribution,
    /// Attempts whose traces are recorded.
    pub traced: Traced,
    /// What its plug-ins write and use.
    pub output: Arc<Output>,
    /// The version that was deployed last is the last one.
    versions: Mutex<VecDeque<Arc<VersionMeters>>>,
}

impl ConsumerMeters {
    /// The meters of a version that is to serve. Versions that served long ago are forgotten.
    #[must_use]
    pub fn version(&self, version: Version) -> Arc<VersionMeters> {
        let mut versions = self.versions.lock();
        let known = versions.iter().position(|known| known.version == version);
        let meters =
            known.and_then(|place| versions.remove(place)).unwrap_or_else(|| Arc::new(VersionMeters::new(version)));
        while versions.len() >= VERSIONS_MAX {
            versions.pop_front();
        }
        versions.push_back(Arc::clone(&meters));
        meters
    }

    /// The versions that are told apart.
    #[must_use]
    pub fn versions(&self) -> Vec<Arc<VersionMeters>> {
        self.versions.lock().iter().cloned().collect()
    }
}

/// How a deployment that brought another version ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// The other version serves.
    Swapped,
    /// It was refused, and the one before goes on.
    Refused,
    /// The one before was brought back.
    RolledBack,
}

impl Swap {
    /// All of them, in the order of their counts.
    pub const ALL: [Self; 3] = [Self::Swapped, Self::Refused, Self::RolledBack];

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Swapped => "swapped",
            Self::Refused => "refused",
            Self::RolledBack => "rolled_back",
        }
    }
}

/// What became of the spans of recorded traces.
#[derive(Debug, Default)]
pub struct Spans {
    /// The collector took them.
    pub exported: Count,
    /// It did not.
    pub failed: Count,
    /// They were dropped before: the queue was full.
    pub dropped: Count,
}

/// All meters of a host.
#[derive(Debug, Default)]
pub struct Meters {
    consumers: Mutex<BTreeMap<Box<str>, Arc<ConsumerMeters>>>,
    swaps: [Count; Swap::ALL.len()],
    /// Executor threads.
    pub executors: Count,
    /// Time that they were at work, in microseconds.
    pub busy_us: Count,
    /// Time of commits, in microseconds.
    pub commit_us: Distribution,
    /// Outcomes in a commit.
    pub commit_outcomes: Distribution,
    /// Time of checkpoints, in microseconds.
    pub checkpoint_us: Distribution,
    /// Time of compiling and verifying, in microseconds.
    pub compile_us: Distribution,
    /// Spans.
    pub spans: Arc<Spans>,
}

impl Meters {
    /// The meters of the consumer of this name. They outlive its restarts.
    #[must_use]
    pub fn consumer(&self, name: &str) -> Arc<ConsumerMeters> {
        let mut consumers = self.consumers.lock();
        if let Some(known) = consumers.get(name) {
            return Arc::clone(known);
        }
        let meters = Arc::<ConsumerMeters>::default();
        consumers.insert(name.into(), Arc::clone(&meters));
        meters
    }

    /// All consumers that were deployed, by name.
    #[must_use]
    pub fn consumers(&self) -> BTreeMap<Box<str>, Arc<ConsumerMeters>> {
        self.consumers.lock().clone()
    }

    /// A deployment that brought another version has ended.
    pub fn swap(&self, result: Swap) {
        if let Some(count) = self.swaps.get(result as usize) {
            count.add(1);
        }
    }

    /// How many ended so.
    #[must_use]
    pub fn swaps(&self, result: Swap) -> u64 {
        self.swaps.get(result as usize).map_or(0, Count::get)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_count_at_once_adds_up() {
        let distribution = Distribution::default();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let distribution = &distribution;
                scope.spawn(move || (0..1_000).for_each(|value| distribution.record(value + thread)));
            }
        });
        let read = distribution.read();
        assert_eq!((read.count(), read.sum()), (4_000, 4 * 499_500 + 6_000));
    }

    #[test]
    fn outcomes_are_counted_under_their_own_words() {
        let meters = VersionMeters::new(Version([7; 32]));
        for (number, called) in Called::ALL.into_iter().enumerate() {
            (0..=number).for_each(|_| meters.attempt(called, 1));
        }
        assert_eq!(Called::ALL.map(|called| meters.called(called)), [1, 2, 3, 4, 5, 6, 7]);
        let meters = Meters::default();
        meters.swap(Swap::Refused);
        assert_eq!(Swap::ALL.map(|swap| meters.swaps(swap)), [0, 1, 0]);
    }

    #[test]
    fn the_versions_that_served_last_are_told_apart() {
        let meters = ConsumerMeters::default();
        for version in [1, 2, 3, 4, 2, 5] {
            meters.version(Version([version; 32])).attempt(Called::Ok, 1);
        }
        let kept = meters.versions();
        let kept: Vec<_> = kept.iter().map(|kept| (kept.version.0[0], kept.called(Called::Ok))).collect();
        assert_eq!(kept, [(3, 1), (4, 1), (2, 2), (5, 1)]);
    }
}
