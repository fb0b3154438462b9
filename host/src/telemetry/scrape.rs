//! A scrape: what the core's books, the meters and the rest of the host say at one moment, as text that Prometheus reads.
//!
//! What only the driver knows is left out if it does not answer: the other numbers are most wanted then.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use pelton_core::batch::HoldBy;
use pelton_core::{ConsumerStatus, Status};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::registry::Registry;

use super::family::{Family, Scale, family};
use super::meters::{Called, ConsumerMeters, Count, Meters, Swap};
use super::table;
use crate::board::Entry;

/// What consumers can be doing; one that never got so far is in none of these.
const PHASES: [&str; 7] = ["running", "positioning", "rebinding", "restarting", "stopping", "stopped", "halted"];

/// The forms in which a scrape can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The older text form.
    Text,
}

impl Form {
    /// The form that suits an `Accept` header: OpenMetrics, unless only the other one is asked for.
    #[must_use]
    pub fn accepted(accept: Option<&str>) -> Self {
        let accept = accept.unwrap_or_default().to_ascii_lowercase();
        let takes =
            |kind: &str| accept.split(',').any(|range| range.split(';').next().unwrap_or_default().trim() == kind);
        if takes("text/plain") && !takes("application/openmetrics-text") { Self::Text } else { Self::OpenMetrics }
    }

    /// Its content type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => prometheus_text::CONTENT_TYPE,
        }
    }
}

/// Everything that a scrape tells.
#[derive(Debug)]
pub struct Scrape {
    /// The wall clock's time: milliseconds since 1970-01-01 UTC.
    pub wall_ms: u64,
    /// Time since the host was started, in milliseconds.
    pub uptime_ms: u64,
    /// For how long the driver was not seen, in milliseconds.
    pub driver_age_ms: u64,
    /// What the threads counted.
    pub meters: Arc<Meters>,
    /// The core's books; none: the driver did not answer.
    pub books: Option<Status>,
    /// What deployment and subscriptions say of each consumer.
    pub entries: BTreeMap<Box<str>, Entry>,
    /// What is executed and not folded, in bytes.
    pub overlay_bytes: usize,
    /// The store's files and their sizes, in bytes.
    pub files: Vec<(&'static str, u64)>,
    /// The connections, and whether they are there.
    pub connections: [(&'static str, bool); 2],
}

impl Scrape {
    /// As text.
    ///
    /// # Errors
    /// Not with metrics of the table.
    pub fn encode(self, form: Form) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Told(self)));
        let mut told = String::new();
        match form {
            Form::OpenMetrics => text::encode(&mut told, &registry)?,
            Form::Text => prometheus_text::encode(&mut told, &registry)?,
        }
        Ok(told)
    }

    fn statuses(&self) -> impl Iterator<Item = (&str, &ConsumerStatus)> {
        self.books.iter().flat_map(|books| &books.consumers).map(|status| (status.name.as_ref(), status))
    }
}

/// A scrape as the library takes it.
#[derive(Debug)]
struct Told(Scrape);

impl Collector for Told {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self(scrape) = self;
        let consumers = scrape.meters.consumers();
        host(scrape, &mut encoder)?;
        messages(scrape, &consumers, &mut encoder)?;
        if scrape.books.is_some() {
            hands(scrape, &mut encoder)?;
            outbox(scrape, &mut encoder)?;
            states(scrape, &mut encoder)?;
        }
        family(&mut encoder, &table::CONSUMER_VERSION, |told| {
            let mut serving = scrape.entries.iter().filter_map(|(name, entry)| Some((name, entry.version?.short())));
            serving.try_for_each(|(name, version)| told.info(&[name, &version]))
        })?;
        plugins(&consumers, &mut encoder)?;
        store(scrape, &mut encoder)?;
        work(scrape, &mut encoder)
    }
}

fn host(scrape: &Scrape, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    family(encoder, &table::BUILD, |told| told.info(&[env!("CARGO_PKG_VERSION")]))?;
    family(encoder, &table::UPTIME, |told| told.seconds(&[], scrape.uptime_ms))?;
    family(encoder, &table::DRIVER_AGE, |told| told.seconds(&[], scrape.driver_age_ms))
}

