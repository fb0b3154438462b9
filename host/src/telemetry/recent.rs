//! How fast consumers are right now: a window of samples of what is counted, kept for `status`.
//!
//! A sample is taken each second. The rate is that of the last ten seconds, percentiles are those of the last minute; what happened before is in the metrics.
//! With each sample, lines of plug-ins that were dropped are told of.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use flume::Sender;
use parking_lot::Mutex;
use pelton_core::histogram::Histogram;
use pelton_core::{ConsumerStatus, Status};
use tokio::sync::oneshot;

use super::meters::{ConsumerMeters, Meters};
use crate::clock::Clock;
use crate::driver::Note;

/// Time between two samples.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Samples that the rate is worked out from.
const RATE_SAMPLES: usize = 11;
/// Every so many samples the distributions are kept.
const SPREAD_EVERY: u64 = 10;
/// How many of them are kept.
const SPREADS: usize = 6;

/// How fast a consumer is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Messages that got their outcome, a second.
    pub rate: f64,
    /// Half of the attempts took no longer than this, in microseconds; none: there were none.
    pub handler_p50_us: Option<u64>,
    /// All but one in a hundred took no longer.
    pub handler_p99_us: Option<u64>,
    /// Half of the messages were applied durably within this time since they were published, in milliseconds; none: there were none.
    pub end_to_end_p50_ms: Option<u64>,
    /// All but one in a hundred were.
    pub end_to_end_p99_ms: Option<u64>,
}

#[derive(Clone, Default)]
struct Spread {
    handler_us: Histogram,
    end_to_end_ms: Histogram,
}

#[derive(Default)]
struct Window {
    /// The clock's tick, and how many messages had got an outcome.
    outcomes: VecDeque<(u64, u64)>,
    earlier: VecDeque<Spread>,
    last: Spread,
    samples: u64,
}

impl Window {
    fn sample(&mut self, tick_ms: u64, status: &ConsumerStatus, meters: Option<&ConsumerMeters>) {
        let counters = status.counters;
        let outcomes = counters.applied + counters.duplicates + counters.stale + counters.dead_letters;
        if self.samples == 0 {
            // It was not there at the look before, so all of it happened since.
            let before_ms = tick_ms.saturating_sub(u64::try_from(SAMPLE_EVERY.as_millis()).unwrap_or(u64::MAX));
            self.outcomes.push_back((before_ms, 0));
        }
        push(&mut self.outcomes, (tick_ms, outcomes), RATE_SAMPLES);
        let mut handler_us = Histogram::default();
        for version in meters.into_iter().flat_map(ConsumerMeters::versions) {
            handler_us.add(&version.duration_us.read());
        }
        let spread = Spread { handler_us, end_to_end_ms: status.end_to_end_ms.clone() };
        if self.samples.is_multiple_of(SPREAD_EVERY) {
            // What came before the first look is part of what is told, as long as that look is kept.
            let earlier = if self.samples == 0 { Spread::default() } else { spread.clone() };
            push(&mut self.earlier, earlier, SPREADS);
        }
        self.samples += 1;
        self.last = spread;
    }

    #[expect(clippy::cast_precision_loss, reason = "counts and milliseconds of ten seconds are far below 2^53")]
    fn figures(&self) -> Figures {
        let rate = match (self.outcomes.front(), self.outcomes.back()) {
            (Some((from, before)), Some((to, after))) if to > from => {
                after.saturating_sub(*before) as f64 * 1e3 / (to - from) as f64
            }
            _ => 0.0,
        };
        let Some(earliest) = self.earlier.front() else { return Figures { rate, ..Figures::default() } };
        let handler_us = self.last.handler_us.since(&earliest.handler_us);
        let end_to_end_ms = self.last.end_to_end_ms.since(&earliest.end_to_end_ms);
        Figures {
            rate,
            handler_p50_us: handler_us.permille(500),
            handler_p99_us: handler_us.permille(990),
            end_to_end_p50_ms: end_to_end_ms.permille(500),
            end_to_end_p99_ms: end_to_end_ms.permille(990),
        }
    }
}

fn push<T>(queue: &mut VecDeque<T>, value: T, max: usize) {
    while queue.len() >= max {
        queue.pop_front();
    }
    queue.push_back(value);
}

