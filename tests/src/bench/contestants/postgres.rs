//! Inbox and outbox in PostgreSQL: what a team writes that has a database. For each message one transaction that marks the id, changes the key's state and puts the
//! event into the outbox; then the ack. A relay publishes what is in the outbox and deletes it.
//!
//! Eight connections share the keys, so that the order per key is kept while commits overlap. The settings are the server's defaults, but for its address.

mod cluster;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_nats::jetstream::consumer::AckPolicy;
use async_nats::jetstream::{self, Message};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_postgres::{Client, Statement};

pub(crate) use cluster::Cluster;

use super::{Delivery, Task, order_counter};

/// Connections that handle messages.
const WORKERS: usize = 8;

/// Messages that wait for one of them.
const QUEUE: usize = 256;

/// Events that the relay takes at a time.
const RELAY_BATCH: usize = 500;

/// How long the relay sleeps when there is nothing to publish.
const RELAY_PAUSE: Duration = Duration::from_millis(2);

/// What there is besides the defaults.
const TABLES: &str = "
    CREATE TABLE processed (id text PRIMARY KEY, at timestamptz NOT NULL DEFAULT now());
    CREATE TABLE state (key text PRIMARY KEY, value bytea NOT NULL);
    CREATE TABLE outbox (number bigserial PRIMARY KEY, id text NOT NULL, subject text NOT NULL, payload bytea NOT NULL);
";

pub(super) async fn run(task: &Task) -> Result<()> {
    let port = task.database.context("a database was started for this contestant")?;
    let client = super::connect(task).await?;
    let mut tasks = JoinSet::new();
    let relay = Relay { database: cluster::connect(port).await?, jetstream: jetstream::new(client.clone()) };
    tasks.spawn(relay.run());
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let worker = Worker::new(cluster::connect(port).await?).await?;
        tasks.spawn(worker.run(receiver));
        workers.push(sender);
    }
    let mut messages = super::messages(&client, task, AckPolicy::Explicit, 5_000).await?;
    for _ in 0..task.messages {
        let message = tokio::select! {
            message = messages.next() => message.context("the pull has ended")?.context("a message of the work")?,
            Some(ended) = tasks.join_next() => {
                ended.context("a part of the contestant was cancelled")??;
                bail!("a part of the contestant has ended early");
            }
        };
        let delivery = Delivery::of(&message)?;
        let worker = workers.get(place(&delivery.key)).context("there are workers")?;
        worker.send((message, delivery)).await.ok().context("a worker has ended early")?;
    }
    drop(workers);
    // The workers end when they have done what they were given, or with an error. The relay goes on.
    for _ in 0..WORKERS {
        tasks.join_next().await.context("there are workers")?.context("a worker was cancelled")??;
    }
    client.flush().await.context("sending the last acknowledgements")?;
    tasks.detach_all();
    Ok(())
}

fn place(key: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    usize::try_from(hasher.finish() % WORKERS as u64).unwrap_or(0)
}

/// One connection, and the messages of its keys.
struct Worker {
    database: Client,
    mark: Statement,
    read: Statement,
    write: Statement,
    emit: Statement,
}

impl Worker {
    async fn new(database: Client) -> Result<Self> {
        let prepare = |text: &'static str| database.prepare(text);
        Ok(Self {
            mark: prepare("INSERT INTO processed (id) VALUES ($1) ON CONFLICT DO NOTHING").await?,
            read: prepare("SELECT value FROM state WHERE key = $1").await?,
            write: prepare(
                "INSERT INTO state (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            )
            .await?,
            emit: prepare("INSERT INTO outbox (id, subject, payload) VALUES ($1, $2, $3)").await?,
            database,
        })
    }

    async fn run(mut self, mut queue: mpsc::Receiver<(Message, Delivery)>) -> Result<()> {
        while let Some((message, delivery)) = queue.recv().await {
            self.apply(&delivery, &message.payload).await.context("a transaction")?;
            message.ack().await.map_err(|error| anyhow::anyhow!("can't acknowledge: {error}"))?;
        }
        Ok(())
    }

    async fn apply(&mut self, delivery: &Delivery, payload: &[u8]) -> Result<()> {
        let Delivery { id, key, subject, sequence } = delivery;
        let transaction = self.database.transaction().await?;
        if transaction.execute(&self.mark, &[id]).await? == 0 {
            // It was handled before. Dropped, the transaction is rolled back.
            return Ok(());
        }
        let row = transaction.query_opt(&self.read, &[key]).await?;
        let before: Option<Vec<u8>> = row.map(|row| row.try_get(0)).transpose()?;
        let done = order_counter::handle(payload, before.as_deref(), key, id, *sequence)?;
        transaction.execute(&self.write, &[key, &done.state]).await?;
        transaction.execute(&self.emit, &[&format!("contestant:{sequence}"), subject, &done.event]).await?;
        Ok(transaction.commit().await?)
    }
}

/// Publishes what is in the outbox, in its order, and deletes what is stored.
struct Relay {
    database: Client,
    jetstream: jetstream::Context,
}

impl Relay {
    async fn run(self) -> Result<()> {
        let text = format!("SELECT number, id, subject, payload FROM outbox ORDER BY number LIMIT {RELAY_BATCH}");
        let next = self.database.prepare(&text).await?;
        let delete = self.database.prepare("DELETE FROM outbox WHERE number = ANY($1)").await?;
        loop {
            let rows = self.database.query(&next, &[]).await.context("reading the outbox")?;
            if rows.is_empty() {
                tokio::time::sleep(RELAY_PAUSE).await;
                continue;
            }
            let mut numbers: Vec<i64> = Vec::with_capacity(rows.len());
            let mut acks = Vec::with_capacity(rows.len());
            for row in &rows {
                let (id, subject): (String, String) = (row.try_get(1)?, row.try_get(2)?);
                let payload: Vec<u8> = row.try_get(3)?;
                let mut headers = async_nats::HeaderMap::new();
                headers.insert("Nats-Msg-Id", id.as_str());
                acks.push(self.jetstream.publish_with_headers(subject, headers, payload.into()).await?);
                numbers.push(row.try_get(0)?);
            }
            for ack in acks {
                ack.await.context("an event was not stored")?;
            }
            self.database.execute(&delete, &[&numbers]).await.context("emptying the outbox")?;
        }
    }
}
