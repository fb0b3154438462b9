//! One metric of the table as it is written into a scrape: names of labels, unit and kind come from the table, values from whoever fills it.

use std::fmt;

use pelton_core::histogram::{BOUNDS, Histogram};
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;

use super::exemplars::Traced;
use super::table::Metric;

/// What a histogram counts in, and which of its bounds are told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scale {
    /// Microseconds, told in seconds.
    Micros,
    /// Milliseconds, told in seconds.
    Millis,
    /// Things.
    Things,
}

impl Scale {
    fn one(self) -> f64 {
        match self {
            Self::Micros => 1e6,
            Self::Millis => 1e3,
            Self::Things => 1.0,
        }
    }

    /// The bounds that are told: few, so that a scrape stays small, and of those that histograms have, so that counts are exact.
    fn bounds(self) -> &'static [u64] {
        match self {
            Self::Micros => &[
                25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
                1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000, 50_000_000,
            ],
            Self::Millis => &[
                1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000,
                1_000_000, 10_000_000,
            ],
            Self::Things => &[1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000],
        }
    }

    /// The same bounds in seconds.
    #[expect(clippy::cast_precision_loss, reason = "bounds are far below 2^53")]
    pub(super) fn seconds(self) -> Vec<f64> {
        self.bounds().iter().map(|bound| *bound as f64 / self.one()).collect()
    }

    /// Counts between these bounds, the last one without an upper bound.
    #[expect(clippy::cast_precision_loss, reason = "bounds are far below 2^53")]
    fn buckets(self, histogram: &Histogram) -> Vec<(f64, u64)> {
        let mut counts = BOUNDS.iter().zip(histogram.counts()).peekable();
        let mut buckets: Vec<(f64, u64)> = Vec::with_capacity(self.bounds().len() + 1);
        for bound in self.bounds() {
            let mut between = 0;
            while let Some((_, count)) = counts.next_if(|(upper, _)| *upper <= bound) {
                between += count;
            }
            buckets.push((*bound as f64 / self.one(), between));
        }
        let told: u64 = buckets.iter().map(|(_, count)| count).sum();
        buckets.push((f64::INFINITY, histogram.count().saturating_sub(told)));
        buckets
    }
}

/// A metric that is being written.
pub(super) struct Family<'a> {
    metric: &'static Metric,
    encoder: MetricEncoder<'a>,
}

/// Writes a metric: what it is, then what `fill` says of it.
pub(super) fn family(
    encoder: &mut DescriptorEncoder<'_>,
    metric: &'static Metric,
    fill: impl FnOnce(&mut Family<'_>) -> fmt::Result,
) -> fmt::Result {
    let unit = metric.base.map(super::table::Base::unit);
    let encoder = encoder.encode_descriptor(metric.stem, metric.help, unit.as_ref(), metric.kind)?;
    fill(&mut Family { metric, encoder })
}

impl Family<'_> {
    fn with(&mut self, values: &[&str], write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result) -> fmt::Result {
        let labels: Vec<(&str, &str)> = self.metric.labels.iter().copied().zip(values.iter().copied()).collect();
        if labels.is_empty() {
            return write(&mut self.encoder);
        }
        write(&mut self.encoder.encode_family(&labels)?)
    }

    /// A counter's value.
    pub(super) fn counter(&mut self, values: &[&str], value: u64) -> fmt::Result {
        self.with(values, |encoder| encoder.encode_counter(&value, None::<&Exemplar<NoLabelSet, u64>>))
    }

    /// A counter's value in microseconds.
    #[expect(clippy::cast_precision_loss, reason = "2^53 microseconds are centuries")]
    pub(super) fn counter_seconds(&mut self, values: &[&str], micros: u64) -> fmt::Result {
        let seconds = micros as f64 / 1e6;
        self.with(values, |encoder| encoder.encode_counter(&seconds, None::<&Exemplar<NoLabelSet, f64>>))
    }

    /// A gauge's value.
    pub(super) fn gauge(&mut self, values: &[&str], value: u64) -> fmt::Result {
        self.with(values, |encoder| encoder.encode_gauge(&value))
    }

    /// A gauge's or a counter's value.
    pub(super) fn number(&mut self, values: &[&str], value: u64) -> fmt::Result {
        if self.metric.kind == MetricType::Counter { self.counter(values, value) } else { self.gauge(values, value) }
    }

    /// A gauge's value in milliseconds.
    #[expect(clippy::cast_precision_loss, reason = "2^53 milliseconds are ages")]
    pub(super) fn seconds(&mut self, values: &[&str], millis: u64) -> fmt::Result {
        let seconds = millis as f64 / 1e3;
        self.with(values, |encoder| encoder.encode_gauge(&seconds))
    }

    /// Facts.
    pub(super) fn info(&mut self, values: &[&str]) -> fmt::Result {
        let labels: Vec<(&str, &str)> = self.metric.labels.iter().copied().zip(values.iter().copied()).collect();
        self.encoder.encode_info(&labels)
    }

    /// A histogram with exemplars.
    pub(super) fn traced(&mut self, values: &[&str], traced: &Traced) -> fmt::Result {
        let labels: Vec<(&str, &str)> = self.metric.labels.iter().copied().zip(values.iter().copied()).collect();
        traced.encode(self.encoder.encode_family(&labels)?)
    }

    /// A histogram.
    #[expect(clippy::cast_precision_loss, reason = "what is lost of a sum above 2^53 is far below its own precision")]
    pub(super) fn histogram(&mut self, values: &[&str], histogram: &Histogram, scale: Scale) -> fmt::Result {
        let buckets = scale.buckets(histogram);
        let sum = histogram.sum() as f64 / scale.one();
        self.with(values, |encoder| encoder.encode_histogram::<NoLabelSet>(sum, histogram.count(), &buckets, None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_that_are_told_are_bounds_of_histograms() {
        for scale in [Scale::Micros, Scale::Millis, Scale::Things] {
            for bound in scale.bounds() {
                assert!(BOUNDS.contains(bound), "{scale:?}: {bound}");
            }
        }
    }

    #[test]
    fn every_value_is_told_in_the_bucket_of_its_bound() {
        let mut histogram = Histogram::default();
        [0, 1, 2, 3, 10, 11, 9_000, 20_000].into_iter().for_each(|value| histogram.record(value));
        let told = Scale::Things.buckets(&histogram);
        let told: Vec<_> = told.into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(told, [(1.0, 2), (2.0, 1), (5.0, 1), (10.0, 1), (25.0, 1), (10_000.0, 1), (f64::INFINITY, 1)]);
    }
}
