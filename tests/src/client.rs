//! The harness's own NATS client: it publishes and looks at streams, and knows nothing of the host's.

use std::time::Duration;

use anyhow::{Context, Result};
use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{Consumer, FromConsumer, pull};
use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::object_store;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, Stream};
use async_nats::jetstream::{self};
use bytes::Bytes;

use crate::reader::Reader;

/// How long the server may take for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// What a stream is made of.
#[derive(Clone, Debug)]
pub struct StreamSpec {
    /// Its name.
    pub name: String,
    /// The subjects that it stores.
    pub subjects: Vec<String>,
    /// Whether a message is deleted when it is acknowledged.
    pub work_queue: bool,
    /// How long JetStream itself drops messages of a known id.
    pub duplicate_window: Duration,
}

impl StreamSpec {
    /// A stream with limits retention that keeps everything, and the default window of two minutes.
    #[must_use]
    pub fn new(name: &str, subject: &str) -> Self {
        Self {
            name: name.to_owned(),
            subjects: vec![subject.to_owned()],
            work_queue: false,
            duplicate_window: Duration::from_secs(120),
        }
    }

    /// The same as a work queue.
    #[must_use]
    pub fn work_queue(mut self) -> Self {
        self.work_queue = true;
        self
    }

    /// The same with another duplicate window.
    #[must_use]
    pub fn duplicate_window(mut self, window: Duration) -> Self {
        self.duplicate_window = window;
        self
    }
}

/// A message to publish.
#[derive(Clone, Debug, Default)]
pub struct Outgoing {
    /// Its subject.
    pub subject: String,
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// Its payload.
    pub payload: Bytes,
}

impl Outgoing {
    /// A message without headers.
    pub fn new(subject: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self { subject: subject.into(), headers: Vec::new(), payload: payload.into() }
    }

    /// The same with one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The same with a `Nats-Msg-Id`.
    #[must_use]
    pub fn id(self, id: impl Into<String>) -> Self {
        self.header("Nats-Msg-Id", id)
    }
}

/// A connection.
#[derive(Clone, Debug)]
pub struct Client {
    raw: async_nats::Client,
    jetstream: jetstream::Context,
}

impl Client {
    /// Connects; later losses of the connection are repaired in the background.
    ///
    /// # Errors
    /// The server does not answer or refuses.
    pub async fn connect(url: &str, login: Option<&(String, String)>) -> Result<Self> {
        let mut options = async_nats::ConnectOptions::new()
            .reconnect_delay_callback(|_| Duration::from_millis(50))
            .connection_timeout(ANSWER_LIMIT);
        if let Some((user, password)) = login {
            options = options.user_and_password(user.clone(), password.clone());
        }
        let raw = options.connect(url).await.with_context(|| format!("can't connect to {url}"))?;
        let jetstream =
            jetstream::ContextBuilder::new().timeout(ANSWER_LIMIT).ack_timeout(ANSWER_LIMIT).build(raw.clone());
        Ok(Self { raw, jetstream })
    }

