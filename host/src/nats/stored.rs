//! Single messages of a stream, fetched from its store through JetStream's JSON, where nothing that a publisher wrote can break the client.
//!
//! A message as the protocol delivers it is parsed by the client library, which ends the connection, or panics, on header bytes that it doesn't
//! expect; the server stores them all the same. Here headers come as base64, are read by the library's own rules, and those that break them give a
//! *flaw* instead: the reason why the message can't be given to a plug-in, with as much of it as can be read.

use async_nats::jetstream::response::Response;
use async_nats::jetstream::{Context, ErrorCode};
use async_nats::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use bytes::Bytes;
use pelton_core::message::Headers;
use serde::{Deserialize, Serialize};

use super::base64;

/// Most characters of a bad header line that a flaw shows.
const SHOWN_MAX: usize = 80;

/// A message as its stream keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) sequence: u64,
    pub(super) subject: Box<str>,
    /// As a delivery would have them; if there is a flaw, as many as can be read.
    pub(super) headers: Headers,
    pub(super) payload: Bytes,
    /// When the stream stored it: nanoseconds since 1970-01-01 UTC.
    pub(super) stored_ns: u64,
    /// Why the client library can't read it.
    pub(super) flaw: Option<Box<str>>,
}

/// Which message.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Which<'a> {
    /// Exactly this one, or the first from here on.
    seq: u64,
    /// The first whose subject matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_by_subj: Option<&'a str>,
}

impl<'a> Which<'a> {
    /// The message with this sequence.
    pub(super) fn exactly(sequence: u64) -> Self {
        Self { seq: sequence, next_by_subj: None }
    }

    /// The first message from this sequence on that is on these subjects.
    pub(super) fn first_from(sequence: u64, subjects: &'a str) -> Self {
        Self { seq: sequence, next_by_subj: Some(subjects) }
    }
}

/// Why there is no answer, in words. What is wrong is mostly the connection, and then its end follows.
pub(super) type Trouble = String;

#[derive(Deserialize)]
struct Got {
    message: Raw,
}

#[derive(Deserialize)]
struct Raw {
    subject: String,
    seq: u64,
    /// Base64.
    #[serde(default)]
    hdrs: String,
    /// Base64.
    #[serde(default)]
    data: String,
    /// RFC 3339.
    time: String,
}