/// The windows of all consumers.
#[derive(Default)]
pub struct Recent {
    windows: Mutex<BTreeMap<Box<str>, Window>>,
}

impl Recent {
    /// How fast every consumer is, by name, as of the last sample.
    #[must_use]
    pub fn figures(&self) -> BTreeMap<Box<str>, Figures> {
        self.windows.lock().iter().map(|(name, window)| (name.clone(), window.figures())).collect()
    }

    fn sample(&self, tick_ms: u64, status: &Status, meters: &Meters) {
        let meters = meters.consumers();
        let mut windows = self.windows.lock();
        windows.retain(|name, _| status.consumers.iter().any(|consumer| consumer.name == *name));
        for consumer in &status.consumers {
            let window = windows.entry(consumer.name.clone()).or_default();
            window.sample(tick_ms, consumer, meters.get(&consumer.name).map(Arc::as_ref));
        }
    }

    /// Takes samples until it is dropped, or until the driver has ended.
    pub async fn watch(self: Arc<Self>, notes: Sender<Note>, meters: Arc<Meters>, clock: Clock) {
        let mut due = tokio::time::interval(SAMPLE_EVERY);
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            let (answer, answered) = oneshot::channel();
            if notes.send(Note::Status(answer)).is_err() {
                return;
            }
            let Ok(snapshot) = answered.await else { return };
            self.sample(clock.now().tick_ms, &snapshot.status, &meters);
            tell_dropped_lines(&meters);
        }
    }
}

/// Says how many lines of plug-ins were dropped, for each consumer at most every ten seconds.
fn tell_dropped_lines(meters: &Meters) {
    for (consumer, meters) in meters.consumers() {
        if let Some(lines) = meters.output.untold() {
            tracing::warn!(%consumer, lines, "lines of the plug-in were dropped: it writes more than [limits] log_lines_per_second");
        }
    }
}

#[cfg(test)]
mod tests {
    use pelton_core::Core;
    use pelton_core::ids::Version;

    use super::super::meters::Called;
    use super::*;

    fn status(applied: u64, end_to_end_ms: &[u64]) -> Status {
        let mut core = Core::new(pelton_core::Settings::default(), pelton_core::Recovered::default());
        core.register("orders");
        let mut status = core.status();
        status.consumers[0].counters.applied = applied;
        end_to_end_ms.iter().for_each(|ms| status.consumers[0].end_to_end_ms.record(*ms));
        status
    }

    #[test]
    fn the_rate_is_that_of_the_last_ten_seconds() {
        let (recent, meters) = (Recent::default(), Meters::default());
        let rate = || recent.figures()["orders"].rate;
        recent.sample(1_000, &status(500, &[]), &meters);
        assert_eq!(rate(), 500.0, "a consumer that is new has done all of it since the look before");
        recent.sample(2_000, &status(800, &[]), &meters);
        assert_eq!(rate(), 400.0);
        (3..=12).for_each(|second| recent.sample(second * 1_000, &status(800, &[]), &meters));
        assert_eq!(rate(), 0.0, "what was more than ten seconds ago is no longer in it");
    }

    #[test]
    fn percentiles_are_those_of_the_last_minute() {
        let (recent, meters) = (Recent::default(), Meters::default());
        let version = meters.consumer("orders").version(Version([1; 32]));
        (0..100).for_each(|_| version.attempt(Called::Ok, 1_000));
        recent.sample(0, &status(100, &[50; 100]), &meters);
        let figures = recent.figures()["orders"];
        assert!(figures.handler_p99_us.is_some_and(|p99| (900..=1_000).contains(&p99)), "{figures:?}");
        assert!(figures.end_to_end_p50_ms.is_some_and(|p50| (45..=50).contains(&p50)), "{figures:?}");
        (1..70).for_each(|second| recent.sample(second * 1_000, &status(100, &[50; 100]), &meters));
        let figures = recent.figures()["orders"];
        assert_eq!(figures, Figures::default(), "a minute without messages");
    }

    #[test]
    fn consumers_that_are_gone_are_forgotten() {
        let (recent, meters) = (Recent::default(), Meters::default());
        recent.sample(0, &status(1, &[]), &meters);
        let nobody = Core::new(pelton_core::Settings::default(), pelton_core::Recovered::default()).status();
        recent.sample(1_000, &nobody, &meters);
        assert!(recent.figures().is_empty());
    }
}