    /// Creates a stream.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn create_stream(&self, spec: &StreamSpec) -> Result<()> {
        let retention = if spec.work_queue { RetentionPolicy::WorkQueue } else { RetentionPolicy::Limits };
        let config = Config {
            name: spec.name.clone(),
            subjects: spec.subjects.clone(),
            retention,
            discard: DiscardPolicy::Old,
            duplicate_window: spec.duplicate_window,
            ..Config::default()
        };
        self.jetstream.create_stream(config).await.with_context(|| format!("can't create stream {}", spec.name))?;
        Ok(())
    }

    /// Puts an object into a bucket of an object store, which is made if it is missing.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn put_object(&self, bucket: &str, name: &str, bytes: &[u8]) -> Result<()> {
        let store = match self.jetstream.get_object_store(bucket).await {
            Ok(store) => store,
            Err(_) => {
                let config = object_store::Config { bucket: bucket.to_owned(), ..object_store::Config::default() };
                self.jetstream
                    .create_object_store(config)
                    .await
                    .with_context(|| format!("can't create bucket {bucket}"))?
            }
        };
        store.put(name, &mut &*bytes).await.with_context(|| format!("can't put object {name}"))?;
        Ok(())
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// There is none, or the server refuses.
    pub async fn delete_object(&self, bucket: &str, name: &str) -> Result<()> {
        let store = self.jetstream.get_object_store(bucket).await?;
        store.delete(name).await.with_context(|| format!("can't delete object {name}"))
    }

    /// Deletes a stream.
    ///
    /// # Errors
    /// There is none, or the server refuses.
    pub async fn delete_stream(&self, name: &str) -> Result<()> {
        self.jetstream.delete_stream(name).await.with_context(|| format!("can't delete stream {name}"))?;
        Ok(())
    }

    /// Publishes and waits until JetStream has stored it. Gives its stream sequence.
    ///
    /// # Errors
    /// It was not acknowledged; it may be stored all the same.
    pub async fn publish(&self, message: &Outgoing) -> Result<u64> {
        let ack =
            self.send(message).await?.await.with_context(|| format!("no ack for a message to {}", message.subject))?;
        Ok(ack.sequence)
    }

    /// Publishes; what it gives resolves to the ack.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send(&self, message: &Outgoing) -> Result<PublishAckFuture> {
        let mut headers = HeaderMap::new();
        for (name, value) in &message.headers {
            headers.append(name.as_str(), value.as_str());
        }
        let sent = self.jetstream.publish_with_headers(message.subject.clone(), headers, message.payload.clone()).await;
        sent.with_context(|| format!("can't publish to {}", message.subject))
    }

    /// Publishes in order with many in flight; returns when JetStream has stored all of them.
    ///
    /// # Errors
    /// One was not acknowledged.
    pub async fn publish_all(&self, messages: &[Outgoing]) -> Result<()> {
        for window in messages.chunks(512) {
            let mut acks = Vec::with_capacity(window.len());
            for message in window {
                acks.push(self.send(message).await?);
            }
            for ack in acks {
                ack.await.context("a message was not acknowledged")?;
            }
        }
        Ok(())
    }

    /// Reads a stream from its first message.
    #[must_use]
    pub fn read(&self, stream: &str) -> Reader {
        Reader::new(self.clone(), stream)
    }

    /// How many messages a stream holds, and its last sequence.
    ///
    /// # Errors
    /// There is no such stream, or the server does not answer.
    pub async fn stream_size(&self, name: &str) -> Result<(u64, u64)> {
        let mut stream = self.stream(name).await?;
        let state = &stream.info().await.with_context(|| format!("can't ask about stream {name}"))?.state;
        Ok((state.messages, state.last_sequence))
    }

    /// When the stream stored a message: milliseconds since 1970-01-01 UTC.
    ///
    /// # Errors
    /// There is no such message, or the server does not answer.
    pub async fn stored_at_ms(&self, stream: &str, sequence: u64) -> Result<u64> {
        let message = self.stream(stream).await?.get_raw_message(sequence).await;
        let message = message.with_context(|| format!("no message {sequence} in stream {stream}"))?;
        Ok(u64::try_from(message.time.unix_timestamp_nanos() / 1_000_000)?)
    }

    /// The names of the stream's durable consumers.
    ///
    /// # Errors
    /// There is no such stream, or the server does not answer.
    pub async fn consumer_names(&self, name: &str) -> Result<Vec<String>> {
        use futures_util::TryStreamExt;
        let stream = self.stream(name).await?;
        stream.consumer_names().try_collect().await.with_context(|| format!("can't list the consumers of {name}"))
    }

    /// Deletes a durable consumer.
    ///
    /// # Errors
    /// There is none, or the server refuses.
    pub async fn delete_consumer(&self, stream: &str, name: &str) -> Result<()> {
        let deleted = self.stream(stream).await?.delete_consumer(name).await;
        deleted.map(|_| ()).with_context(|| format!("can't delete consumer {name} of {stream}"))
    }

    /// Deletes a durable consumer and makes it anew with the same settings: it has forgotten how far it was.
    ///
    /// # Errors
    /// There is none, or the server refuses.
    pub async fn recreate_consumer(&self, stream: &str, name: &str) -> Result<()> {
        let raw = self.stream(stream).await?;
        let consumer: Consumer<pull::Config> =
            raw.get_consumer(name).await.map_err(|error| anyhow::anyhow!("no consumer {name} of {stream}: {error}"))?;
        let config = pull::Config::try_from_consumer_config(consumer.cached_info().config.clone());
        let config = config.map_err(|error| anyhow::anyhow!("consumer {name} of {stream} doesn't pull: {error}"))?;
        self.delete_consumer(stream, name).await?;
        let created = raw.create_consumer(config).await;
        created.map(|_| ()).with_context(|| format!("can't create consumer {name} of {stream} anew"))
    }

    /// Resets a durable consumer to the stream's first message.
    ///
    /// # Errors
    /// There is none, or the server refuses.
    pub async fn reset_consumer(&self, stream: &str, name: &str) -> Result<()> {
        let reset = self.stream(stream).await?.reset_consumer(name, Some(1)).await;
        reset.map(|_| ()).with_context(|| format!("can't reset consumer {name} of {stream}"))
    }

    /// A pull consumer without a name, from this sequence on, that needs no acks.
    pub(crate) async fn ephemeral(&self, stream: &str, from: u64) -> Result<Consumer<pull::Config>> {
        let config = pull::Config {
            ack_policy: jetstream::consumer::AckPolicy::None,
            deliver_policy: jetstream::consumer::DeliverPolicy::ByStartSequence { start_sequence: from },
            inactive_threshold: Duration::from_secs(30),
            memory_storage: true,
            ..pull::Config::default()
        };
        let stream = self.stream(stream).await?;
        stream.create_consumer(config).await.context("can't create the reader's consumer")
    }

    /// Waits until everything sent so far has left this process.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn flush(&self) -> Result<()> {
        self.raw.flush().await.context("can't flush")
    }

    async fn stream(&self, name: &str) -> Result<Stream> {
        self.jetstream.get_stream(name).await.with_context(|| format!("no stream {name}"))
    }
}
