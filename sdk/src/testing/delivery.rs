//! A message on its way to the handler, put together by a test.

use serde::Serialize;

/// A message that is published to a subject, without payload, headers, id and key.
pub fn message(subject: impl Into<String>) -> Delivery {
    Delivery {
        subject: subject.into(),
        headers: Vec::new(),
        payload: Vec::new(),
        id: None,
        key: None,
        sequence: None,
        published_at_ms: None,
    }
}

/// A message that is being put together; see [`message`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "it has no effect until a host handles it"]
pub struct Delivery {
    pub(super) subject: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) payload: Vec<u8>,
    pub(super) id: Option<String>,
    pub(super) key: Option<String>,
    pub(super) sequence: Option<u64>,
    pub(super) published_at_ms: Option<u64>,
}

impl Delivery {
    /// With this ordering key. Without one, state is that of the whole consumer.
    pub fn key(self, key: impl Into<String>) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    /// With this id, in the header `Nats-Msg-Id` as well. Without one it is known by its sequence, as no other message is.
    pub fn id(self, id: impl Into<String>) -> Self {
        let id = id.into();
        Self { id: Some(id.clone()), ..self }.header("Nats-Msg-Id", id)
    }

    /// With one more header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With these bytes as its payload.
    pub fn payload(self, payload: impl Into<Vec<u8>>) -> Self {
        Self { payload: payload.into(), ..self }
    }

    /// With this text as its payload.
    pub fn text(self, text: &str) -> Self {
        self.payload(text.as_bytes())
    }

    /// With a JSON payload.
    ///
    /// # Panics
    /// If the value can't be written as JSON.
    #[track_caller]
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(payload) => self.payload(payload),
            Err(error) => super::host::fail(&format!("the payload can't be written as JSON: {error}")),
        }
    }

    /// With this sequence in its stream. Without, it is the next one.
    pub fn sequence(self, sequence: u64) -> Self {
        Self { sequence: Some(sequence), ..self }
    }

    /// Stored by the stream at this time, in milliseconds since 1970-01-01 UTC. Without, it is the host's time.
    pub fn published_at_ms(self, at_ms: u64) -> Self {
        Self { published_at_ms: Some(at_ms), ..self }
    }
}
