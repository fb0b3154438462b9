//! Lists in pages: which messages a request wants, where the next page begins, and how much of the store one request may read.
//!
//! A page ends at its limit, or when it has read as much as one request may, also if nothing of it was wanted: an answer never takes
//! longer or more memory because the store is full. The next page's address is in the header `Link`, as in RFC 8288.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Json, Response};
use pelton_core::ids::{ConsumerId, ParkId};
use pelton_core::parked::{ParkLane, ParkPlace};
use pelton_core::transaction::ReadError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::form_urlencoded;

use super::failed::Failed;
use crate::store::{StoredDeadLetter, StoredParked};

/// Messages of one page, at most and by default.
pub(super) const PAGE_MAX: usize = 1_000;
const PAGE_DEFAULT: usize = 100;
/// Messages that one request looks at, at most.
const LOOKED_AT_MAX: usize = 10_000;
/// The memory of what one request keeps, and of what it looks at, in bytes: it ends once it has passed one of them.
const KEPT_BYTES_MAX: usize = 4 << 20;
const LOOKED_AT_BYTES_MAX: usize = 64 << 20;
/// Messages read from the store at once: with the largest payloads that NATS takes by default, 16 MiB.
const CHUNK: usize = 16;

/// Why messages are parked.
const PARKED_CAUSES: [&str; 6] = ["exhausted", "retrying", "asked", "gap", "behind", "replayed"];
/// Why messages are dead letters.
const DEAD_CAUSES: [&str; 5] = ["unreadable", "rejected", "exhausted", "parked-too-long", "gap-never-filled"];

/// The query of a list.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Of this consumer; none: of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) consumer: Option<String>,
    /// Of this ordering key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<String>,
    /// With this cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cause: Option<String>,
    /// Parked, or given up, at least so long ago, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) older_than_ms: Option<u64>,
    /// Messages of the page, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) limit: Option<usize>,
    /// Without headers, payload and history.
    #[serde(default)]
    pub(super) brief: bool,
    /// Where the page before ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<String>,
}

/// What the messages have to be like.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    key: Option<String>,
    cause: Option<String>,
    /// Milliseconds since 1970-01-01 UTC.
    until_ms: Option<u64>,
}

impl Filter {
    /// For parked messages.
    pub(super) fn parked(key: Option<&str>, cause: Option<&str>, until_ms: Option<u64>) -> Result<Self, Failed> {
        Self::new(key, known(cause, &PARKED_CAUSES)?, until_ms)
    }

    /// For dead letters.
    pub(super) fn dead(key: Option<&str>, cause: Option<&str>, until_ms: Option<u64>) -> Result<Self, Failed> {
        Self::new(key, known(cause, &DEAD_CAUSES)?, until_ms)
    }

    fn new(key: Option<&str>, cause: Option<&str>, until_ms: Option<u64>) -> Result<Self, Failed> {
        Ok(Self { key: key.map(str::to_owned), cause: cause.map(str::to_owned), until_ms })
    }

    fn takes(&self, key: Option<&str>, cause: &str, at_ms: u64) -> bool {
        self.key.as_deref().is_none_or(|wanted| key == Some(wanted))
            && self.cause.as_deref().is_none_or(|wanted| cause == wanted)
            && self.until_ms.is_none_or(|until| at_ms <= until)
    }

    pub(super) fn takes_parked(&self, found: &StoredParked) -> bool {
        let row = &found.row;
        self.takes(row.message.key.as_deref(), row.cause.kind(), row.parked_at_ms)
    }

    pub(super) fn takes_dead(&self, found: &StoredDeadLetter) -> bool {
        let letter = &found.letter;
        self.takes(letter.message.key.as_deref(), letter.cause.kind(), letter.at_ms)
    }

    /// Whether it takes whatever there is.
    pub(super) fn takes_all(&self) -> bool {
        self.key.is_none() && self.cause.is_none() && self.until_ms.is_none()
    }
}

