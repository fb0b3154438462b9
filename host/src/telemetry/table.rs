//! Every metric, named and explained, in one place. `METRICS.md` is this table as text, and a test compares the two; what is exposed takes names, kinds,
//! units and labels from here, so that nothing else can come out.
//!
//! Labels are the consumer, its stream, the version of its plug-in, and words of a closed list. Never a key or a subject: their number has no bound.

use std::fmt::Write;

use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// What a metric counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

impl Base {
    pub(super) fn unit(self) -> Unit {
        match self {
            Self::Seconds => Unit::Seconds,
            Self::Bytes => Unit::Bytes,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
        }
    }
}

/// One metric.
#[derive(Debug)]
pub struct Metric {
    /// Its name without unit and without what its kind adds.
    pub stem: &'static str,
    /// Its kind.
    pub kind: MetricType,
    /// Its unit; none: it counts things.
    pub base: Option<Base>,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it tells.
    pub help: &'static str,
}

impl Metric {
    /// The name that queries use; a histogram has `_bucket`, `_sum` and `_count` behind it.
    #[must_use]
    pub fn name(&self) -> String {
        let unit = self.base.map(|base| format!("_{}", base.word())).unwrap_or_default();
        let kind = match self.kind {
            MetricType::Counter => "_total",
            MetricType::Info => "_info",
            MetricType::Gauge | MetricType::Histogram | MetricType::Unknown => "",
        };
        format!("{}{unit}{kind}", self.stem)
    }
}

const fn metric(
    stem: &'static str,
    kind: MetricType,
    base: Option<Base>,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { stem, kind, base, labels, help }
}

const CONSUMER: &[&str] = &["consumer"];
const SECONDS: Option<Base> = Some(Base::Seconds);
const BYTES: Option<Base> = Some(Base::Bytes);

use MetricType::{Counter, Gauge, Histogram, Info};

/// Outcomes of messages.
pub const MESSAGES: Metric = metric(
    "pelton_messages",
    Counter,
    None,
    &["consumer", "outcome"],
    "Messages that got an outcome since the host was started: applied, duplicate (its id was applied before), stale (a newer version of its entity was), dead_letter (given up), parked (held back in the store; counted again with what becomes of it later).",
);
/// Calls of handlers.
pub const ATTEMPTS: Metric = metric(
    "pelton_attempts",
    Counter,
    None,
    &["consumer", "version", "outcome"],
    "Calls of the plug-in's handler by its version (the first 12 digits of the digest) and what came of them: ok, retry, reject, park, trap, timeout, limit. The four versions called last are kept.",
);
/// Retries.
pub const RETRIES: Metric = metric(
    "pelton_retries",
    Counter,
    None,
    CONSUMER,
    "Failed attempts that are followed by another without the message being parked.",
);
/// Redelivered.
pub const REDELIVERED: Metric = metric(
    "pelton_redelivered",
    Counter,
    None,
    CONSUMER,
    "Deliveries dropped because the message was settled or in hand already.",
);
/// Time of handlers.
pub const HANDLER_DURATION: Metric = metric(
    "pelton_handler_duration",
    Histogram,
    SECONDS,
    &["consumer", "version"],
    "Time of an attempt: making an instance, the handler, and what it asked of the host.",
);
/// Time of traced attempts.
pub const TRACED_HANDLER_DURATION: Metric = metric(
    "pelton_traced_handler_duration",
    Histogram,
    SECONDS,
    CONSUMER,
    "The same for attempts whose trace is recorded only, with the trace's id as exemplar (OpenMetrics only).",
);
/// Time before the first attempt.
pub const QUEUE_WAIT: Metric = metric(
    "pelton_queue_wait",
    Histogram,
    SECONDS,
    CONSUMER,
    "Time from a message's delivery, or its return from the store, until its first attempt began.",
);
/// From publisher to durable.
pub const END_TO_END: Metric = metric(
    "pelton_end_to_end",
    Histogram,
    SECONDS,
    CONSUMER,
    "Time from when the stream stored a message until its effects were durable, of messages applied. Measured between two clocks, the broker's and the host's, in milliseconds.",
);
/// Held.
pub const IN_FLIGHT: Metric = metric(
    "pelton_in_flight",
    Gauge,
    None,
    CONSUMER,
    "Messages delivered and not settled: waiting, running, or in the batch that is open.",
);
/// Bytes held.
pub const IN_FLIGHT_BYTES: Metric = metric("pelton_in_flight", Gauge, BYTES, CONSUMER, "Memory of these messages.");
/// Runs.
pub const RUNNING: Metric =
    metric("pelton_running", Gauge, None, CONSUMER, "Lanes whose messages an executor has now.");
/// Lanes.
pub const LANES: Metric =
    metric("pelton_lanes", Gauge, None, CONSUMER, "Ordering keys with messages in hand, and messages without a key.");
