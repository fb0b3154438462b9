//! Publishes rows to JetStream, many in flight, in order.
//!
//! A row leaves with two headers: `row-id`, by which the consumers deduplicate, and `Nats-Msg-Id`, by which the broker does. A duplicate is the same row
//! again some hundreds of rows later, as from a publisher that sends again after the broker's memory of ids is over: it has only the `row-id`, so the broker
//! takes it and the host must see that it is the same.

use std::collections::VecDeque;
use std::future::IntoFuture;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::{self, context::PublishAckFuture};
use bytes::Bytes;

use crate::row::Row;

/// Publishes that wait for their acknowledgement at a time.
const IN_FLIGHT_MAX: usize = 1_024;
/// Rows between a row and its duplicate.
const DUPLICATE_DISTANCE: u64 = 500;
/// Rows from one poison message to the next.
const POISON_DISTANCE: u64 = 100;
/// How long an acknowledgement may take.
const ACK_WAIT: Duration = Duration::from_secs(10);

/// What to publish besides the rows, and how fast.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Of a hundred rows, so many are published twice.
    pub duplicates_percent: u8,
    /// Messages that can't be added up, one behind every hundredth row and of its customer, until there are so many: JSON that breaks off, and rows whose
    /// price is no number.
    pub poison: u64,
    /// Rows a second; none: as fast as they are acknowledged.
    pub rate: Option<u32>,
}

/// What was published and acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Rows, each counted once.
    pub rows: u64,
    /// Copies of rows.
    pub duplicates: u64,
    /// Messages that can't be added up.
    pub poison: u64,
    /// How many of all these the broker had already, by its own memory of ids.
    pub known_to_broker: u64,
}

impl Report {
    /// Messages that the stream holds because of this.
    #[must_use]
    pub fn stored(&self) -> u64 {
        self.rows + self.duplicates + self.poison - self.known_to_broker
    }
}

/// Why publishing ended early. What was acknowledged until then stays.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// No connection.
    #[error("no connection to NATS at {url}")]
    Connect {
        /// Where it was tried.
        url: String,
        /// Why.
        source: async_nats::ConnectError,
    },
    /// The broker did not take a message.
    #[error(
        "{id} was not stored on {subject}: a stream must take retail.lines.> (the host makes it from the manifest of totals)"
    )]
    NotStored {
        /// The message's id.
        id: String,
        /// Where it was to go.
        subject: String,
        /// Why.
        source: jetstream::context::PublishError,
    },
    /// The broker did not answer.
    #[error("{id} was not acknowledged on {subject} within {} s", ACK_WAIT.as_secs())]
    Silent {
        /// The message's id.
        id: String,
        /// Where it was to go.
        subject: String,
    },
    /// The row can't be written as JSON.
    #[error("{id} can't be written as JSON")]
    Json {
        /// The row's id.
        id: String,
        /// Why.
        source: serde_json::Error,
    },
}

/// Publishes rows in order and waits until all are acknowledged. `progress` is called with the number of rows acknowledged so far, after each.
///
/// # Errors
/// At the first message that the broker does not take: going on would put the rest of its customer's rows in front of it.
pub async fn publish(
    url: &str,
    rows: impl IntoIterator<Item = Row>,
    options: &Options,
    progress: impl FnMut(u64),
) -> Result<Report, PublishError> {
    let client =
        async_nats::connect(url).await.map_err(|source| PublishError::Connect { url: url.to_owned(), source })?;
    let jetstream = jetstream::new(client);
    let mut publisher = Publisher { jetstream, progress, in_flight: VecDeque::new(), report: Report::default() };
    let mut pace = Pace::new(options.rate);
    let mut duplicates: VecDeque<(u64, Row)> = VecDeque::new();
    for (position, row) in (1_u64..).zip(rows) {
        pace.wait().await;
        publisher.send(Kind::Row, &row).await?;
        if position.is_multiple_of(POISON_DISTANCE) && position / POISON_DISTANCE <= options.poison {
            publisher.send(Kind::Poison, &row).await?;
        }
        if is_repeated(row.number, options.duplicates_percent) {
            duplicates.push_back((position + DUPLICATE_DISTANCE, row));
        }
        while let Some((_, row)) = duplicates.pop_front_if(|(due, _)| *due <= position) {
            publisher.send(Kind::Duplicate, &row).await?;
        }
    }
    for (_, row) in duplicates {
        publisher.send(Kind::Duplicate, &row).await?;
    }
    while publisher.settle_oldest().await? {}
    Ok(publisher.report)
}

/// Whether this row is one of those that are published twice: the same ones in every run.
fn is_repeated(number: u64, percent: u8) -> bool {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 < u64::from(percent.min(100)) * (1 << 32) / 100
}

