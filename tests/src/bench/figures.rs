//! What a benchmark found: cases, each with its figures by name, and each figure with its median and spread.
//!
//! A name ends in its unit. Names are constants here, so that the goals and the tables find what the benches measure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Messages handled in a second, from the first event stored to the last.
pub(crate) const RATE: &str = "messages_per_second";
/// CPU time of the program that handles the messages, by message: its start is in it.
pub(crate) const CPU_US: &str = "cpu_us_per_message";
/// CPU time of nats-server by message.
pub(crate) const SERVER_CPU_US: &str = "server_cpu_us_per_message";
/// CPU time of the database's processes by message.
pub(crate) const DATABASE_CPU_US: &str = "database_cpu_us_per_message";
/// What the database's processes have the kernel write to disk, by message.
pub(crate) const DATABASE_WRITTEN_BYTES: &str = "database_written_bytes_per_message";
/// The most memory that was ever resident.
pub(crate) const PEAK_MB: &str = "peak_resident_mb";
/// What the program has the kernel write to disk, by message.
pub(crate) const WRITTEN_BYTES: &str = "written_bytes_per_message";
/// From the publish to the event: half of all took no longer.
pub(crate) const P50_US: &str = "latency_p50_us";
/// From the publish to the event: 99 of 100 took no longer.
pub(crate) const P99_US: &str = "latency_p99_us";
/// From the publish to the event: 999 of 1,000 took no longer.
pub(crate) const P999_US: &str = "latency_p999_us";
/// From the start of the process until it is ready.
pub(crate) const READY_MS: &str = "ready_ms";
/// Resident memory.
pub(crate) const RESIDENT_MB: &str = "resident_mb";

/// One measurement's figures by name.
pub(crate) type Reading = BTreeMap<String, f64>;

/// Names a few figures.
pub(crate) fn reading<const N: usize>(figures: [(&str, f64); N]) -> Reading {
    figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// One figure over all runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The middle one; of an even number the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// All, in the order in which they were measured.
    pub runs: Vec<f64>,
}

/// A figure as it is kept: with four places, so that it is the same number again when it is read from JSON.
pub(crate) fn kept(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

impl Figure {
    /// Sums up runs; none if there are none.
    pub(crate) fn of(runs: Vec<f64>) -> Option<Self> {
        let runs: Vec<f64> = runs.into_iter().map(kept).collect();
        let mut sorted = runs.clone();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let upper = *sorted.get(sorted.len() / 2)?;
        let lower = *sorted.get((sorted.len() - 1) / 2)?;
        Some(Self { median: kept(f64::midpoint(lower, upper)), min, max, runs })
    }
}

/// One thing that was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// The bench that it belongs to.
    pub bench: String,
    /// Its name within the bench.
    pub name: String,
    /// What it is, in a line.
    pub about: String,
    /// The figures by name.
    pub figures: BTreeMap<String, Figure>,
    /// Why it could not be measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_available: Option<String>,
}

impl Case {
    /// A case that was measured.
    pub(crate) fn measured(bench: &str, name: &str, about: &str, readings: &[Reading]) -> Self {
        let names: Vec<&String> = readings.first().into_iter().flat_map(|reading| reading.keys()).collect();
        let figure = |name: &String| {
            let runs = readings.iter().filter_map(|reading| reading.get(name).copied()).collect();
            Figure::of(runs).map(|figure| (name.clone(), figure))
        };
        Self {
            bench: bench.to_owned(),
            name: name.to_owned(),
            about: about.to_owned(),
            figures: names.into_iter().filter_map(figure).collect(),
            not_available: None,
        }
    }

    /// A case that could not be measured.
    pub(crate) fn missing(bench: &str, name: &str, about: &str, reason: &str) -> Self {
        Self { not_available: Some(reason.to_owned()), ..Self::measured(bench, name, about, &[]) }
    }

    /// The median of a figure.
    pub(crate) fn median(&self, figure: &str) -> Option<f64> {
        self.figures.get(figure).map(|figure| figure.median)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_the_median_with_its_spread() {
        let odd = Figure::of(vec![5.0, 1.0, 3.0]).unwrap();
        assert_eq!((odd.median, odd.min, odd.max), (3.0, 1.0, 5.0));
        assert_eq!(Figure::of(vec![4.0, 1.0]).unwrap().median, 2.5);
        assert_eq!(Figure::of(Vec::new()), None);
        assert_eq!(Figure::of(vec![1.0 / 3.0]).unwrap().median, 0.3333);
    }

    #[test]
    fn a_case_sums_up_each_figure_of_its_runs() {
        let readings = [reading([(RATE, 10.0), (CPU_US, 2.0)]), reading([(RATE, 30.0), (CPU_US, 4.0)])];
        let case = Case::measured("work", "a", "", &readings);
        assert_eq!((case.median(RATE), case.median(CPU_US), case.median(P50_US)), (Some(20.0), Some(3.0), None));
    }
}
