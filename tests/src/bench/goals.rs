//! The goals, and whether the figures meet them.

use serde::{Deserialize, Serialize};

use super::compare::{self, BY_HAND, FLOOR, NATIVE, case_name};
use super::figures::{CPU_US, Case, P50_US, P99_US, PEAK_MB, RATE, READY_MS, RESIDENT_MB, WRITTEN_BYTES, kept};
use super::latency::{self, BASE_US};
use super::pelton::Isolation;
use super::{attempt, bounds, consumers, idle, keys, poisoned, recovery, swap};

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wanted {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

/// A goal and what was reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// What it is about.
    pub name: String,
    /// What is wanted.
    pub wanted: Wanted,
    /// What was measured; none: it could not be.
    pub figure: Option<f64>,
    /// Whether it is met. Without a figure it is missed.
    pub met: bool,
    /// What bounds the figure of one that is missed, as far as this run shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<String>,
}

impl Goal {
    fn new(name: impl Into<String>, wanted: Wanted, figure: Option<f64>) -> Self {
        let figure = figure.map(kept);
        let met = figure.is_some_and(|figure| match wanted {
            Wanted::AtLeast(least) => figure >= least,
            Wanted::AtMost(most) => figure <= most,
        });
        Self { name: name.into(), wanted, figure, met, bound: None }
    }

    /// The same, with what bounds it if it is missed.
    fn bound_by(self, bound: impl FnOnce() -> Option<String>) -> Self {
        let bound = if self.met { None } else { bound() };
        Self { bound, ..self }
    }
}

/// The cases, as the goals look at them.
pub(super) struct Figures<'a>(pub(super) &'a [Case]);

impl Figures<'_> {
    /// A case.
    pub(super) fn case(&self, bench: &str, case: &str) -> Option<&Case> {
        self.0.iter().find(|known| known.bench == bench && known.name == case)
    }

    /// A median; none if it was not measured.
    pub(super) fn of(&self, bench: &str, case: &str, figure: &str) -> Option<f64> {
        self.case(bench, case)?.median(figure)
    }

    /// One median by another of the same bench.
    fn ratio(&self, bench: &str, case: &str, of: &str, figure: &str) -> Option<f64> {
        Some(self.of(bench, case, figure)? / self.of(bench, of, figure)?)
    }
}

/// Judges the goals that these cases say something about; `all`: the others as well, as missed.
pub(crate) fn judge(cases: &[Case], all: bool) -> Vec<Goal> {
    let figures = Figures(cases);
    let mut goals = of_throughput(&figures);
    goals.extend(of_shape(&figures));
    goals.extend(of_cost(&figures));
    goals.extend(of_latency(&figures));
    goals.extend(of_rest(&figures));
    goals.retain(|goal| all || goal.figure.is_some());
    goals
}

fn of_throughput(figures: &Figures<'_>) -> Vec<Goal> {
    let rate = |isolation, of: &str| figures.ratio(compare::BENCH, &case_name("uniform", isolation), of, RATE);
    let (fresh, reuse) = (Isolation::Fresh, Isolation::Reuse);
    vec![
        Goal::new("throughput of the floor (R0), isolation reuse", Wanted::AtLeast(0.65), rate(reuse, FLOOR))
            .bound_by(|| bounds::of_floor(figures, reuse, 0.65)),
        Goal::new("throughput of the floor (R0), isolation fresh", Wanted::AtLeast(0.50), rate(fresh, FLOOR))
            .bound_by(|| bounds::of_floor(figures, fresh, 0.5)),
        Goal::new("throughput of a native handler (R1), isolation reuse", Wanted::AtLeast(0.90), rate(reuse, NATIVE))
            .bound_by(|| bounds::of_native(figures, reuse)),
        Goal::new("throughput of a native handler (R1), isolation fresh", Wanted::AtLeast(0.65), rate(fresh, NATIVE))
            .bound_by(|| bounds::of_native(figures, fresh)),
        Goal::new("throughput of hand-written code (R2), isolation fresh", Wanted::AtLeast(30.0), rate(fresh, BY_HAND))
            .bound_by(|| bounds::of_by_hand(figures)),
    ]
}

fn of_shape(figures: &Figures<'_>) -> Vec<Goal> {
    let uniform = case_name("uniform", Isolation::Fresh);
    let of_uniform = |work| figures.ratio(compare::BENCH, &case_name(work, Isolation::Fresh), &uniform, RATE);
    vec![
        Goal::new("hot key of uniform", Wanted::AtLeast(0.6), of_uniform("hot")),
        Goal::new("zipf of uniform", Wanted::AtLeast(0.9), of_uniform("zipf")).bound_by(|| bounds::of_zipf(figures)),
        Goal::new("100 consumers of 1", Wanted::AtLeast(0.8), figures.ratio(consumers::BENCH, "100", "1", RATE)),
        Goal::new("1,000,000 keys of 1,000", Wanted::AtLeast(0.6), figures.ratio(keys::BENCH, "1000000", "1000", RATE))
            .bound_by(|| bounds::of_many_keys(figures)),
        Goal::new(
            "others beside a poisoned key, of the same alone",
            Wanted::AtLeast(0.7),
            figures.of(poisoned::BENCH, poisoned::CASE, poisoned::RATIO),
        ),
        Goal::new(
            "peak memory beside a poisoned key, MB",
            Wanted::AtMost(400.0),
            figures.of(poisoned::BENCH, poisoned::CASE, PEAK_MB),
        ),
    ]
}