/// Lanes in backoff.
pub const LANES_RETRYING: Metric =
    metric("pelton_lanes_retrying", Gauge, None, CONSUMER, "Those of them that wait for another attempt.");
/// Lag.
pub const STREAM_LAG: Metric = metric(
    "pelton_stream_lag",
    Gauge,
    None,
    &["consumer", "stream"],
    "Messages of the stream that the consumer has not settled: not delivered yet, as JetStream said with the last delivery, and in flight.",
);
/// Floor.
pub const STREAM_FLOOR: Metric = metric(
    "pelton_stream_floor",
    Gauge,
    None,
    &["consumer", "stream"],
    "The stream sequence up to which everything is durably settled.",
);
/// Parked.
pub const PARKED: Metric = metric("pelton_parked", Gauge, None, CONSUMER, "Messages parked in the store.");
/// Parked keys.
pub const PARKED_KEYS: Metric = metric(
    "pelton_parked_keys",
    Gauge,
    None,
    CONSUMER,
    "Keys that have parked messages, and parked messages without a key.",
);
/// Given up.
pub const DEAD_LETTERS: Metric =
    metric("pelton_dead_letters", Counter, None, CONSUMER, "Messages given up since the host was started.");
/// Outbox.
pub const OUTBOX_PENDING: Metric =
    metric("pelton_outbox_pending", Gauge, None, CONSUMER, "Events committed and not yet acknowledged by JetStream.");
/// Age of the outbox.
pub const OUTBOX_OLDEST_AGE: Metric = metric(
    "pelton_outbox_oldest_age",
    Gauge,
    SECONDS,
    CONSUMER,
    "How long the oldest of them has waited since it was committed; 0 if there is none.",
);
/// Published.
pub const PUBLISHED: Metric =
    metric("pelton_events_published", Counter, None, CONSUMER, "Events acknowledged by JetStream.");
/// Whether it works.
pub const CONSUMER_STATE: Metric = metric(
    "pelton_consumer_state",
    Gauge,
    None,
    &["consumer", "phase"],
    "1 for what the consumer is doing: running, positioning, rebinding, restarting, stopping, stopped, halted.",
);
/// Who holds it.
pub const CONSUMER_PAUSED: Metric = metric(
    "pelton_consumer_paused",
    Gauge,
    None,
    &["consumer", "by"],
    "1 if an operator or its breaker keeps the consumer from working, else 0.",
);
/// Versions.
pub const CONSUMER_VERSION: Metric =
    metric("pelton_consumer_version", Info, None, &["consumer", "version"], "The version of the plug-in that serves.");
/// Lines of plug-ins.
pub const LOG_LINES: Metric = metric(
    "pelton_log_lines",
    Counter,
    None,
    &["consumer", "outcome"],
    "Lines of plug-ins for the host's log: written, dropped (past the limits of an attempt or of the consumer).",
);
/// Memory of instances.
pub const INSTANCE_MEMORY_PEAK: Metric = metric(
    "pelton_instance_memory_peak",
    Gauge,
    BYTES,
    CONSUMER,
    "Linear memory of the largest instance since the host was started; it may grow to [limits] memory_bytes.",
);
/// Commits.
pub const COMMIT_DURATION: Metric = metric(
    "pelton_commit_duration",
    Histogram,
    SECONDS,
    &[],
    "Time of a commit: encoding a batch, appending it to the commit log, and syncing.",
);
/// Batches.
pub const COMMIT_BATCH_SIZE: Metric =
    metric("pelton_commit_batch_size", Histogram, None, &[], "Outcomes of messages that one commit made durable.");
/// Checkpoints.
pub const CHECKPOINT_DURATION: Metric =
    metric("pelton_checkpoint_duration", Histogram, SECONDS, &[], "Time of folding the commit log into the view.");