fn messages(
    scrape: &Scrape,
    meters: &BTreeMap<Box<str>, Arc<ConsumerMeters>>,
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let known = scrape.books.is_some();
    if known {
        family(encoder, &table::MESSAGES, |told| {
            scrape.statuses().try_for_each(|(name, status)| {
                let counters = status.counters;
                told.counter(&[name, "applied"], counters.applied)?;
                told.counter(&[name, "duplicate"], counters.duplicates)?;
                told.counter(&[name, "stale"], counters.stale)?;
                told.counter(&[name, "dead_letter"], counters.dead_letters)?;
                told.counter(&[name, "parked"], counters.parked)
            })
        })?;
    }
    family(encoder, &table::ATTEMPTS, |told| {
        meters.iter().try_for_each(|(name, meters)| {
            meters.versions().iter().try_for_each(|meters| {
                let version = meters.version.short();
                let tell = |called: Called| told.counter(&[name, &version, called.word()], meters.called(called));
                Called::ALL.into_iter().try_for_each(tell)
            })
        })
    })?;
    if known {
        each(scrape, encoder, &table::RETRIES, |status| status.counters.retries)?;
        each(scrape, encoder, &table::REDELIVERED, |status| status.counters.redelivered)?;
    }
    family(encoder, &table::HANDLER_DURATION, |told| {
        meters.iter().try_for_each(|(name, meters)| {
            let mut versions = meters.versions().into_iter();
            versions.try_for_each(|meters| {
                told.histogram(&[name, &meters.version.short()], &meters.duration_us.read(), Scale::Micros)
            })
        })
    })?;
    family(encoder, &table::TRACED_HANDLER_DURATION, |told| {
        meters.iter().try_for_each(|(name, meters)| told.traced(&[name], &meters.traced))
    })?;
    family(encoder, &table::QUEUE_WAIT, |told| {
        let mut all = meters.iter();
        all.try_for_each(|(name, meters)| told.histogram(&[name], &meters.queue_wait_us.read(), Scale::Micros))
    })?;
    if known {
        family(encoder, &table::END_TO_END, |told| {
            let mut all = scrape.statuses();
            all.try_for_each(|(name, status)| told.histogram(&[name], &status.end_to_end_ms, Scale::Millis))
        })?;
    }
    Ok(())
}

/// What consumers have in hand.
fn hands(scrape: &Scrape, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    each(scrape, encoder, &table::IN_FLIGHT, |status| status.held as u64)?;
    each(scrape, encoder, &table::IN_FLIGHT_BYTES, |status| status.held_bytes as u64)?;
    each(scrape, encoder, &table::RUNNING, |status| status.running as u64)?;
    each(scrape, encoder, &table::LANES, |status| status.lanes as u64)?;
    each(scrape, encoder, &table::LANES_RETRYING, |status| status.waiting_retry as u64)?;
    let stream = |status: &ConsumerStatus| status.stream.as_ref().map(|stream| stream.name.clone());
    family(encoder, &table::STREAM_LAG, |told| {
        scrape.statuses().filter_map(|(name, status)| Some((name, status, stream(status)?))).try_for_each(
            |(name, status, stream)| {
                let pending = scrape.entries.get(name).map_or(0, |entry| entry.pending);
                told.gauge(&[name, &stream], pending.saturating_add(status.held as u64))
            },
        )
    })?;
    family(encoder, &table::STREAM_FLOOR, |told| {
        let mut all = scrape.statuses().filter_map(|(name, status)| Some((name, status, stream(status)?)));
        all.try_for_each(|(name, status, stream)| told.gauge(&[name, &stream], status.floor))
    })?;
    each(scrape, encoder, &table::PARKED, |status| status.parked_rows)?;
    each(scrape, encoder, &table::PARKED_KEYS, |status| status.parked_lanes as u64)?;
    each(scrape, encoder, &table::DEAD_LETTERS, |status| status.counters.dead_letters)
}

fn outbox(scrape: &Scrape, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    each(scrape, encoder, &table::OUTBOX_PENDING, |status| status.outbox_pending as u64)?;
    family(encoder, &table::OUTBOX_OLDEST_AGE, |told| {
        let mut all = scrape.statuses();
        let age_ms = |since_ms| scrape.wall_ms.saturating_sub(since_ms);
        all.try_for_each(|(name, status)| told.seconds(&[name], status.outbox_oldest_ms.map_or(0, age_ms)))
    })?;
    each(scrape, encoder, &table::PUBLISHED, |status| status.counters.published)
}

