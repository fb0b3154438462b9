//! The message that a handler is called with.

use std::str::Utf8Error;
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;

use crate::bindings::pelton::consumer::types;

/// One message of a JetStream stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What the host deduplicates by. A message whose id was applied before never gets here.
    pub id: String,
    /// The subject that it was published to.
    pub subject: String,
    /// The ordering key by the manifest's rule; none if the subscription is shared.
    pub key: Option<String>,
    /// Names and values in the order in which they arrived; a name may occur more than once.
    pub headers: Vec<(String, String)>,
    /// The payload's bytes, unchanged.
    pub payload: Vec<u8>,
    /// Its sequence in the stream: rises, with gaps.
    pub sequence: u64,
    /// When the stream stored it: milliseconds since 1970-01-01 UTC, by the broker's clock.
    pub published_at_ms: u64,
    /// 1 for the first attempt. Rises with each failed attempt that counts, not with a park; starts anew when the message is released after its
    /// attempts were used up.
    pub attempt: u32,
}

/// The payload is not what the plug-in expects.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// Not JSON, or not of the type that was asked for.
    #[error("the payload of message {id} on {subject} is not the JSON that this consumer reads")]
    Json {
        /// The message's id.
        id: String,
        /// The message's subject.
        subject: String,
        /// Where and how it differs.
        source: serde_json::Error,
    },
    /// Not UTF-8.
    #[error("the payload of message {id} on {subject} is not UTF-8 text")]
    Text {
        /// The message's id.
        id: String,
        /// The message's subject.
        subject: String,
        /// Where it stops being text.
        source: Utf8Error,
    },
}

impl Message {
    /// The payload as JSON of a type.
    ///
    /// # Errors
    /// If it isn't; `?` makes it a dead letter.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, PayloadError> {
        serde_json::from_slice(&self.payload).map_err(|source| PayloadError::Json {
            id: self.id.clone(),
            subject: self.subject.clone(),
            source,
        })
    }

    /// The payload as text.
    ///
    /// # Errors
    /// If it isn't UTF-8; `?` makes it a dead letter.
    pub fn text(&self) -> Result<&str, PayloadError> {
        std::str::from_utf8(&self.payload).map_err(|source| PayloadError::Text {
            id: self.id.clone(),
            subject: self.subject.clone(),
            source,
        })
    }

    /// The value of the first header of this name, in whatever case it is written.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// A token of the subject, counted from 1 as in the manifest: token 2 of `orders.17.new` is `17`.
    #[must_use]
    pub fn subject_token(&self, position: usize) -> Option<&str> {
        self.subject.split('.').nth(position.checked_sub(1)?)
    }

    /// When the stream stored it, by the broker's clock.
    #[must_use]
    pub fn published_at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.published_at_ms)
    }

    pub(crate) fn from_wit(message: types::Message) -> Self {
        let types::Message { id, subject, key, headers, payload, sequence, published_at_ms, attempt } = message;
        Self { id, subject, key, headers, payload, sequence, published_at_ms, attempt }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Failure;

    fn message(payload: &[u8]) -> Message {
        Message {
            id: "m-1".to_owned(),
            subject: "orders.17.new".to_owned(),
            key: None,
            headers: vec![("Trace-Id".to_owned(), "a".to_owned()), ("trace-id".to_owned(), "b".to_owned())],
            payload: payload.to_vec(),
            sequence: 7,
            published_at_ms: 1_500,
            attempt: 1,
        }
    }

    #[test]
    fn what_is_not_the_expected_json_is_rejected_by_name() {
        assert_eq!(message(b"[1,2]").json::<Vec<u8>>().unwrap(), [1, 2]);
        let failure = Failure::from(message(b"[1,").json::<Vec<u8>>().unwrap_err());
        let Failure::Reject { reason } = failure else { panic!("{failure:?}") };
        assert!(reason.contains("m-1") && reason.contains("orders.17.new") && reason.contains("EOF"), "{reason}");
    }

    #[test]
    fn text_is_utf8_or_an_error() {
        assert_eq!(message("größe".as_bytes()).text().unwrap(), "größe");
        assert!(message(b"\xff").text().is_err());
    }

    #[test]
    fn headers_are_found_in_any_case_and_the_first_one_counts() {
        assert_eq!(message(b"").header("TRACE-ID"), Some("a"));
        assert_eq!(message(b"").header("absent"), None);
    }

    #[test]
    fn subject_tokens_count_from_one() {
        let message = message(b"");
        assert_eq!(message.subject_token(2), Some("17"));
        assert_eq!((message.subject_token(0), message.subject_token(4)), (None, None));
    }
}