fn of_cost(figures: &Figures<'_>) -> Vec<Goal> {
    let of = |isolation, figure: &str| figures.of(compare::BENCH, &case_name("uniform", isolation), figure);
    let (fresh, reuse) = (Isolation::Fresh, Isolation::Reuse);
    vec![
        Goal::new("CPU µs a message, host alone, isolation reuse", Wanted::AtMost(16.0), of(reuse, CPU_US))
            .bound_by(|| bounds::of_cpu(figures, reuse)),
        Goal::new("CPU µs a message, host alone, isolation fresh", Wanted::AtMost(25.0), of(fresh, CPU_US))
            .bound_by(|| bounds::of_cpu(figures, fresh)),
        Goal::new(
            "CPU µs of a fresh attempt with three host calls",
            Wanted::AtMost(12.0),
            figures.of(attempt::BENCH, attempt::CASE, attempt::CPU),
        ),
        Goal::new(
            "attempts of two threads, of one",
            Wanted::AtLeast(1.7),
            figures.of(attempt::BENCH, attempt::CASE, attempt::TWO_THREADS),
        )
        .bound_by(|| bounds::of_two_threads(figures)),
        Goal::new("peak memory on the work, MB", Wanted::AtMost(200.0), of(fresh, PEAK_MB))
            .bound_by(|| bounds::of_peak(figures)),
        Goal::new("bytes written to disk a message", Wanted::AtMost(1_500.0), of(fresh, WRITTEN_BYTES)),
    ]
}

/// Memory and time that grow with what the host has, and not with what it does.
fn of_rest(figures: &Figures<'_>) -> Vec<Goal> {
    let resident_each = |bench, few, many, count: &str| {
        let of = |case, figure: &str| figures.of(bench, case, figure);
        let more = of(many, RESIDENT_MB)? - of(few, RESIDENT_MB)?;
        Some((more / (of(many, count)? - of(few, count)?)).max(0.0))
    };
    let of_consumer = resident_each(idle::BENCH, idle::FEW, idle::MANY, idle::CONSUMERS);
    let of_key = resident_each(keys::BENCH, "1000", "1000000", keys::KEYS);
    vec![
        Goal::new(
            "a lane's longest pause at a swap, ms",
            Wanted::AtMost(2.0),
            figures.of(swap::BENCH, swap::SWAPPING, swap::AT_SWAP_MS),
        )
        .bound_by(|| bounds::of_swaps(figures)),
        Goal::new("memory of an idle consumer, MB", Wanted::AtMost(1.0), of_consumer),
        // None at all is wanted. A process's resident memory moves by a few megabytes from start to start, which is some bytes for each of 1,000,000 keys; whatever is
        // kept of a key takes more than that.
        Goal::new("memory of an idle key, bytes (none: below 4)", Wanted::AtMost(4.0), of_key.map(|mb| mb * 1e6)),
        Goal::new(
            "ready after a kill with everything in the log, ms",
            Wanted::AtMost(2_000.0),
            figures.of(recovery::BENCH, recovery::CASE, READY_MS),
        ),
    ]
}

fn of_latency(figures: &Figures<'_>) -> Vec<Goal> {
    let of_base = |figure: &str| {
        let base = figures.of(latency::BENCH, Isolation::Fresh.name(), BASE_US)?;
        Some(figures.of(latency::BENCH, Isolation::Fresh.name(), figure)? / base)
    };
    vec![
        Goal::new("p50 at 2,000 msg/s, as a multiple of the base", Wanted::AtMost(2.0), of_base(P50_US))
            .bound_by(|| bounds::of_latency(figures, P50_US)),
        Goal::new("p99 at 2,000 msg/s, as a multiple of the base", Wanted::AtMost(6.0), of_base(P99_US))
            .bound_by(|| bounds::of_latency(figures, P99_US)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figures::reading;

    #[test]
    fn a_goal_without_a_figure_is_missed() {
        assert!(!Goal::new("", Wanted::AtMost(1.0), None).met);
        assert!(Goal::new("", Wanted::AtMost(1.0), Some(1.0)).met);
        assert!(!Goal::new("", Wanted::AtLeast(1.0), Some(0.9)).met);
    }

    #[test]
    fn goals_find_their_figures() {
        let case = |name: &str, rate: f64| Case::measured(compare::BENCH, name, "", &[reading([(RATE, rate)])]);
        let goals = judge(&[case("floor", 100.0), case("uniform-fresh", 60.0)], false);
        let names: Vec<(&str, bool)> = goals.iter().map(|goal| (goal.name.as_str(), goal.met)).collect();
        assert_eq!(names, [("throughput of the floor (R0), isolation fresh", true)]);
        assert!(judge(&[], true).iter().all(|goal| !goal.met));
    }

    #[test]
    fn what_bounds_a_goal_is_said_only_where_it_is_missed() {
        let wanted =
            |figure| Goal::new("", Wanted::AtMost(1.0), Some(figure)).bound_by(|| Some("the disk".to_owned())).bound;
        assert_eq!((wanted(1.0), wanted(1.1)), (None, Some("the disk".to_owned())));
    }
}
