//! The answers of the admin server, as JSON. Names are part of the interface: scripts rely on them.

use serde::{Deserialize, Serialize};

/// `GET /livez` and `GET /readyz`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HealthView {
    /// Whether all is well.
    pub ok: bool,
    /// What is not.
    pub reasons: Vec<String>,
}

/// `GET /status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    /// Whatever keeps it from doing its work, with the way out.
    pub problems: Vec<String>,
}

/// The outbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OutboxView {
    /// Events in flight to JetStream.
    pub in_flight: usize,
    /// Events that wait for room in the window.
    pub queued: usize,
    /// Events of keys whose last publish was refused.
    pub waiting: usize,
    /// Why the last publish was refused, while any event waits because of it.
    pub last_refusal: Option<String>,
}

/// One attempt of a dead letter.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attempt {
    /// When it ended: RFC 3339, UTC.
    pub at: String,
    /// The version that failed.
    pub version: String,
    /// `retry`, `reject`, `park`, `trap`, `timeout` or `limit`.
    pub kind: String,
    /// What happened.
    pub reason: String,
}

/// One dead letter: an item of `GET /dead-letters`, and `GET /dead-letters/CONSUMER/SEQUENCE`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeadLetterView {
    /// Its consumer.
    pub consumer: String,
    /// Its sequence in the consumer's stream.
    pub sequence: u64,
    /// The message's id.
    pub id: String,
    /// The message's subject.
    pub subject: String,
    /// Its ordering key.
    pub key: Option<String>,
    /// `unreadable`, `rejected`, `exhausted` or `parked-too-long`.
    pub cause: String,
    /// What happened last, in words.
    pub reason: String,
    /// Attempts made.
    pub attempts: u32,
    /// When it was given up: RFC 3339, UTC.
    pub at: String,
    /// The last attempts, oldest first.
    pub history: Vec<Attempt>,
    /// The message's headers.
    pub headers: Vec<(String, String)>,
    /// The payload, if it is text.
    pub payload: Option<String>,
    /// The payload in hex, if it is not.
    pub payload_hex: Option<String>,
}
