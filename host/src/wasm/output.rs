//! What all attempts of a consumer have in common: how many lines they may write to the host's log, and what they used.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How many lines a plug-in may write to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBudget {
    /// Lines a second, in the long run.
    pub lines_per_second: u32,
    /// Lines at once, after it was silent for a while.
    pub burst: u32,
}

impl Default for LogBudget {
    fn default() -> Self {
        Self { lines_per_second: 100, burst: 1_000 }
    }
}

/// Lines that were dropped are told of this often at most.
const TELL_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Bucket {
    budget: LogBudget,
    /// Lines that may be written now, and parts of one.
    lines: f64,
    filled: Instant,
    /// Lines dropped and not told of yet.
    untold: u64,
    told: Option<Instant>,
}

impl Bucket {
    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now;
        let more = passed * f64::from(self.budget.lines_per_second);
        self.lines = (self.lines + more).min(f64::from(self.budget.burst.max(1)));
        if self.lines < 1.0 {
            return false;
        }
        self.lines -= 1.0;
        true
    }

    fn tell(&mut self, now: Instant) -> Option<u64> {
        let due = self.told.is_none_or(|told| now.saturating_duration_since(told) >= TELL_EVERY);
        if self.untold == 0 || !due {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

/// What the plug-ins of one consumer have written and used.
#[derive(Debug)]
pub struct Output {
    bucket: Mutex<Bucket>,
    written: AtomicU64,
    dropped: AtomicU64,
    memory_peak_bytes: AtomicU64,
}

impl Default for Output {
    fn default() -> Self {
        let budget = LogBudget::default();
        let lines = f64::from(budget.burst);
        let bucket = Bucket { budget, lines, filled: Instant::now(), untold: 0, told: None };
        Self {
            bucket: Mutex::new(bucket),
            written: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            memory_peak_bytes: AtomicU64::new(0),
        }
    }
}

impl Output {
    /// From now on this is the budget. A smaller one than before holds at once.
    pub fn set_budget(&self, budget: LogBudget) {
        let mut bucket = self.bucket.lock();
        if bucket.budget != budget {
            let unused = bucket.lines >= f64::from(bucket.budget.burst);
            bucket.lines = if unused { f64::from(budget.burst) } else { bucket.lines.min(f64::from(budget.burst)) };
            bucket.budget = budget;
        }
    }

    /// Whether another line may be written; it counts as written then, else as dropped.
    pub(super) fn may_write(&self) -> bool {
        let mut bucket = self.bucket.lock();
        let may = bucket.take(Instant::now());
        if may {
            self.written.fetch_add(1, Ordering::Relaxed);
        } else {
            bucket.untold += 1;
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        may
    }

    /// Lines were dropped that the attempt itself tells of.
    pub(super) fn dropped_by_attempt(&self, lines: u64) {
        self.dropped.fetch_add(lines, Ordering::Relaxed);
    }

    /// An instance had grown to this size.
    pub(super) fn memory(&self, bytes: usize) {
        self.memory_peak_bytes.fetch_max(bytes as u64, Ordering::Relaxed);
    }

    /// How many lines were dropped since this was last asked and answered, if it is time to tell of them.
    #[must_use]
    pub fn untold(&self) -> Option<u64> {
        self.bucket.lock().tell(Instant::now())
    }

    /// Lines written to the log.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Lines dropped, past this budget or that of an attempt.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// The linear memory of the largest instance so far, in bytes.
    #[must_use]
    pub fn memory_peak_bytes(&self) -> u64 {
        self.memory_peak_bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(lines_per_second: u32, burst: u32, now: Instant) -> Bucket {
        let budget = LogBudget { lines_per_second, burst };
        Bucket { budget, lines: f64::from(burst), filled: now, untold: 0, told: None }
    }

    #[test]
    fn a_burst_passes_and_then_so_many_lines_a_second() {
        let now = Instant::now();
        let mut bucket = bucket(10, 5, now);
        let taken = |bucket: &mut Bucket, at| (0..100).filter(|_| bucket.take(at)).count();
        assert_eq!(taken(&mut bucket, now), 5);
        assert_eq!(taken(&mut bucket, now + Duration::from_millis(300)), 3);
        assert_eq!(
            taken(&mut bucket, now + Duration::from_secs(100)),
            5,
            "a long silence saves up no more than a burst"
        );
    }

    #[test]
    fn what_was_dropped_is_told_now_and_then_with_its_number() {
        let now = Instant::now();
        let mut bucket = bucket(1, 1, now);
        assert_eq!(bucket.tell(now), None, "nothing was dropped");
        bucket.untold = 7;
        assert_eq!(bucket.tell(now), Some(7));
        bucket.untold = 3;
        assert_eq!(bucket.tell(now + Duration::from_secs(9)), None);
        assert_eq!(bucket.tell(now + Duration::from_secs(10)), Some(3));
    }

    #[test]
    fn a_changed_budget_holds_at_once() {
        let output = Output::default();
        output.set_budget(LogBudget { lines_per_second: 1, burst: 2 });
        assert_eq!((0..50).filter(|_| output.may_write()).count(), 2);
        assert_eq!((output.written(), output.dropped(), output.untold()), (2, 48, Some(48)));
    }
}