/// A message of a stream; none if it has none like that.
pub(super) async fn get(jetstream: &Context, stream: &str, which: Which<'_>) -> Result<Option<Stored>, Trouble> {
    let answer: Result<Response<Got>, _> = jetstream.request(format!("STREAM.MSG.GET.{stream}"), &which).await;
    match answer {
        Ok(Response::Ok(Got { message })) => stored(message).map(Some),
        Ok(Response::Err { error }) if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => Ok(None),
        Ok(Response::Err { error }) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

#[derive(Serialize)]
struct Deletion {
    seq: u64,
    no_erase: bool,
}

#[derive(Deserialize)]
struct Deleted {
    success: bool,
}

/// Removes a message from a stream. One that is gone already is no trouble.
pub(super) async fn remove(jetstream: &Context, stream: &str, sequence: u64) -> Result<(), Trouble> {
    let deletion = Deletion { seq: sequence, no_erase: true };
    let answer: Result<Response<Deleted>, _> =
        jetstream.request(format!("STREAM.MSG.DELETE.{stream}"), &deletion).await;
    let trouble = match answer {
        Ok(Response::Ok(Deleted { success: true })) => return Ok(()),
        Ok(Response::Ok(Deleted { success: false })) => "the server did not delete it".to_owned(),
        Ok(Response::Err { error }) => error.to_string(),
        Err(error) => return Err(error.to_string()),
    };
    match get(jetstream, stream, Which::exactly(sequence)).await? {
        None => Ok(()),
        Some(_) => Err(trouble),
    }
}

fn stored(raw: Raw) -> Result<Stored, Trouble> {
    let unusable = |what: &str| format!("the server's answer about message {} has {what}", raw.seq);
    let block = base64::decode(&raw.hdrs).ok_or_else(|| unusable("headers that are no base64"))?;
    let payload = base64::decode(&raw.data).ok_or_else(|| unusable("a payload that is no base64"))?;
    let time: jiff::Timestamp = raw.time.parse().map_err(|_| unusable("a time that is none"))?;
    let (headers, bad_headers) = match parse(&block) {
        Ok(map) => (sorted(&map), None),
        Err(why) => (readable(&block), Some(why.into())),
    };
    let flaw = bad_headers.or_else(|| subject_flaw(&raw.subject, !block.is_empty()).map(Into::into));
    Ok(Stored {
        sequence: raw.seq,
        subject: raw.subject.as_str().into(),
        headers,
        payload: payload.into(),
        stored_ns: u64::try_from(time.as_nanosecond()).unwrap_or(0),
        flaw,
    })
}

/// What the client can't read of a subject. The server's JSON has the replacement character where the bytes were no UTF-8.
fn subject_flaw(subject: &str, has_headers: bool) -> Option<String> {
    let splits = |found: char| if has_headers { found.is_whitespace() } else { found == ' ' };
    if subject.contains(char::REPLACEMENT_CHARACTER) {
        Some("its subject is not UTF-8".to_owned())
    } else if subject.contains(splits) {
        Some("its subject holds white space".to_owned())
    } else {
        None
    }
}

/// Reads a header block as the client library reads that of a delivery. The text says what it would not take.
fn parse(block: &[u8]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    if block.is_empty() {
        return Ok(headers);
    }
    let text = std::str::from_utf8(block).map_err(|error| {
        let line = block.split(|byte| *byte == b'\n').find(|line| std::str::from_utf8(line).is_err());
        format!("its headers are not UTF-8 ({error}): {}", shown(line.unwrap_or(block)))
    })?;
    let mut lines = text.lines().peekable();
    let version = lines.next().unwrap_or_default();
    let Some(status) = version.strip_prefix("NATS/1.0").map(str::trim) else {
        return Err(format!("its headers don't begin with their version: {}", shown(version.as_bytes())));
    };
    let code = status.split_once(' ').map_or(status, |(code, _)| code.trim());
    if !code.is_empty() && code.parse::<StatusCode>().is_err() {
        return Err(format!("its headers begin with a status that is none: {}", shown(version.as_bytes())));
    }
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let (name, value) =
            line.split_once(':').ok_or_else(|| format!("a header has no colon: {}", shown(line.as_bytes())))?;
        let name: HeaderName =
            name.parse().map_err(|_| format!("a header has a name that is none: {}", shown(line.as_bytes())))?;
        let mut value = value.trim_start().to_owned();
        while let Some(more) = lines.next_if(|line| line.starts_with(char::is_whitespace)) {
            value.push_str(more);
        }
        let value: HeaderValue = value
            .trim_end()
            .parse()
            .map_err(|_| format!("the value of a header has a line break: {}", shown(line.as_bytes())))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// What can be made out of a header block that breaks the rules: whatever has a colon, with the replacement character for bytes that are no text.
fn readable(block: &[u8]) -> Headers {
    let text = String::from_utf8_lossy(block);
    let named = text.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    let mut headers: Headers = named.map(|(name, value)| (name.trim().into(), value.trim().into())).collect();
    headers.retain(|(name, _)| !name.is_empty());
    headers.sort_by(|a, b| a.0.cmp(&b.0));
    headers
}

fn shown(bytes: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(bytes).chars().take(SHOWN_MAX).collect();
    format!("{text:?}")
}

/// Headers as messages have them: sorted by name, the values of one name in the order in which they came.
pub(super) fn sorted(headers: &HeaderMap) -> Headers {
    let mut pairs: Headers = headers
        .iter()
        .flat_map(|(name, values)| {
            let name: &str = name.as_ref();
            values.iter().map(move |value| (name.into(), value.as_str().into()))
        })
        .collect();
    pairs.sort_by(|a: &(Box<str>, Box<str>), b| a.0.cmp(&b.0));
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(headers: &[u8]) -> Raw {
        let time = "2026-11-23T16:00:00.000000007Z".to_owned();
        Raw { subject: "s".into(), seq: 1, hdrs: base64::encode(headers), data: String::new(), time }
    }

    #[test]
    fn sound_headers_are_read_and_have_no_flaw() {
        let found = stored(raw(b"NATS/1.0\r\nb: 1\r\na:x y \r\nb: 0\r\n\r\n")).unwrap();
        let expected: Headers = [("a", "x y"), ("b", "1"), ("b", "0")].map(|(n, v)| (n.into(), v.into())).into();
        assert_eq!((found.flaw, found.headers), (None, expected));
        assert_eq!(found.stored_ns, 1_795_449_600_000_000_007);
    }

    #[test]
    fn each_way_to_break_the_client_is_a_flaw_and_the_rest_stays_readable() {
        for (block, reason) in [
            (&b"NATS/1.0\r\nk: v\r\nx: a\rb\r\n\r\n"[..], "line break"),
            (b"NATS/1.0\r\nk: v\r\nx: \xff\xfe\r\n\r\n", "not UTF-8"),
            (b"NATS/1.0\r\nk: v\r\nno colon here\r\n\r\n", "no colon"),
            (b"NATS/1.0\r\nk: v\r\nx y: 1\r\n\r\n", "name that is none"),
            (b"NATS/1.0 oops\r\nk: v\r\n\r\n", "status"),
            (b"HTTP/1.1\r\nk: v\r\n\r\n", "version"),
        ] {
            let found = stored(raw(block)).unwrap();
            let flaw = found.flaw.unwrap_or_else(|| panic!("no flaw in {:?}", String::from_utf8_lossy(block)));
            assert!(flaw.contains(reason), "{flaw}");
            assert!(found.headers.contains(&("k".into(), "v".into())), "{:?}", found.headers);
        }
    }

    #[test]
    fn subjects_that_the_protocol_line_cant_carry_are_flaws() {
        assert!(subject_flaw("s.\u{fffd}", false).is_some());
        assert!(subject_flaw("s.\u{a0}x", true).is_some() && subject_flaw("s.\u{a0}x", false).is_none());
        assert!(subject_flaw("s.x", true).is_none());
    }
}
