//! Reads what a stream holds, in order and without gaps, however often the server goes away meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use async_nats::jetstream::consumer::{Consumer, pull};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::de::DeserializeOwned;

use crate::client::Client;

/// Messages asked for in one go.
const BATCH_MAX: usize = 2_000;

/// One message as the stream holds it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// When the stream stored it: milliseconds since 1970-01-01 UTC.
    pub stored_at_ms: u64,
    /// The subject.
    pub subject: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// The payload.
    pub payload: Bytes,
}

impl Stored {
    /// The first header of this name, in whatever case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Its `Nats-Msg-Id`.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.header("Nats-Msg-Id")
    }

    /// Its payload as JSON.
    ///
    /// # Errors
    /// It is something else.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.payload)
            .with_context(|| format!("{} at sequence {} is not what was expected", self.subject, self.sequence))
    }
}

/// Reads a stream from its first message to its end and beyond.
#[derive(Debug)]
pub struct Reader {
    client: Client,
    stream: String,
    next: u64,
    consumer: Option<Consumer<pull::Config>>,
    /// What the consumer has delivered so far: a number that is skipped was lost on the way.
    delivered: u64,
}

impl Reader {
    pub(crate) fn new(client: Client, stream: &str) -> Self {
        Self { client, stream: stream.to_owned(), next: 1, consumer: None, delivered: 0 }
    }

    /// Begins again with the stream's first message: it was made anew.
    pub(crate) fn begin_again(&mut self) {
        self.next = 1;
        self.consumer = None;
    }

    /// What has come since, waiting up to `patience` for the first of it. Empty if nothing came, also if the server is away.
    pub async fn some(&mut self, patience: Duration) -> Vec<Stored> {
        match self.pull(patience).await {
            Ok(messages) => messages,
            Err(_) => {
                // The server is away, or has forgotten the consumer: a new one goes on where this one was.
                self.consumer = None;
                tokio::time::sleep(Duration::from_millis(20)).await;
                Vec::new()
            }
        }
    }

    /// Reads until `count` messages have come.
    ///
    /// # Errors
    /// They have not come within `limit`; the error says how many have.
    pub async fn take(&mut self, count: usize, limit: Duration) -> Result<Vec<Stored>> {
        let mut all = Vec::new();
        let deadline = Instant::now() + limit;
        while all.len() < count {
            if Instant::now() >= deadline {
                bail!(
                    "only {} of {count} messages came on stream {} in {} s",
                    all.len(),
                    self.stream,
                    limit.as_secs_f32()
                );
            }
            all.extend(self.some(Duration::from_millis(200)).await);
        }
        Ok(all)
    }

    async fn pull(&mut self, patience: Duration) -> Result<Vec<Stored>> {
        if self.consumer.is_none() {
            self.consumer = Some(self.client.ephemeral(&self.stream, self.next).await?);
            self.delivered = 0;
        }
        let consumer = self.consumer.clone().context("there is a consumer")?;
        let mut found = self.batch(consumer.fetch().max_messages(BATCH_MAX).messages().await?).await?;
        if found.is_empty() {
            found = self.batch(consumer.batch().max_messages(1).expires(patience).messages().await?).await?;
        }
        if let Some(last) = found.last() {
            self.next = last.sequence + 1;
        }
        Ok(found)
    }

    async fn batch(&mut self, mut batch: pull::Batch) -> Result<Vec<Stored>> {
        let mut found = Vec::new();
        while let Some(message) = batch.next().await {
            let message = message.map_err(|error| anyhow::anyhow!("the reader of {}: {error}", self.stream))?;
            let info = message.info().map_err(|error| anyhow::anyhow!("{error}"))?;
            self.delivered += 1;
            ensure!(info.consumer_sequence == self.delivered, "messages were lost on the way");
            let headers = message.headers.iter().flat_map(|map| map.iter());
            let headers =
                headers.flat_map(|(name, values)| values.iter().map(move |v| (name.to_string(), v.to_string())));
            found.push(Stored {
                sequence: info.stream_sequence,
                stored_at_ms: u64::try_from(info.published.unix_timestamp_nanos() / 1_000_000).unwrap_or(0),
                subject: message.subject.to_string(),
                headers: headers.collect(),
                payload: message.payload.clone(),
            });
        }
        Ok(found)
    }
}