fn known<'a>(cause: Option<&'a str>, causes: &[&str]) -> Result<Option<&'a str>, Failed> {
    match cause {
        Some(unknown) if !causes.contains(&unknown) => {
            Err(Failed::bad(format!("there is no cause {unknown:?}; known are: {}", causes.join(", "))))
        }
        known => Ok(known),
    }
}

impl Wanted {
    pub(super) fn page_size(&self) -> Result<usize, Failed> {
        match self.limit.unwrap_or(PAGE_DEFAULT) {
            0 => Err(Failed::bad("limit is at least 1")),
            limit => Ok(limit.min(PAGE_MAX)),
        }
    }

    /// Where a page of this list begins that follows on `after`.
    fn link(&self, path: &str, after: &impl Cursor) -> Result<HeaderValue, Failed> {
        let mut next = form_urlencoded::Serializer::new(String::new());
        let numbers = [self.older_than_ms, self.limit.map(|limit| limit as u64)].map(|n| n.map(|n| n.to_string()));
        let [older_than_ms, limit] = &numbers;
        let texts = [
            ("consumer", &self.consumer),
            ("key", &self.key),
            ("cause", &self.cause),
            ("older_than_ms", older_than_ms),
            ("limit", limit),
        ];
        next.extend_pairs(texts.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))));
        if self.brief {
            next.append_pair("brief", "true");
        }
        next.append_pair("after", &after.text());
        HeaderValue::from_str(&format!("<{path}?{}>; rel=\"next\"", next.finish())).map_err(Failed::internal)
    }
}

/// A place in a list, as text that only this module reads.
pub(super) trait Cursor: Sized {
    fn text(&self) -> String;
    fn parse(text: &str) -> Option<Self>;
    fn read(text: Option<&str>) -> Result<Option<Self>, Failed> {
        let unknown = |text| Failed::bad(format!("{text:?} is no place in this list: take it from the page before"));
        text.map(|text| Self::parse(text).ok_or_else(|| unknown(text))).transpose()
    }
}

/// A place among parked messages.
pub(super) type ParkedCursor = (ConsumerId, ParkPlace);
/// A place among dead letters: consumer, sequence, and when its stream stored it.
pub(super) type DeadCursor = (ConsumerId, u64, u64);

impl Cursor for ParkedCursor {
    fn text(&self) -> String {
        let (consumer, ParkPlace { lane, order, id }) = self;
        match lane {
            ParkLane::Key(key) => format!("k.{}.{order}.{}.{key}", consumer.0, id.0),
            ParkLane::Alone(lane) => format!("a.{}.{order}.{}.{}", consumer.0, id.0, lane.0),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(5, '.');
        let kind = parts.next()?;
        let consumer = ConsumerId(parts.next()?.parse().ok()?);
        let order = parts.next()?.parse().ok()?;
        let id = ParkId(parts.next()?.parse().ok()?);
        let lane = match (kind, parts.next()?) {
            ("k", key) => ParkLane::Key(key.into()),
            ("a", id) => ParkLane::Alone(ParkId(id.parse().ok()?)),
            _ => return None,
        };
        Some((consumer, ParkPlace { lane, order, id }))
    }
}

impl Cursor for DeadCursor {
    fn text(&self) -> String {
        format!("{}.{}.{}", self.0.0, self.1, self.2)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '.');
        let mut number = || parts.next()?.parse::<u64>().ok();
        let (consumer, sequence, published_at_ms) = (number()?, number()?, number()?);
        Some((ConsumerId(u32::try_from(consumer).ok()?), sequence, published_at_ms))
    }
}

pub(super) fn place_of_parked(found: &StoredParked) -> ParkedCursor {
    (found.consumer, found.row.place())
}

pub(super) fn place_of_dead(found: &StoredDeadLetter) -> DeadCursor {
    (found.consumer, found.letter.message.sequence, found.letter.message.published_at_ms)
}

/// What a request found, and where it ended if there may be more.
pub(super) struct Found<T, C> {
    pub(super) items: Vec<T>,
    pub(super) next: Option<C>,
}