/// Overlay.
pub const OVERLAY: Metric = metric(
    "pelton_overlay",
    Gauge,
    BYTES,
    &[],
    "Memory of what is executed and not folded into the view yet; pulls wait at [store] overlay_bytes_max.",
);
/// Files.
pub const STORE: Metric = metric("pelton_store", Gauge, BYTES, &["file"], "Size of the store's files: log, view.");
/// Relay.
pub const RELAY: Metric = metric(
    "pelton_relay_events",
    Gauge,
    None,
    &["state"],
    "Events of the outbox by what they wait for: in_flight (JetStream's acknowledgement), queued (room in the window), waiting (their key was refused and is tried again).",
);
/// Executors.
pub const EXECUTORS: Metric = metric("pelton_executors", Gauge, None, &[], "Executor threads.");
/// Busy.
pub const EXECUTOR_BUSY: Metric = metric(
    "pelton_executor_busy",
    Counter,
    SECONDS,
    &[],
    "Time that executor threads were at work, in all; divided by the time that passed and by pelton_executors it is how busy they are.",
);
/// NATS.
pub const NATS_CONNECTED: Metric = metric(
    "pelton_nats_connected",
    Gauge,
    None,
    &["connection"],
    "1 if there is a connection, else 0: consume (consumers have one each besides), publish.",
);
/// Compiles.
pub const COMPILE_DURATION: Metric = metric(
    "pelton_compile_duration",
    Histogram,
    SECONDS,
    &[],
    "Time of compiling and verifying a component, whatever came of it.",
);
/// Swaps.
pub const SWAP: Metric = metric(
    "pelton_swap",
    Counter,
    None,
    &["result"],
    "Ends of deployments that brought another version: swapped, refused (it failed verification, the one before goes on), rolled_back.",
);
/// Spans.
pub const SPANS: Metric = metric(
    "pelton_spans",
    Counter,
    None,
    &["outcome"],
    "Spans of recorded traces: exported (the collector took them), failed (it did not), dropped (the queue to it was full).",
);
/// Driver.
pub const DRIVER_AGE: Metric = metric(
    "pelton_driver_heartbeat_age",
    Gauge,
    SECONDS,
    &[],
    "How long ago the thread that owns all decisions was last seen awake. If it rises, the host hangs, and what it alone knows is missing here.",
);
/// Build.
pub const BUILD: Metric = metric("pelton_build", Info, None, &["version"], "The host's version.");
/// Uptime.
pub const UPTIME: Metric = metric("pelton_uptime", Gauge, SECONDS, &[], "Time since the host was started.");

/// All of them, in the order in which they come out.
pub const TABLE: &[&Metric] = &[
    &BUILD,
    &UPTIME,
    &DRIVER_AGE,
    &MESSAGES,
    &ATTEMPTS,
    &RETRIES,
    &REDELIVERED,
    &HANDLER_DURATION,
    &TRACED_HANDLER_DURATION,
    &QUEUE_WAIT,
    &END_TO_END,
    &IN_FLIGHT,
    &IN_FLIGHT_BYTES,
    &RUNNING,
    &LANES,
    &LANES_RETRYING,
    &STREAM_LAG,
    &STREAM_FLOOR,
    &PARKED,
    &PARKED_KEYS,
    &DEAD_LETTERS,
    &OUTBOX_PENDING,
    &OUTBOX_OLDEST_AGE,
    &PUBLISHED,
    &CONSUMER_STATE,
    &CONSUMER_PAUSED,
    &CONSUMER_VERSION,
    &LOG_LINES,
    &INSTANCE_MEMORY_PEAK,
    &COMMIT_DURATION,
    &COMMIT_BATCH_SIZE,
    &CHECKPOINT_DURATION,
    &OVERLAY,
    &STORE,
    &RELAY,
    &EXECUTORS,
    &EXECUTOR_BUSY,
    &NATS_CONNECTED,
    &COMPILE_DURATION,
    &SWAP,
    &SPANS,
];

/// The table as `METRICS.md` has it.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         `GET /metrics` on the admin address: OpenMetrics text, or the older Prometheus text if the `Accept` header asks for `text/plain` only. This file is \
         written from the table in `src/telemetry/table.rs`; a test compares the two, and another compares them with what a host really tells.\n\n\
         Numbers of a consumer are counted since the host was started, unless a line says otherwise. No label is a key or a subject.\n\n\
         | name | kind | labels | what it tells |\n|---|---|---|---|\n",
    );
    for metric in TABLE {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = if labels.is_empty() { "–".to_owned() } else { labels.join(", ") };
        // Writing to a String can't fail.
        _ = writeln!(text, "| `{}` | {} | {labels} | {} |", metric.name(), metric.kind.as_str(), metric.help);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn metrics_md_is_the_table() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/METRICS.md");
        if std::env::var_os("PELTON_WRITE_METRICS").is_some() {
            std::fs::write(file, markdown()).unwrap();
        }
        let written = std::fs::read_to_string(file).unwrap_or_default();
        assert!(
            written == markdown(),
            "host/METRICS.md differs from the table: run `PELTON_WRITE_METRICS=1 cargo test -p pelton --lib metrics_md`"
        );
    }

    #[test]
    fn names_are_their_own_and_labels_are_bounded() {
        let mut names = BTreeSet::new();
        for metric in TABLE {
            assert!(names.insert(metric.name()), "{} is there twice", metric.name());
            assert!(metric.help.ends_with('.') && !metric.help.contains(['\n', '|', '"', '\\']), "{}", metric.name());
            for label in metric.labels {
                let bounded = [
                    "consumer",
                    "version",
                    "outcome",
                    "stream",
                    "phase",
                    "by",
                    "file",
                    "state",
                    "connection",
                    "result",
                ];
                assert!(bounded.contains(label), "{}: label {label}", metric.name());
            }
        }
    }
}
