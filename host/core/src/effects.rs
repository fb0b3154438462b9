//! What one attempt leaves when it becomes durable.

use std::sync::Arc;

use bytes::Bytes;

use crate::ids::ConsumerId;
use crate::message::Headers;

/// Whose state it is: a consumer's, and within it one ordering key's, or none if the consumer's keys share their state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The consumer.
    pub consumer: ConsumerId,
    /// The ordering key; none for state that all keys of the consumer share.
    pub key: Option<Arc<str>>,
}

/// Entries of different spaces never meet, whatever their keys are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// What the plug-in set through `state`.
    User,
    /// What it marked through `idempotency`.
    Mark,
    /// What the host itself keeps beside the state, in the same transaction: the last version of an entity.
    Host,
}

/// A value and when it is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateValue {
    /// The plug-in's bytes.
    pub bytes: Bytes,
    /// Milliseconds since 1970-01-01 UTC; none: never.
    pub expires_at_ms: Option<u64>,
}

impl StateValue {
    /// Whether it can still be read at this time.
    #[must_use]
    pub fn is_live(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_none_or(|at| now_ms < at)
    }
}

/// The last word of an attempt on one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateWrite {
    /// Its space.
    pub space: Space,
    /// Its key within scope and space.
    pub key: Box<str>,
    /// The value; none: deleted.
    pub value: Option<StateValue>,
}

/// An event on its way to JetStream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The `Nats-Msg-Id` under which it leaves, always.
    pub id: Box<str>,
    /// Where it is published to.
    pub subject: Box<str>,
    /// Events of one consumer and key leave in order; none: no order.
    pub key: Option<Arc<str>>,
    /// All headers but `Nats-Msg-Id`.
    pub headers: Headers,
    /// The payload.
    pub payload: Bytes,
}

impl Event {
    /// The memory it is counted with, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        const FIXED: usize = 192;
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
        FIXED + self.id.len() + self.subject.len() + self.payload.len() + headers
    }
}

/// The effects of an attempt whose handler returned ok.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteSet {
    /// At most one write per entry, sorted by space and key.
    pub state: Vec<StateWrite>,
    /// In the order in which they were emitted.
    pub events: Vec<Arc<Event>>,
}

impl WriteSet {
    /// The memory it is counted with, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        const FIXED: usize = 64;
        let state: usize = self
            .state
            .iter()
            .map(|write| FIXED + write.key.len() + write.value.as_ref().map_or(0, |value| value.bytes.len()))
            .sum();
        state + self.events.iter().map(|event| event.weight()).sum::<usize>()
    }
}