fn states(scrape: &Scrape, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    family(encoder, &table::CONSUMER_STATE, |told| {
        scrape.statuses().try_for_each(|(name, status)| {
            PHASES.iter().try_for_each(|phase| told.gauge(&[name, phase], u64::from(status.phase == *phase)))
        })
    })?;
    family(encoder, &table::CONSUMER_PAUSED, |told| {
        scrape.statuses().try_for_each(|(name, status)| {
            [("operator", HoldBy::Operator), ("breaker", HoldBy::Breaker)].iter().try_for_each(|(word, by)| {
                told.gauge(&[name, word], u64::from(status.holds.iter().any(|(holder, _)| holder == by)))
            })
        })
    })
}

fn plugins(meters: &BTreeMap<Box<str>, Arc<ConsumerMeters>>, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    family(encoder, &table::LOG_LINES, |told| {
        meters.iter().try_for_each(|(name, meters)| {
            told.counter(&[name, "written"], meters.output.written())?;
            told.counter(&[name, "dropped"], meters.output.dropped())
        })
    })?;
    family(encoder, &table::INSTANCE_MEMORY_PEAK, |told| {
        meters.iter().try_for_each(|(name, meters)| told.gauge(&[name], meters.output.memory_peak_bytes()))
    })
}

fn store(scrape: &Scrape, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let meters = &scrape.meters;
    family(encoder, &table::COMMIT_DURATION, |told| told.histogram(&[], &meters.commit_us.read(), Scale::Micros))?;
    family(encoder, &table::COMMIT_BATCH_SIZE, |told| {
        told.histogram(&[], &meters.commit_outcomes.read(), Scale::Things)
    })?;
    family(encoder, &table::CHECKPOINT_DURATION, |told| {
        told.histogram(&[], &meters.checkpoint_us.read(), Scale::Micros)
    })?;
    family(encoder, &table::OVERLAY, |told| told.gauge(&[], scrape.overlay_bytes as u64))?;
    family(encoder, &table::STORE, |told| scrape.files.iter().try_for_each(|(name, bytes)| told.gauge(&[name], *bytes)))
}

fn work(scrape: &Scrape, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let meters = &scrape.meters;
    if let Some(books) = &scrape.books {
        let states =
            [("in_flight", books.relay_in_flight), ("queued", books.relay_queued), ("waiting", books.relay_waiting)];
        family(encoder, &table::RELAY, |told| {
            states.iter().try_for_each(|(state, events)| told.gauge(&[state], *events as u64))
        })?;
    }
    family(encoder, &table::EXECUTORS, |told| told.gauge(&[], Count::get(&meters.executors)))?;
    family(encoder, &table::EXECUTOR_BUSY, |told| told.counter_seconds(&[], meters.busy_us.get()))?;
    family(encoder, &table::NATS_CONNECTED, |told| {
        scrape.connections.iter().try_for_each(|(name, there)| told.gauge(&[name], u64::from(*there)))
    })?;
    family(encoder, &table::COMPILE_DURATION, |told| told.histogram(&[], &meters.compile_us.read(), Scale::Micros))?;
    family(encoder, &table::SWAP, |told| {
        Swap::ALL.into_iter().try_for_each(|result| told.counter(&[result.word()], meters.swaps(result)))
    })?;
    family(encoder, &table::SPANS, |told| {
        let spans = &meters.spans;
        told.counter(&["exported"], spans.exported.get())?;
        told.counter(&["failed"], spans.failed.get())?;
        told.counter(&["dropped"], spans.dropped.get())
    })
}

/// A number of each consumer.
fn each(
    scrape: &Scrape,
    encoder: &mut DescriptorEncoder<'_>,
    metric: &'static table::Metric,
    number: impl Fn(&ConsumerStatus) -> u64,
) -> fmt::Result {
    family(encoder, metric, |told: &mut Family<'_>| {
        scrape.statuses().try_for_each(|(name, status)| told.number(&[name], number(status)))
    })
}

#[cfg(test)]
mod tests;
