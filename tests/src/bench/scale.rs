//! How large a benchmark is: in full, or so small that it only shows that it works.

/// The messages of the main work, in full.
const MESSAGES: u64 = 200_000;

/// How much is measured, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Each measurement is made this often; the figure is the median.
    pub runs: usize,
    /// What is measured, as a part of the full amount: 1 for figures that mean something.
    part: f64,
}

impl Scale {
    /// What the figures of a report are made with.
    #[must_use]
    pub fn full() -> Self {
        Self { runs: 3, part: 1.0 }
    }

    /// A few seconds for each bench: shows that it works, and its figures mean nothing.
    #[must_use]
    pub fn short() -> Self {
        Self { runs: 1, part: 0.02 }
    }

    /// The same with another number of runs.
    #[must_use]
    pub fn with_runs(self, runs: usize) -> Self {
        Self { runs, ..self }
    }

    /// The same with so many messages of the main work, and as many more or fewer of everything else.
    #[must_use]
    pub fn with_messages(self, messages: u64) -> Self {
        Self { part: messages as f64 / MESSAGES as f64, ..self }
    }

    /// Whether the figures are those of a report.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.part >= 1.0 && self.runs >= 3
    }

    /// The messages of the main work.
    pub(crate) fn messages(&self) -> u64 {
        self.of(MESSAGES)
    }

    /// So much of `full` that this scale asks for; at least `100`, or `full` if that is less.
    pub(crate) fn of(&self, full: u64) -> u64 {
        ((full as f64 * self.part) as u64).max(full.min(100))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_run_is_small_and_never_empty() {
        assert_eq!(Scale::full().of(1_000_000), 1_000_000);
        assert_eq!(Scale::short().messages(), 4_000);
        assert_eq!((Scale::short().of(1_000), Scale::short().of(10)), (100, 10));
        assert!(Scale::full().is_full() && !Scale::short().is_full() && !Scale::full().with_runs(1).is_full());
    }
}
