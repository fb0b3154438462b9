//! Events that are published to JetStream if, and only if, this attempt becomes durable.
//!
//! They leave after the commit, at least once, always under the same `Nats-Msg-Id`; events of one key leave in order. By
//! default up to 100 events per attempt and 1 MiB of payload each.

use serde::Serialize;

use crate::calls::outbox as host;

/// Why an event was not emitted.
#[derive(Debug, thiserror::Error)]
pub enum EmitError {
    /// Empty, too long, with an empty token, white space or a wildcard.
    #[error("no event can be published to that subject: {0}")]
    InvalidSubject(String),
    /// A name that is empty or not printable ASCII or holds a colon, a value with a control character, or a name that belongs to
    /// NATS or the host.
    #[error("the event has a header that can't be published: {0}")]
    InvalidHeader(String),
    /// No grant of this consumer covers the subject.
    #[error("this consumer's manifest does not grant it to emit there: {0}")]
    NotGranted(String),
    /// The payload can't be written as JSON.
    #[error("the event for {subject} can't be written as JSON")]
    Json {
        /// Where it was to go.
        subject: String,
        /// Why.
        source: serde_json::Error,
    },
}

/// Emits an event with a JSON payload, in order with the other events of the message's ordering key. Returns its id: the `Nats-Msg-Id`
/// under which it will be published.
///
/// # Errors
/// See [`EmitError`]; nothing was emitted. `?` makes the message a dead letter.
pub fn emit<T: Serialize + ?Sized>(subject: impl Into<String>, payload: &T) -> Result<String, EmitError> {
    Event::json(subject, payload)?.emit()
}

/// An event that is being put together.
///
/// ```no_run
/// # use pelton_sdk::outbox::Event;
/// # fn example() -> pelton_sdk::Result {
/// Event::json("orders.17.shipped", &["parcel-1"])?.header("content-type", "application/json").key("17").emit()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "an event that is not emitted has no effect"]
pub struct Event {
    subject: String,
    payload: Vec<u8>,
    headers: Vec<(String, String)>,
    key: Option<String>,
}

impl Event {
    /// With a JSON payload.
    ///
    /// # Errors
    /// If the payload can't be written as JSON.
    pub fn json<T: Serialize + ?Sized>(subject: impl Into<String>, payload: &T) -> Result<Self, EmitError> {
        let subject = subject.into();
        match serde_json::to_vec(payload) {
            Ok(payload) => Ok(Self::bytes(subject, payload)),
            Err(source) => Err(EmitError::Json { subject, source }),
        }
    }

    /// With these bytes as its payload.
    pub fn bytes(subject: impl Into<String>, payload: impl Into<Vec<u8>>) -> Self {
        Self { subject: subject.into(), payload: payload.into(), headers: Vec::new(), key: None }
    }

    /// Adds a header. `Nats-Msg-Id`, the correlation and causation ids and the trace context are the host's.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Puts it in order with the events of this key instead of those of the message's.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Emits it and returns its id.
    ///
    /// # Errors
    /// See [`EmitError`]; nothing was emitted.
    pub fn emit(self) -> Result<String, EmitError> {
        let Self { subject, payload, headers, key } = self;
        host::emit(&host::Event { subject, payload, headers, key }).map_err(|error| match error {
            host::EmitError::InvalidSubject(reason) => EmitError::InvalidSubject(reason),
            host::EmitError::InvalidHeader(reason) => EmitError::InvalidHeader(reason),
            host::EmitError::NotGranted(reason) => EmitError::NotGranted(reason),
        })
    }
}