impl<T, C: Cursor> Found<T, C> {
    /// The answer: the items as a list, and the next page's address in a header.
    pub(super) fn answer<V: Serialize>(
        self,
        wanted: &Wanted,
        path: &str,
        view: impl FnMut(T) -> V,
    ) -> Result<Response, Failed> {
        let link = self.next.map(|after| wanted.link(path, &after)).transpose()?;
        let mut response = Json(self.items.into_iter().map(view).collect::<Vec<_>>()).into_response();
        if let Some(link) = link {
            response.headers_mut().insert(header::LINK, link);
        }
        Ok(response)
    }
}

/// Reads on behind `after` and keeps what is wanted, up to `limit` of it, or until it has read enough for one request. Blocks.
pub(super) fn scan<T, C: Clone>(
    mut after: Option<C>,
    limit: usize,
    read: impl Fn(Option<C>, usize) -> Result<Vec<T>, ReadError>,
    look: impl Fn(&T) -> (C, usize, bool),
) -> Result<Found<T, C>, ReadError> {
    let mut items = Vec::new();
    let (mut looked_at, mut looked_at_bytes, mut kept_bytes) = (0, 0, 0);
    loop {
        let chunk = read(after.clone(), CHUNK)?;
        if chunk.is_empty() {
            return Ok(Found { items, next: None });
        }
        for item in chunk {
            let (place, weight, wanted) = look(&item);
            after = Some(place);
            looked_at += 1;
            looked_at_bytes += weight;
            if wanted {
                kept_bytes += weight;
                items.push(item);
            }
            let full = items.len() >= limit || kept_bytes >= KEPT_BYTES_MAX;
            if full || looked_at >= LOOKED_AT_MAX || looked_at_bytes >= LOOKED_AT_BYTES_MAX {
                return Ok(Found { items, next: after });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_survives_the_way_to_the_client_and_back() {
        let places = ["", "a.b.c", "k.1.2.3", "ä ö/ü?&=%"].map(|key| ParkLane::Key(key.into()));
        for lane in places.into_iter().chain([ParkLane::Alone(ParkId(u64::MAX))]) {
            let place: ParkedCursor = (ConsumerId(7), ParkPlace { lane, order: u64::MAX, id: ParkId(12) });
            assert_eq!(ParkedCursor::parse(&place.text()), Some(place));
        }
        let dead: DeadCursor = (ConsumerId(7), 12, u64::MAX);
        assert_eq!(DeadCursor::parse(&dead.text()), Some(dead));
        assert!(["", "k.1.2", "x.1.2.3.4", "a.1.2.3.b", "k.-1.2.3.a"].iter().all(|t| ParkedCursor::parse(t).is_none()));
        assert!(["", "1.2", "1.2.3.4", "a.2.3"].iter().all(|text| DeadCursor::parse(text).is_none()));
    }

    #[test]
    fn a_scan_ends_at_its_limit_and_goes_on_where_it_ended() {
        let read = |after: Option<u64>, limit: usize| {
            let from = after.map_or(0, |after| after + 1);
            Ok::<_, ReadError>((from..100).take(limit).collect::<Vec<u64>>())
        };
        let look = |n: &u64| (*n, 1, n.is_multiple_of(3));
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let found = scan(after, 5, read, look).expect("reads");
            assert!(found.items.len() <= 5);
            all.extend(found.items);
            after = found.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(all, (0..100).step_by(3).collect::<Vec<u64>>());
    }

    #[test]
    fn a_scan_that_finds_nothing_ends_after_what_one_request_may_read() {
        let read = |after: Option<u64>, limit: usize| {
            let from = after.map_or(0, |after| after + 1);
            Ok::<_, ReadError>((from..).take(limit).collect::<Vec<u64>>())
        };
        let found = scan(None, 5, read, |n| (*n, 1, false)).expect("reads");
        assert_eq!((found.items.len(), found.next), (0, Some(LOOKED_AT_MAX as u64 - 1)));
        let found = scan(None, 50, read, |n| (*n, 1 << 20, true)).expect("reads");
        assert_eq!((found.items.len(), found.next), (4, Some(3)), "large messages make small pages");
    }
}
