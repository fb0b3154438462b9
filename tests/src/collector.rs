//! A collector of traces: a real HTTP server that takes what hosts send over OTLP, reads it, and keeps the spans.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span as Sent;
use prost::Message;

use crate::wait;

/// A span as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its trace, in hex.
    pub trace: String,
    /// Its id, in hex.
    pub id: String,
    /// Its parent's, in hex; empty if it has none.
    pub parent: String,
    /// Its name.
    pub name: String,
    /// `consumer`, `producer`, `client`, or another of OpenTelemetry's.
    pub kind: String,
    /// Its attributes, as text.
    pub attributes: BTreeMap<String, String>,
    /// Whether it failed, and what is said of that.
    pub error: Option<String>,
    /// When it began and ended, in nanoseconds since 1970-01-01 UTC.
    pub times_ns: (u64, u64),
    /// Who sent it.
    pub service: String,
}

/// What was collected, and how requests are answered.
#[derive(Default)]
struct Shared {
    spans: Mutex<Vec<Span>>,
    flaws: Mutex<Vec<String>>,
    stop: AtomicBool,
}

/// The server.
pub struct Collector {
    address: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Collector {
    /// Listens on a free port.
    ///
    /// # Errors
    /// There is none.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let shared = Arc::<Shared>::default();
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || serve(&listener, &shared)
        });
        Ok(Self { address, shared, thread: Some(thread) })
    }

    /// Its base URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All spans so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        self.shared.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until there are this many spans.
    ///
    /// # Errors
    /// There are not within `limit`, or something came that is no OTLP.
    pub async fn wait(&self, count: usize, limit: Duration) -> Result<Vec<Span>> {
        let what = format!("{count} spans were collected");
        let waiting = wait::until(&what, limit, || async {
            let flaws = self.shared.flaws.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if !flaws.is_empty() {
                bail!("{flaws:?}");
            }
            let spans = self.spans();
            Ok((spans.len() >= count).then_some(spans))
        });
        waiting.await.with_context(|| format!("there are {:#?}", self.spans()))
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for a connection.
        let _ = TcpStream::connect(&self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(listener: &TcpListener, shared: &Arc<Shared>) {
    for connection in listener.incoming() {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let Ok(connection) = connection else { continue };
        let shared = Arc::clone(shared);
        // A client keeps its connection; the thread ends with it.
        std::thread::spawn(move || while let Ok(true) = answer(&connection, &shared) {});
    }
}

/// One request of a connection. False: there are no more.
fn answer(connection: &TcpStream, shared: &Shared) -> Result<bool> {
    let mut reader = BufReader::new(connection);
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Ok(false);
    }
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let kind = headers.get("content-type").map(String::as_str).unwrap_or_default();
    let taken = if first.starts_with("POST /v1/traces ") && kind == "application/x-protobuf" {
        ExportTraceServiceRequest::decode(body.as_slice()).context("reading OTLP")
    } else {
        Err(anyhow::anyhow!("{} with {headers:?}", first.trim()))
    };
    let status = match taken {
        Ok(request) => {
            shared.spans.lock().unwrap_or_else(PoisonError::into_inner).extend(spans(request));
            "200 OK"
        }
        Err(flaw) => {
            shared.flaws.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{flaw:#}"));
            "400 Bad Request"
        }
    };
    // An empty body is an empty answer of OTLP: all was taken.
    let mut connection = connection;
    write!(connection, "HTTP/1.1 {status}\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n")?;
    Ok(true)
}

fn spans(request: ExportTraceServiceRequest) -> Vec<Span> {
    let mut all = Vec::new();
    for resource in request.resource_spans {
        let attributes = resource.resource.map(|resource| resource.attributes).unwrap_or_default();
        let of_service: BTreeMap<String, String> =
            attributes.into_iter().map(|pair| (pair.key, text(pair.value.and_then(|value| value.value)))).collect();
        let service = of_service.get("service.name").cloned().unwrap_or_default();
        let sent = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        all.extend(sent.map(|span| read(span, service.clone())));
    }
    all
}

fn read(sent: Sent, service: String) -> Span {
    let pair = |pair: opentelemetry_proto::tonic::common::v1::KeyValue| {
        (pair.key, text(pair.value.and_then(|value| value.value)))
    };
    let kind = sent.kind().as_str_name().trim_start_matches("SPAN_KIND_").to_ascii_lowercase();
    // 2 is an error.
    let error = sent.status.filter(|status| status.code == 2).map(|status| status.message);
    Span {
        trace: hex(&sent.trace_id),
        id: hex(&sent.span_id),
        parent: hex(&sent.parent_span_id),
        name: sent.name,
        kind,
        attributes: sent.attributes.into_iter().map(pair).collect(),
        error,
        times_ns: (sent.start_time_unix_nano, sent.end_time_unix_nano),
        service,
    }
}

fn text(value: Option<Value>) -> String {
    match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(yes)) => yes.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
