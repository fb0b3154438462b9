//! Traces: one span for each attempt, for its commit and for each of its events, so that one trace goes from the publisher of a message through every consumer
//! and what it emitted.
//!
//! What always holds here:
//! - Off, there is no [`Traces`] at all, and events carry the trace of their message as it came. On, only messages of recorded traces cost more than ids.
//! - The message is the parent of the attempt's span, and a trace that was begun by a publisher is recorded if the publisher records it. A message without a
//!   trace begins one whose id follows from its place in the stream, so that all consumers and all attempts of it are in one trace.
//! - Spans leave through a bounded queue. When it is full, or nobody takes them, they are dropped and counted: nothing ever waits for them.

mod endpoint;
mod export;
mod pending;
mod spans;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry_sdk::trace::SpanData;
use pelton_core::batch::{Batch, Outcome};
use pelton_core::effects::Event;
use pelton_core::ids::{ConsumerId, RowId, Version};
use pelton_core::message::{Failure, Message};
use pelton_core::trace::SpanIds;
use pelton_core::transaction::TRACEPARENT;
use tokio::sync::mpsc;
use xxhash_rust::xxh3::Xxh3;

pub use endpoint::{Endpoint, EndpointError, check};
pub use export::Exporting;

use self::pending::Pending;
use super::meters::Spans;
use crate::deployed::Deployed;

/// Spans that wait to be sent.
const QUEUE_SPANS: usize = 8_192;

/// Where spans are recorded.
pub struct Traces {
    /// Traces whose id (its lower half) is below this are recorded, if nobody decided before.
    sample_below: u128,
    seed: u64,
    spans: mpsc::Sender<SpanData>,
    counts: Arc<Spans>,
    /// Attempts that wait for their commit.
    applied: Pending<(ConsumerId, u64), Applied>,
    /// Events that wait for their acknowledgement.
    leaving: Pending<RowId, Leaving>,
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traces").field("counts", &self.counts).finish_non_exhaustive()
    }
}

/// An attempt that is being made.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// Its span.
    pub ids: SpanIds,
    /// The span of the message's publisher, if it is known.
    parent: Option<u64>,
    started: SystemTime,
}

/// How an attempt ended.
pub struct AttemptEnd<'a> {
    /// Whose message it was.
    pub deployed: &'a Deployed,
    /// The message.
    pub message: &'a Message,
    /// The version that handled it.
    pub version: Version,
    /// Its number, from 1.
    pub number: u32,
    /// How it failed; none: the handler returned ok.
    pub failure: Option<&'a Failure>,
    /// How long it took, in microseconds.
    pub took_us: u64,
}

/// An attempt that waits for its commit.
struct Applied {
    ids: SpanIds,
    handled: SystemTime,
    consumer: Box<str>,
    pattern: Box<str>,
}

/// An event that was handed to JetStream.
struct Leaving {
    ids: SpanIds,
    cause: u64,
    event: Arc<Event>,
    consumer: Box<str>,
    pattern: Option<Box<str>>,
    handed_over: SystemTime,
}

impl Traces {
    /// Begins to record, and the task that sends what is recorded.
    ///
    /// # Errors
    /// If the endpoint can't be used.
    pub fn start(
        endpoint: &Endpoint,
        sample_ratio: f64,
        seed: u64,
        counts: Arc<Spans>,
    ) -> Result<(Arc<Self>, Exporting), EndpointError> {
        let (spans, queue) = mpsc::channel(QUEUE_SPANS);
        let exporting = Exporting::start(endpoint, queue, Arc::clone(&counts))?;
        Ok((Arc::new(Self::new(sample_ratio, seed, spans, counts)), exporting))
    }

