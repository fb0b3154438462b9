//! The task that sends spans to the collector, in batches. Whatever the collector does, nobody waits for it but this task.

use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry_otlp::{Protocol, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::endpoint::{Endpoint, EndpointError};
use crate::telemetry::meters::Spans;

/// Spans of one request.
const BATCH_SPANS: usize = 512;
/// A span waits no longer than this for others to come.
const LINGER: Duration = Duration::from_secs(1);
/// Time that a collector has for a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Time that what is left may take when the host stops.
const LAST_TIMEOUT: Duration = Duration::from_secs(1);
/// Failures are told of this often at most.
const TELL_EVERY: Duration = Duration::from_mins(1);

/// The running task.
pub struct Exporting {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Exporting {
    /// Begins to send what comes out of `queue`.
    pub(super) fn start(
        endpoint: &Endpoint,
        queue: mpsc::Receiver<SpanData>,
        counts: Arc<Spans>,
    ) -> Result<Self, EndpointError> {
        // The HTTP client takes the process's provider, and breaks without one. Another part of the host may have chosen it already.
        _ = rustls::crypto::ring::default_provider().install_default();
        let mut exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint.0.clone())
            .with_timeout(REQUEST_TIMEOUT)
            .build()
            .map_err(|error| EndpointError::Exporter { url: endpoint.0.clone(), reason: error.to_string() })?;
        exporter.set_resource(&resource());
        let stop = CancellationToken::new();
        let sending = Sending { exporter, url: endpoint.0.clone(), counts, told: None, untold: 0 };
        let task = tokio::spawn(sending.run(queue, stop.clone()));
        tracing::info!(endpoint = endpoint.0, "sending traces");
        Ok(Self { task, stop })
    }

    /// Sends what is left, for a moment.
    pub async fn close(self) {
        self.stop.cancel();
        // A task that broke has nothing left to send.
        _ = self.task.await;
    }
}

/// Who sends: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` win over what the host says of itself.
fn resource() -> Resource {
    let names_itself = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let attributes = std::env::var("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let mut builder = Resource::builder();
    if !names_itself("OTEL_SERVICE_NAME") && !attributes.contains("service.name=") {
        builder = builder.with_service_name("pelton");
    }
    if !attributes.contains("service.version=") {
        builder = builder.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    }
    builder.build()
}

struct Sending {
    exporter: opentelemetry_otlp::SpanExporter,
    url: String,
    counts: Arc<Spans>,
    told: Option<Instant>,
    /// Spans lost since they were told of.
    untold: u64,
}

impl Sending {
    async fn run(mut self, mut queue: mpsc::Receiver<SpanData>, stop: CancellationToken) {
        while let Some(batch) = next_batch(&mut queue, &stop).await {
            if stop.is_cancelled() {
                // One more request for all that is left, and no more than a moment for it.
                let last = self.last(batch, &mut queue);
                _ = last.await;
                return;
            }
            // A stop does not wait for a collector that does not answer.
            let spans = batch.len() as u64;
            let sent = stop.run_until_cancelled(self.exporter.export(batch)).await;
            match sent {
                Some(outcome) => self.outcome(spans, outcome.err().map(|error| error.to_string())),
                None => self.outcome(spans, Some("the host stopped".to_owned())),
            }
        }
    }

    async fn last(&mut self, mut batch: Vec<SpanData>, queue: &mut mpsc::Receiver<SpanData>) {
        while let Ok(span) = queue.try_recv() {
            batch.push(span);
        }
        let spans = batch.len() as u64;
        if spans == 0 {
            return;
        }
        let sent = tokio::time::timeout(LAST_TIMEOUT, self.exporter.export(batch)).await;
        let error = match sent {
            Ok(outcome) => outcome.err().map(|error| error.to_string()),
            Err(_) => Some("the collector did not answer in time".to_owned()),
        };
        self.outcome(spans, error);
    }

    fn outcome(&mut self, spans: u64, error: Option<String>) {
        let Some(error) = error else {
            self.counts.exported.add(spans);
            return;
        };
        self.counts.failed.add(spans);
        self.untold += spans;
        if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            let (url, spans) = (&self.url, std::mem::take(&mut self.untold));
            tracing::warn!(
                endpoint = url,
                spans,
                error,
                "spans could not be sent and are lost; the host goes on without them"
            );
            self.told = Some(Instant::now());
        }
    }
}

/// The next spans to send; empty only at a stop. None: there will be no more.
async fn next_batch(queue: &mut mpsc::Receiver<SpanData>, stop: &CancellationToken) -> Option<Vec<SpanData>> {
    let mut batch = Vec::with_capacity(BATCH_SPANS);
    let first = stop.run_until_cancelled(queue.recv()).await;
    let Some(first) = first else { return Some(batch) };
    batch.push(first?);
    let deadline = tokio::time::Instant::now() + LINGER;
    while batch.len() < BATCH_SPANS {
        let more = tokio::time::timeout_at(deadline, queue.recv());
        match stop.run_until_cancelled(more).await {
            Some(Ok(Some(span))) => batch.push(span),
            Some(Ok(None) | Err(_)) | None => break,
        }
    }
    Some(batch)
}
