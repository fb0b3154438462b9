//! Times of attempts whose traces are recorded, each bucket with the trace that fell into it last. Only such attempts pay for it.

use std::fmt;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::exemplar::HistogramWithExemplars;

use super::family::Scale;

/// The distribution of traced attempts.
#[derive(Debug)]
pub struct Traced(HistogramWithExemplars<Vec<(&'static str, String)>>);

impl Default for Traced {
    fn default() -> Self {
        Self(HistogramWithExemplars::new(Scale::Micros.seconds().into_iter()))
    }
}

impl Traced {
    /// An attempt of this trace took so many microseconds.
    #[expect(clippy::cast_precision_loss, reason = "2^53 microseconds are centuries")]
    pub fn observe(&self, took_us: u64, trace: u128) {
        self.0.observe(took_us as f64 / 1e6, Some(vec![("trace_id", format!("{trace:032x}"))]), None);
    }

    pub(super) fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }
}