    fn new(sample_ratio: f64, seed: u64, spans: mpsc::Sender<SpanData>, counts: Arc<Spans>) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a part of 2^64, from 0 to all of it"
        )]
        let sample_below = (sample_ratio.clamp(0.0, 1.0) * 18_446_744_073_709_551_616.0) as u128;
        Self { sample_below, seed, spans, counts, applied: Pending::default(), leaving: Pending::default() }
    }

    /// The span of an attempt that begins now. Its id follows from the attempt and its time, which the plug-in is given, too.
    #[must_use]
    pub fn attempt(&self, consumer: ConsumerId, message: &Message, number: u32, now_ms: u64) -> Attempt {
        let parent = message.header(TRACEPARENT).and_then(SpanIds::parse);
        let mut hasher = Xxh3::with_seed(self.seed);
        hasher.update(message.stream.name.as_bytes());
        hasher.update(&message.stream.created_ns.to_be_bytes());
        hasher.update(&message.sequence.to_be_bytes());
        let (trace, sampled) = match parent {
            Some(parent) => (parent.trace, parent.sampled),
            None => {
                let trace = hasher.digest128().max(1);
                (trace, trace & u128::from(u64::MAX) < self.sample_below)
            }
        };
        hasher.update(&consumer.0.to_be_bytes());
        hasher.update(&number.to_be_bytes());
        hasher.update(&now_ms.to_be_bytes());
        let ids = SpanIds { trace, span: hasher.digest().max(1), sampled };
        Attempt { ids, parent: parent.map(|parent| parent.span), started: SystemTime::now() }
    }

    /// The attempt has ended. If the handler returned ok, the span of its commit follows.
    pub fn attempted(&self, attempt: &Attempt, end: &AttemptEnd<'_>) {
        if !attempt.ids.sampled {
            return;
        }
        end.deployed.meters.traced.observe(end.took_us, attempt.ids.trace);
        let handled = SystemTime::now();
        let pattern = end.deployed.ingest.pattern_of(&end.message.subject);
        self.send(spans::process(attempt, end, pattern, handled));
        if end.failure.is_none() {
            let (consumer, pattern) = (end.deployed.name.clone(), pattern.into());
            let applied = Applied { ids: attempt.ids, handled, consumer, pattern };
            self.dropped(self.applied.insert((end.deployed.consumer, end.message.sequence), applied));
        }
    }

    /// A batch is durable.
    pub fn committed(&self, batch: &Batch) {
        if self.applied.is_empty() {
            return;
        }
        let durable = SystemTime::now();
        for settlement in &batch.settlements {
            if matches!(settlement.outcome, Outcome::Applied { .. })
                && let Some(applied) = self.applied.remove(&(settlement.consumer, settlement.sequence))
            {
                self.send(spans::commit(&applied, batch.settlements.len(), durable));
            }
        }
    }

    /// An event is handed to JetStream, for the first time or again. `whose` finds who emitted it, by name; after a start nobody may be there yet, and its span
    /// has no pattern in its name then.
    pub fn leaving<'a>(&self, row: RowId, event: &Arc<Event>, whose: impl FnOnce(&str) -> Option<&'a Deployed>) {
        let header = event.headers.iter().find(|(name, _)| name.as_ref() == TRACEPARENT);
        let Some(ids) = header.and_then(|(_, value)| SpanIds::parse(value)).filter(|ids| ids.sampled) else { return };
        // Copies of dead letters carry the trace of their message and have no number: they are no span of an attempt.
        let consumer = event.id.split(':').next().unwrap_or_default();
        // What a rewind brings again has that behind its number.
        let number = event.id.rsplit(':').find(|part| !part.starts_with("again-")).map(str::parse);
        let Some(Ok(number)) = number else { return };
        let pattern = whose(consumer).and_then(|deployed| deployed.emit_pattern_of(&event.subject));
        let leaving = Leaving {
            ids,
            cause: ids.cause(number).span,
            event: Arc::clone(event),
            consumer: consumer.into(),
            pattern,
            handed_over: SystemTime::now(),
        };
        self.dropped(self.leaving.insert_first(row, leaving));
    }

    /// JetStream has these events.
    pub fn acknowledged(&self, rows: &[RowId]) {
        if self.leaving.is_empty() {
            return;
        }
        let now = SystemTime::now();
        for leaving in rows.iter().filter_map(|row| self.leaving.remove(row)) {
            self.send(spans::send(&leaving, now));
        }
    }

    fn send(&self, span: SpanData) {
        self.dropped(usize::from(self.spans.try_send(span).is_err()));
    }

    fn dropped(&self, spans: usize) {
        if spans > 0 {
            self.counts.dropped.add(spans as u64);
        }
    }
}

#[cfg(test)]
mod tests;
