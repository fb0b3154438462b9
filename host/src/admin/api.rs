//! The answers of the admin server, as JSON. Names are part of the interface: scripts rely on them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `GET /livez` and `GET /readyz`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct HealthView {
    /// Whether all is well.
    pub ok: bool,
    /// What is not.
    pub reasons: Vec<String>,
}

/// `GET /status`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct StatusView {
    /// The host's version.
    pub version: String,
    /// Milliseconds since it was started.
    pub uptime_ms: u64,
    /// Whether it is ready, and if not, why.
    pub ready: HealthView,
    /// Where NATS is, or why there is no connection.
    pub nats: String,
    /// Bytes executed and not yet folded into the view.
    pub overlay_bytes: u64,
    /// Every consumer that the host knows, by name.
    pub consumers: Vec<ConsumerView>,
    /// The outbox of all consumers.
    pub outbox: OutboxView,
    /// What is wrong with files of the consumer directory.
    pub files: Vec<String>,
}

/// One consumer.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ConsumerView {
    /// Its name.
    pub name: String,
    /// `running`, `positioning`, `rebinding`, `stopping`, `stopped`, `halted`, or `refused` if no version was ever accepted.
    pub phase: String,
    /// The sha256 digest of the component that serves, in hex.
    pub version: Option<String>,
    /// Its stream.
    pub stream: Option<String>,
    /// Everything up to this sequence is durably settled.
    pub floor: u64,
    /// The highest sequence delivered.
    pub delivered: u64,
    /// Messages of the stream not delivered yet, as JetStream said with the last delivery.
    pub pending: u64,
    /// Messages held.
    pub held: usize,
    /// Their memory, in bytes.
    pub held_bytes: usize,
    /// Runs that are out.
    pub running: usize,
    /// Keys that wait for another attempt.
    pub waiting_retry: usize,
    /// Events committed and not known to be published.
    pub outbox_pending: usize,
    /// How long ago the oldest of them was committed, in milliseconds.
    #[serde(default)]
    pub outbox_age_ms: Option<u64>,
    /// How fast it is.
    #[serde(flatten)]
    pub speed: SpeedView,
    /// Messages applied since the host was started.
    pub applied: u64,
    /// Messages skipped because their id was applied before, since then.
    pub duplicates: u64,
    /// Deliveries dropped because they were settled or held already, since then.
    pub redelivered: u64,
    /// Failed attempts that were followed by another, since then.
    pub retries: u64,
    /// Messages given up, since then.
    pub dead_letters: u64,
    /// Events published, since then.
    pub published: u64,
    /// Messages skipped because a newer version of their entity was applied before, since then.
    pub stale: u64,
    /// Failed attempts by kind, since then.
    pub failures: FailuresView,
    /// Messages that are parked.
    pub parked_rows: u64,
    /// Keys that have any of them, and parked messages without a key.
    pub parked_keys: usize,
    /// Those of them that are being brought back.
    pub keys_releasing: usize,
    /// Who keeps it from working: an operator, its breaker, both, or nobody.
    pub holds: Vec<HoldView>,
    /// Whatever keeps it from doing its work, with the way out.
    pub problems: Vec<String>,
}

/// How fast a consumer is: messages in a second over the last ten seconds, and percentiles of the last minute, which are missing if nothing happened in it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SpeedView {
    /// Messages that got their outcome, a second.
    pub rate: f64,
    /// Half of the attempts took no longer than this, in microseconds.
    pub handler_p50_us: Option<u64>,
    /// All but one in a hundred took no longer.
    pub handler_p99_us: Option<u64>,
    /// Half of the applied messages were durably applied this long after their stream had stored them, in milliseconds, or earlier.
    pub end_to_end_p50_ms: Option<u64>,
    /// All but one in a hundred were.
    pub end_to_end_p99_ms: Option<u64>,
}

/// `GET /consumers/NAME`: what the list has of it, and more.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ConsumerDetailView {
    /// What the list has of it.
    #[serde(flatten)]
    pub consumer: ConsumerView,
    /// Its number in the store.
    pub number: u32,
    /// When its stream was created, as the broker says: RFC 3339, UTC.
    pub stream_created: Option<String>,
    /// Whether nothing of it is held, executing or being committed.
    pub quiet: bool,
    /// Stretches above its floor that are settled, first and last sequence of each; the first 16.
    pub settled_above: Vec<(u64, u64)>,
    /// What a rewind brings again and is not all handled yet: the first and the last sequence.
    pub rewound: Option<(u64, u64)>,
    /// Keys that have messages in memory.
    pub keys: usize,
    /// Messages asked for and not delivered yet.
    pub requested: usize,
}

/// How often attempts failed, by kind.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct FailuresView {
    /// The plug-in asked for another attempt.
    pub retry: u64,
    /// The plug-in rejected the message.
    pub reject: u64,
    /// The plug-in said that it is not the message's turn.
    pub park: u64,
    /// The instance trapped.
    pub trap: u64,
    /// The attempt ran past its time.
    pub timeout: u64,
    /// The attempt passed another limit.
    pub limit: u64,
}

/// What keeps a consumer from working although it could.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct HoldView {
    /// `operator` or `breaker`.
    pub by: String,
    /// Since when: RFC 3339, UTC.
    pub since: String,
    /// Why, in words.
    pub reason: String,
}

/// The outbox.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct OutboxView {
    /// Events in flight to JetStream.
    pub in_flight: usize,
    /// Events that wait for room in the window.
    pub queued: usize,
    /// Events of keys whose last publish was refused.
    pub waiting: usize,
    /// How long ago the oldest event was committed, in milliseconds.
    #[serde(default)]
    pub oldest_age_ms: Option<u64>,
    /// Why the last publish was refused, while any event waits because of it.
    pub last_refusal: Option<String>,
}
