//! Events in the client's words. Made for each event that leaves, so nothing is copied or looked at twice.

use async_nats::header::{HeaderName, HeaderValue, NATS_MESSAGE_ID};
use async_nats::{HeaderMap, Subject};
use pelton_core::effects::Event;
use pelton_core::transaction::{CAUSATION_ID, CORRELATION_ID, TRACEPARENT, VERSION};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error;

use super::PublishError;

/// An event in the client's words, but for its payload.
pub(super) struct Outbound {
    pub(super) subject: Subject,
    pub(super) headers: HeaderMap,
    /// Payload and headers, as the server counts them.
    pub(super) bytes: usize,
}

/// Headers that nearly all events have. Their names need no check and no memory of their own.
const WELL_KNOWN: [&str; 4] = [CORRELATION_ID, CAUSATION_ID, VERSION, TRACEPARENT];

pub(super) fn outbound(event: &Event) -> Result<Outbound, PublishError> {
    let invalid = |reason: String| PublishError::Invalid { subject: event.subject.clone(), reason: reason.into() };
    let subject = Subject::validated(&*event.subject).map_err(|error| invalid(error.to_string()))?;
    let mut headers = HeaderMap::new();
    // The header block begins with a version line and ends with an empty one.
    let mut bytes = event.payload.len() + "NATS/1.0\r\n\r\n".len();
    let mut append = |name: HeaderName, written: &str, content: &str| -> Result<(), PublishError> {
        let value = value(content).ok_or_else(|| invalid(format!("the value of header {written} has a line break")))?;
        bytes += written.len() + content.len() + ": \r\n".len();
        headers.append(name, value);
        Ok(())
    };
    append(NATS_MESSAGE_ID, "Nats-Msg-Id", &event.id)?;
    for (name, content) in &event.headers {
        let known = header_name(name).ok_or_else(|| invalid(format!("header name {name:?} is not one")))?;
        append(known, name, content)?;
    }
    Ok(Outbound { subject, headers, bytes })
}

fn header_name(name: &str) -> Option<HeaderName> {
    match WELL_KNOWN.into_iter().find(|known| *known == name) {
        Some(known) => Some(HeaderName::from_static(known)),
        None => name.parse().ok(),
    }
}

/// A header's value; none if it has a line break, which would end the header. The client's own ways to make one look for that character by character, but
/// for the one by which values are deserialized.
fn value(content: &str) -> Option<HeaderValue> {
    // Without a way out in the middle, so that many bytes are compared at once.
    let breaks = content.bytes().fold(false, |breaks, byte| breaks | (byte == b'\r') | (byte == b'\n'));
    if breaks {
        return None;
    }
    let content: serde::de::value::StrDeserializer<'_, Error> = content.into_deserializer();
    HeaderValue::deserialize(content).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(subject: &str, headers: &[(&str, &str)]) -> Event {
        let headers = headers.iter().map(|(name, content)| ((*name).into(), (*content).into())).collect();
        Event { id: "id-1".into(), subject: subject.into(), key: None, headers, payload: "four".into() }
    }

    #[test]
    fn headers_are_what_the_client_itself_would_make_of_them() {
        let given = [
            (VERSION, "ab"),
            (CORRELATION_ID, "größer"),
            ("Nats-Msg-Id", "second"),
            ("x", ""),
            ("X", "2"),
            ("x", "3"),
            ("Traceparent", "00"),
        ];
        let made = outbound(&event("s.a", &given)).unwrap();
        let mut expected = HeaderMap::new();
        let mut bytes = 4 + "NATS/1.0\r\n\r\n".len();
        for (name, content) in std::iter::once(("Nats-Msg-Id", "id-1")).chain(given) {
            expected.append(name, content);
            bytes += name.len() + content.len() + 4;
        }
        assert_eq!((made.subject.as_str(), made.headers, made.bytes), ("s.a", expected, bytes));
    }

    #[test]
    fn what_would_break_the_protocol_is_refused() {
        let long = format!("{}\n", "x".repeat(300));
        let cases: [(&str, &[(&str, &str)]); 7] = [
            ("s. a", &[]),
            ("", &[]),
            ("s.a", &[("x", "a\r\nb")]),
            ("s.a", &[("x", "\r")]),
            ("s.a", &[(VERSION, &long)]),
            ("s.a", &[("a:b", "x")]),
            ("s.a", &[("", "x"), ("a b", "x")]),
        ];
        for (subject, headers) in cases {
            let refused = outbound(&event(subject, headers)).err();
            assert!(matches!(refused, Some(PublishError::Invalid { .. })), "{subject:?} {headers:?}: {refused:?}");
        }
    }
}