/// What a message is to the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Row,
    Duplicate,
    Poison,
}

struct Publisher<P> {
    jetstream: jetstream::Context,
    progress: P,
    /// In the order in which they left, which is that in which they are answered.
    in_flight: VecDeque<InFlight>,
    report: Report,
}

struct InFlight {
    kind: Kind,
    id: String,
    subject: String,
    ack: PublishAckFuture,
}

impl<P: FnMut(u64)> Publisher<P> {
    async fn send(&mut self, kind: Kind, row: &Row) -> Result<(), PublishError> {
        while self.in_flight.len() >= IN_FLIGHT_MAX {
            self.settle_oldest().await?;
        }
        let subject = row.subject();
        let id = match kind {
            Kind::Row | Kind::Duplicate => row.id.clone(),
            Kind::Poison => format!("poison-{}", row.id),
        };
        let payload = payload(kind, row).map_err(|source| PublishError::Json { id: id.clone(), source })?;
        let mut headers = HeaderMap::new();
        headers.insert("row-id", id.as_str());
        if kind != Kind::Duplicate {
            headers.insert("Nats-Msg-Id", id.as_str());
        }
        let sent = self.jetstream.publish_with_headers(subject.clone(), headers, payload);
        match tokio::time::timeout(ACK_WAIT, sent).await {
            Ok(Ok(ack)) => self.in_flight.push_back(InFlight { kind, id, subject, ack }),
            Ok(Err(source)) => return Err(PublishError::NotStored { id, subject, source }),
            Err(_) => return Err(PublishError::Silent { id, subject }),
        }
        Ok(())
    }

    /// Waits for the answer to the oldest message in flight; false if there is none.
    async fn settle_oldest(&mut self) -> Result<bool, PublishError> {
        let Some(InFlight { kind, id, subject, ack }) = self.in_flight.pop_front() else { return Ok(false) };
        let ack = match tokio::time::timeout(ACK_WAIT, ack.into_future()).await {
            Ok(Ok(ack)) => ack,
            Ok(Err(source)) => return Err(PublishError::NotStored { id, subject, source }),
            Err(_) => return Err(PublishError::Silent { id, subject }),
        };
        match kind {
            Kind::Row => self.report.rows += 1,
            Kind::Duplicate => self.report.duplicates += 1,
            Kind::Poison => self.report.poison += 1,
        }
        self.report.known_to_broker += u64::from(ack.duplicate);
        if kind == Kind::Row {
            (self.progress)(self.report.rows);
        }
        Ok(true)
    }
}

/// A row's JSON. Poison is, in turns, JSON that breaks off and a row whose price is no number.
fn payload(kind: Kind, row: &Row) -> Result<Bytes, serde_json::Error> {
    if kind != Kind::Poison {
        return serde_json::to_vec(row).map(Bytes::from);
    }
    if (row.number / POISON_DISTANCE).is_multiple_of(2) {
        return serde_json::to_vec(&Row { unit_price: "free".to_owned(), ..row.clone() }).map(Bytes::from);
    }
    Ok(Bytes::from_static(b"{\"InvoiceNo\":\"5363"))
}

/// Keeps to a number of rows a second, in steps of ten milliseconds.
struct Pace {
    interval: Option<Duration>,
    due: Instant,
}

impl Pace {
    fn new(rate: Option<u32>) -> Self {
        let interval = rate.and_then(|rate| Duration::from_secs(1).checked_div(rate));
        Self { interval, due: Instant::now() }
    }

    async fn wait(&mut self) {
        const STEP: Duration = Duration::from_millis(10);
        let Some(interval) = self.interval else { return };
        self.due += interval;
        let ahead = self.due.saturating_duration_since(Instant::now());
        if ahead > STEP {
            tokio::time::sleep(ahead).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_rows_published_twice_is_what_was_asked_for() {
        for percent in [0, 5, 50, 100] {
            let repeated = (1..=10_000).filter(|number| is_repeated(*number, percent)).count();
            let expected = usize::from(percent) * 100;
            assert!(repeated.abs_diff(expected) <= 150, "{repeated} of {expected} at {percent}%");
        }
    }

    #[test]
    fn poison_is_never_a_row_that_can_be_added_up() {
        let rows: Vec<Row> = crate::generate(1).take(200).collect();
        let broken = payload(Kind::Poison, &rows[99]).unwrap();
        assert!(serde_json::from_slice::<Row>(&broken).is_err());
        let priceless: Row = serde_json::from_slice(&payload(Kind::Poison, &rows[199]).unwrap()).unwrap();
        assert!(priceless.unit_price.parse::<f64>().is_err());
    }
}
