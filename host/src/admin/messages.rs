//! The answers about parked and dead messages and about keys, as JSON. Names are part of the interface: scripts rely on them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::api::HoldView;

/// One failed attempt.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
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

/// What a message carries. Empty in lists that were asked for with `brief`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Content {
    /// The message's headers.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The payload, if it is text.
    pub payload: Option<String>,
    /// The payload in base64, if it is not.
    pub payload_base64: Option<String>,
}

/// One dead letter: an item of `GET /dead-letters`, and `GET /dead-letters/CONSUMER/SEQUENCE`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetterView {
    /// Its consumer.
    pub consumer: String,
    /// Its sequence in its stream.
    pub sequence: u64,
    /// The stream that it is from.
    pub stream: String,
    /// The message's id.
    pub id: String,
    /// The message's subject.
    pub subject: String,
    /// Its ordering key.
    pub key: Option<String>,
    /// `unreadable`, `rejected`, `exhausted`, `parked-too-long` or `gap-never-filled`.
    pub cause: String,
    /// What happened last, in words.
    pub reason: String,
    /// Attempts made.
    pub attempts: u32,
    /// When its stream stored it: RFC 3339, UTC.
    pub published_at: String,
    /// When it was given up: RFC 3339, UTC.
    pub at: String,
    /// The last attempts, oldest first.
    #[serde(default)]
    pub history: Vec<Attempt>,
    /// The payload's length, in bytes.
    pub payload_bytes: usize,
    /// Headers and payload.
    #[serde(flatten)]
    pub content: Content,
}

/// One parked message: an item of `GET /parked`, and `GET /parked/CONSUMER/ID`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ParkedView {
    /// Its consumer.
    pub consumer: String,
    /// Its number among all that was ever parked.
    pub id: u64,
    /// Its sequence in its stream.
    pub sequence: u64,
    /// The stream that it is from.
    pub stream: String,
    /// The message's id.
    pub message_id: String,
    /// The message's subject.
    pub subject: String,
    /// Its ordering key.
    pub key: Option<String>,
    /// The version of its entity, where the consumer orders by it.
    pub entity_version: Option<u64>,
    /// `exhausted`, `retrying`, `asked`, `gap`, `behind` or `replayed`.
    pub cause: String,
    /// The version of its entity that is missing, if that is why it is parked.
    pub missing_version: Option<u64>,
    /// What the last attempt said; empty if there was none.
    pub reason: String,
    /// Whether all that comes of its key is parked behind it.
    pub holds_key: bool,
    /// The message that holds its key, or the first of its key; not in lists.
    pub behind: Option<BehindView>,
    /// When its stream stored it: RFC 3339, UTC.
    pub published_at: String,
    /// When it was first parked: RFC 3339, UTC.
    pub parked_at: String,
    /// When it is brought back by itself: RFC 3339, UTC; none: when something else brings it back.
    pub until: Option<String>,
    /// How often it was brought back and its attempts were used up again.
    pub releases: u32,
    /// Attempts made.
    pub attempts: u32,
    /// The last attempts, oldest first.
    #[serde(default)]
    pub history: Vec<Attempt>,
    /// The payload's length, in bytes.
    pub payload_bytes: usize,
    /// Headers and payload.
    #[serde(flatten)]
    pub content: Content,
}

/// The message that another one stands behind.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BehindView {
    /// Its number.
    pub id: u64,
    /// Its sequence in its stream.
    pub sequence: u64,
    /// Why it is parked.
    pub cause: String,
}

/// What came of an action on many messages: one step of it, since an action that takes long is made of many.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct DoneView {
    /// For how many messages it was done; for a release, for how many keys and messages without a key.
    pub count: u64,
    /// How many were left because they were being handled at that moment.
    pub busy: u64,
    /// How many were left because they can't be read: their payloads have to be replaced one by one.
    #[serde(default)]
    pub unreadable: u64,
    /// Where the next step begins; none: it is done.
    pub next: Option<String>,
}

/// What `POST /consumers/NAME/resume` ended.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ResumedView {
    /// What kept the consumer from working.
    pub holds: Vec<HoldView>,
    /// Why it was halted, if it was.
    pub halted: Option<String>,
}

/// `GET /consumers/NAME/explain?key=KEY`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ExplainView {
    /// The consumer.
    pub consumer: String,
    /// The key.
    pub key: String,
    /// Why the key is where it is, in sentences.
    pub text: Vec<String>,
    /// What the consumer does, as in `GET /status`.
    pub phase: String,
    /// Why it is halted, if it is.
    pub halted: Option<String>,
    /// Who keeps it from working.
    pub holds: Vec<HoldView>,
    /// The key's messages in memory.
    pub running: Option<KeyRunningView>,
    /// The key's parked messages.
    pub parked: Option<KeyParkedView>,
    /// The key's dead letters.
    pub dead_letters: u64,
    /// There may be more: no more of the consumer's dead letters were looked at.
    pub dead_letters_more: bool,
}

/// The messages of a key that are in memory.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct KeyRunningView {
    /// `running`, `ready`, `backoff` or `blocked`.
    pub doing: String,
    /// For how long it waits for its next attempt, in milliseconds.
    pub backoff_ms: Option<u64>,
    /// What it waits for if it is ready: `turn`, `consumer`, `rate`, `keys`, `shared-state`, `memory` or `disk`.
    pub waits_for: Option<String>,
    /// How many messages there are.
    pub messages: usize,
    /// The sequence of the first.
    pub sequence: u64,
    /// How often that was tried.
    pub attempts: u32,
    /// Its last failed attempt.
    pub last_failure: Option<Attempt>,
}

/// The parked messages of a key.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct KeyParkedView {
    /// How many there are.
    pub messages: u64,
    /// How many of them were set aside while their key goes on.
    pub aside: u64,
    /// Whether all that comes is parked behind them.
    pub held: bool,
    /// In how many milliseconds they are brought back by themselves.
    pub released_in_ms: Option<u64>,
    /// They are being brought back now, or wait for their turn to be.
    pub being_released: bool,
    /// The first of them, without headers and payload.
    pub first: Vec<ParkedView>,
}
