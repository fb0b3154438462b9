//! The headers of an event: those that tie it to the message that caused it and to its trace, and those that the plug-in gave it.

use super::{EmitRefused, Transaction};
use crate::trace::SpanIds;

/// The header that names the first message of a chain of causes.
pub const CORRELATION_ID: &str = "pelton-correlation-id";
/// The header that names the message whose handling emitted an event.
pub const CAUSATION_ID: &str = "pelton-causation-id";
/// The header that names the version of the plug-in that emitted an event: the digest of its component, in hex.
pub const VERSION: &str = "pelton-version";
/// The header that names a span (W3C Trace Context).
pub const TRACEPARENT: &str = "traceparent";
/// What vendors say of a trace; handed on as it is.
const TRACESTATE: &str = "tracestate";

type Header = (Box<str>, Box<str>);

impl Transaction {
    /// All headers of the next event.
    pub(super) fn event_headers(&self, given: &[(String, String)]) -> Vec<Header> {
        let message = &self.message;
        let correlation = message.header(CORRELATION_ID).unwrap_or(&message.id);
        // Three of the host's, and two that tell of a trace if there is one.
        let mut headers: Vec<Header> = Vec::with_capacity(5 + given.len());
        headers.push((CORRELATION_ID.into(), correlation.into()));
        headers.push((CAUSATION_ID.into(), message.id.clone()));
        headers.push((VERSION.into(), self.terms.version.clone()));
        let state = message.header(TRACESTATE).map(|value| (TRACESTATE.into(), value.into()));
        let carried = message.header(TRACEPARENT);
        if let Some(span) = self.trace {
            headers.push((TRACEPARENT.into(), span.event(self.events.len() as u64).to_string().into()));
            // The state of a trace that this one does not go on says nothing of it.
            headers.extend(state.filter(|_| carried.and_then(SpanIds::parse).is_some()));
        } else {
            headers.extend(carried.map(|value| (TRACEPARENT.into(), value.into())));
            headers.extend(state);
        }
        // There is one trace: the host's, where it keeps one.
        let is_trace = |name: &str| name.eq_ignore_ascii_case(TRACEPARENT) || name.eq_ignore_ascii_case(TRACESTATE);
        let given = given.iter().filter(|(name, _)| self.trace.is_none() || !is_trace(name));
        headers.extend(given.map(|(name, value)| (name.as_str().into(), value.as_str().into())));
        headers
    }
}

/// Whether a plug-in may give an event this header.
pub(super) fn check(name: &str, value: &str) -> Result<(), EmitRefused> {
    let begins_with = |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    let problem = if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic() && b != b':') {
        "its name is not printable ASCII without colons"
    } else if value.chars().any(char::is_control) {
        "its value holds a control character"
    } else if begins_with("nats-") || begins_with("pelton-") {
        "names that begin with Nats- or pelton- belong to NATS and the host"
    } else {
        return Ok(());
    };
    Err(EmitRefused::InvalidHeader(format!("header {name:?}: {problem}")))
}
