//! What a delivery's reply subject says about it: `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<nanoseconds>.<pending>`,
//! or the longer form with domain and account hash before the stream and a random token at the end.

/// The numbers in a reply subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AckReply {
    /// The message's sequence in the stream.
    pub(super) stream_sequence: u64,
    /// Counts the consumer's deliveries, redeliveries included; the first after a reset is 1.
    pub(super) consumer_sequence: u64,
    /// When the stream stored the message: nanoseconds since 1970-01-01 UTC.
    pub(super) published_ns: u64,
    /// Messages that the consumer had still to be given when this one left.
    pub(super) pending: u64,
}

impl AckReply {
    /// None if it is not the reply subject of a JetStream delivery.
    pub(super) fn parse(subject: &str) -> Option<Self> {
        let rest = subject.strip_prefix("$JS.ACK.")?;
        // Without the prefix the short form has seven tokens, the long one nine or more.
        let skipped = match rest.split('.').count() {
            7 => 3,
            9.. => 5,
            _ => return None,
        };
        let mut numbers = rest.split('.').skip(skipped).map(|token| token.parse::<u64>().ok());
        Some(Self {
            stream_sequence: numbers.next()??,
            consumer_sequence: numbers.next()??,
            published_ns: numbers.next()??,
            pending: numbers.next()??,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_others_refused() {
        let expected = AckReply {
            stream_sequence: 22,
            consumer_sequence: 12,
            published_ns: 1_795_394_154_577_336_596,
            pending: 2,
        };
        for good in [
            "$JS.ACK.ORDERS.pelton-a.1.22.12.1795394154577336596.2",
            "$JS.ACK.hub.ACCHASH.ORDERS.pelton-a.3.22.12.1795394154577336596.2",
            "$JS.ACK.hub.ACCHASH.ORDERS.pelton-a.1.22.12.1795394154577336596.2.random",
        ] {
            assert_eq!(AckReply::parse(good), Some(expected), "{good}");
        }
        for bad in ["", "_INBOX.a.b", "$JS.ACK.S.c.1.x.1.1.1", "$JS.ACK.S.c.1.2.3.4", "$JS.ACK.a.S.c.1.2.3.4.5"] {
            assert_eq!(AckReply::parse(bad), None, "{bad}");
        }
    }
}
