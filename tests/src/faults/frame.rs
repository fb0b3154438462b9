//! As much of the NATS protocol as it takes to cut a stream of bytes into frames and to say what a frame is.

use bytes::{Bytes, BytesMut};

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Client,
    Server,
}

/// What a frame is, as far as a fault asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A client settles a message, or says that it works on it.
    Ack,
    /// A client publishes a message of its own.
    Event,
    /// JetStream says that it has stored a message.
    PubAck,
    /// Anything else.
    Other,
}

/// One control line, with its payload if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) bytes: Bytes,
}

/// Takes the next whole frame out of what was received. None: it has not come as a whole yet.
pub(super) fn next_frame(received: &mut BytesMut, from: Origin) -> Option<Frame> {
    let line_ends = received.windows(2).position(|pair| pair == b"\r\n")?;
    let line = String::from_utf8_lossy(received.get(..line_ends)?).into_owned();
    let mut words = line.split_ascii_whitespace();
    let verb = words.next().unwrap_or_default();
    let subject = words.next().unwrap_or_default();
    let body_begins = line_ends + 2;
    let has_payload = ["MSG", "HMSG", "PUB", "HPUB"].iter().any(|known| verb.eq_ignore_ascii_case(known));
    if !has_payload {
        return Some(Frame { kind: Kind::Other, bytes: received.split_to(body_begins).freeze() });
    }
    let size: usize = words.last().and_then(|size| size.parse().ok()).unwrap_or(0);
    let whole = body_begins + size + 2;
    if received.len() < whole {
        return None;
    }
    let bytes = received.split_to(whole).freeze();
    let payload = bytes.get(body_begins..).unwrap_or_default();
    let kind = match from {
        Origin::Client if subject.starts_with("$JS.ACK.") => Kind::Ack,
        Origin::Client if !subject.starts_with("$JS.") => Kind::Event,
        // Answers of JetStream's API begin with their type.
        Origin::Server if payload.starts_with(b"{\"stream\":") => Kind::PubAck,
        _ => Kind::Other,
    };
    Some(Frame { kind, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(bytes: &[u8], from: Origin) -> (Vec<Kind>, usize) {
        let mut received = BytesMut::from(bytes);
        let kinds = std::iter::from_fn(|| next_frame(&mut received, from).map(|frame| frame.kind)).collect();
        (kinds, received.len())
    }

    #[test]
    fn payloads_belong_to_their_line_whatever_they_hold() {
        let bytes = b"PING\r\nPUB $JS.ACK.S.c.1.2.3.4.5 4\r\n+ACK\r\nHPUB out.a _INBOX.x 12 14\r\nNATS/1.0\r\n\r\n\r\n\r\nPUB a 9\r\nhalf";
        assert_eq!(
            frames(bytes, Origin::Client),
            (vec![Kind::Other, Kind::Ack, Kind::Event], b"PUB a 9\r\nhalf".len())
        );
    }

    #[test]
    fn what_jetstream_says_of_a_stored_message_is_told_from_its_other_answers() {
        let stored = "{\"stream\":\"OUT\",\"seq\":7}";
        let other = "{\"type\":\"io.nats.jetstream.api.v1.stream_info_response\"}";
        let bytes =
            format!("MSG _INBOX.a.7 1 {}\r\n{stored}\r\nMSG _INBOX.b 2 {}\r\n{other}\r\n", stored.len(), other.len());
        assert_eq!(frames(bytes.as_bytes(), Origin::Server), (vec![Kind::PubAck, Kind::Other], 0));
    }
}
