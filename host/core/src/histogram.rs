//! How values are distributed: counts in buckets that are fine enough for a percentile and few enough to be kept for each consumer.
//!
//! Owns the bounds that all histograms of the host share, whatever their unit. A bound is a step of 1, 1.2, 1.5, … 9 times a power of ten, so a percentile is
//! off by a quarter at most, and the bounds that people expect (1, 2.5, 5, 10 …) are among them.

/// The first bounds of each power of ten, times 100.
const STEPS: [u64; 14] = [100, 120, 150, 175, 200, 250, 300, 350, 400, 500, 600, 700, 800, 900];
/// Powers of ten that have bounds of their own.
const DECADES: usize = 8;
/// How many buckets a histogram has; the last one has no upper bound.
pub const BUCKETS: usize = STEPS.len() * DECADES + 2;

/// The upper bounds of all buckets but the last one, each inclusive. The first one is 0.
pub const BOUNDS: [u64; BUCKETS - 1] = bounds();

#[expect(clippy::indexing_slicing, reason = "worked out by the compiler, which refuses what is out of bounds")]
const fn bounds() -> [u64; BUCKETS - 1] {
    let mut bounds = [0; BUCKETS - 1];
    let (mut decade, mut power, mut place) = (0, 1, 1);
    while decade < DECADES {
        let mut step = 0;
        while step < STEPS.len() {
            // Below 100 there are fewer whole numbers than steps: the same bound twice is an empty bucket.
            bounds[place] = STEPS[step] * power / 100;
            step += 1;
            place += 1;
        }
        power *= 10;
        decade += 1;
    }
    bounds
}

/// The bucket of a value.
#[must_use]
pub fn bucket_of(value: u64) -> usize {
    BOUNDS.partition_point(|bound| *bound < value)
}

/// Counts of values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: Box<[u64; BUCKETS]>,
    sum: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: Box::new([0; BUCKETS]), sum: 0 }
    }
}

impl Histogram {
    /// A histogram of these counts, one for each bucket, whose values add up to `sum`.
    #[must_use]
    pub fn of(counts: [u64; BUCKETS], sum: u64) -> Self {
        Self { counts: Box::new(counts), sum }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        if let Some(count) = self.counts.get_mut(bucket_of(value)) {
            *count += 1;
        }
        self.sum = self.sum.saturating_add(value);
    }

    /// Counts all that another one has counted.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts.iter()) {
            *count += more;
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// What was counted since `earlier`, an earlier state of this one.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = self.clone();
        for (count, before) in since.counts.iter_mut().zip(earlier.counts.iter()) {
            *count = count.saturating_sub(*before);
        }
        since.sum = self.sum.saturating_sub(earlier.sum);
        since
    }

    /// The counts of the buckets, in the order of [`BOUNDS`]; the last one is of all that lies above them.
    #[must_use]
    pub fn counts(&self) -> &[u64; BUCKETS] {
        &self.counts
    }

    /// The sum of all values.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// A value that this part of all values (in thousandths) does not pass, to the precision of the bounds; none: there are no values. Above the last
    /// bound it is that bound.
    #[must_use]
    pub fn permille(&self, permille: u64) -> Option<u64> {
        let all = self.count();
        if all == 0 {
            return None;
        }
        let rank = (all.saturating_mul(permille.min(1_000))).div_ceil(1_000).max(1);
        let mut below = 0;
        let mut lower = 0;
        for (count, upper) in self.counts.iter().zip(BOUNDS) {
            if below + count >= rank {
                // Between the bounds the values are taken to be spread evenly.
                return Some(lower + (upper - lower).saturating_mul(rank - below) / count);
            }
            below += count;
            lower = upper;
        }
        Some(lower)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_rise_and_hold_what_people_expect() {
        assert!(BOUNDS.windows(2).all(|pair| pair[0] <= pair[1]), "{BOUNDS:?}");
        for expected in [0, 1, 2, 5, 10, 25, 50, 100, 250, 1_000, 25_000, 500_000, 10_000_000, 90_000_000] {
            assert!(BOUNDS.contains(&expected), "{expected}");
        }
    }

    #[test]
    fn a_value_lies_at_or_below_the_bound_of_its_bucket() {
        for value in [0, 1, 2, 3, 10, 11, 12, 13, 99, 100, 101, 120, 121, 999_999, 90_000_000] {
            let place = bucket_of(value);
            assert!(value <= BOUNDS[place] && (place == 0 || value > BOUNDS[place - 1]), "{value}");
        }
        assert_eq!(bucket_of(90_000_001), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_off_by_a_quarter_at_most() {
        let mut histogram = Histogram::default();
        (1..=10_000).for_each(|value| histogram.record(value));
        for permille in [10, 500, 900, 990, 999, 1_000] {
            let (exact, told) = (permille * 10, histogram.permille(permille).unwrap());
            assert!(told.abs_diff(exact) * 4 <= exact, "{permille}: {told} for {exact}");
        }
        assert_eq!((histogram.count(), histogram.sum()), (10_000, 50_005_000));
        assert_eq!(Histogram::default().permille(500), None);
    }

    #[test]
    fn what_lies_above_all_bounds_is_told_as_the_last_one() {
        let mut histogram = Histogram::default();
        histogram.record(u64::MAX);
        assert_eq!(histogram.permille(500), Some(90_000_000));
    }

    #[test]
    fn what_came_since_is_what_was_added() {
        let mut histogram = Histogram::default();
        histogram.record(5);
        let earlier = histogram.clone();
        histogram.record(700);
        let mut only = Histogram::default();
        only.record(700);
        assert_eq!(histogram.since(&earlier), only);
        only.add(&earlier);
        assert_eq!(only, histogram);
    }
}
