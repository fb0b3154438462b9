//! The trace that a message belongs to, as the header `traceparent` of W3C Trace Context names it.
//!
//! An event's span id follows from that of the attempt that emitted it and from the event's number, and the attempt's can be found again from both. So an event
//! carries its trace in the header that is stored with it, and whatever publishes it, also after a restart, knows which span it is and what caused it.

use std::fmt;

/// A span: its trace, its own id, and whether somebody records it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanIds {
    /// The trace's id; never 0.
    pub trace: u128,
    /// The span's id; never 0.
    pub span: u64,
    /// Whether the trace is recorded.
    pub sampled: bool,
}

/// Spreads the numbers of events over all ids, and no number over 0.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

impl SpanIds {
    /// Reads a `traceparent`; none if it is not one. What a later version of the standard adds behind the fields of the first is passed over.
    #[must_use]
    pub fn parse(traceparent: &str) -> Option<Self> {
        let mut fields = traceparent.trim().split('-');
        let version = hex(fields.next()?, 2)?;
        let (trace, span, flags) = (fields.next()?, fields.next()?, fields.next()?);
        let is_first = version == 0;
        if version == 0xff || (is_first && fields.next().is_some()) {
            return None;
        }
        let (trace, span, flags) = (hex(trace, 32)?, u64::try_from(hex(span, 16)?).ok()?, hex(flags, 2)?);
        (trace != 0 && span != 0).then_some(Self { trace, span, sampled: flags & 1 == 1 })
    }

    /// The span of the attempt's event of this number, from 0.
    #[must_use]
    pub fn event(self, number: u64) -> Self {
        let span = self.span ^ SPREAD.wrapping_mul(number.wrapping_add(1));
        // One in 2^64: then the event is told under the attempt's own id.
        Self { span: if span == 0 { self.span } else { span }, ..self }
    }

    /// The attempt that emitted the event of this number, whose span this is.
    #[must_use]
    pub fn cause(self, number: u64) -> Self {
        self.event(number)
    }
}

impl fmt::Display for SpanIds {
    /// As a `traceparent`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

/// Lower-case hexadecimal digits, exactly so many.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_hex = text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_hex { u128::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_and_written_as_it_was() {
        let ids = SpanIds::parse(TRACEPARENT).unwrap();
        assert_eq!((ids.span, ids.sampled), (0x00f0_67aa_0ba9_02b7, true));
        assert_eq!(ids.to_string(), TRACEPARENT);
        let later = TRACEPARENT.replacen("00", "cc", 1) + "-what-comes-later";
        assert_eq!(SpanIds::parse(&later), Some(ids));
        assert!(!SpanIds::parse(&TRACEPARENT.replace("-01", "-02")).unwrap().sampled);
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        for text in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-+0f067aa0ba902b7-01",
        ] {
            assert_eq!(SpanIds::parse(text), None, "{text}");
        }
    }

    #[test]
    fn each_event_has_an_id_of_its_own_that_leads_back_to_its_attempt() {
        let attempt = SpanIds::parse(TRACEPARENT).unwrap();
        let mut seen = std::collections::BTreeSet::from([attempt.span]);
        for number in 0..10_000 {
            let event = attempt.event(number);
            assert!(seen.insert(event.span), "{number}");
            assert_eq!((event.trace, event.cause(number)), (attempt.trace, attempt));
        }
    }
}
