//! What Pelton is compared with: programs that a careful engineer would write over the same work, each run as a process of its own so that the kernel
//! counts what it costs.
//!
//! A contestant handles the messages of one stream and leaves its events in the output stream. It stays when it is done, until it is killed: the harness sees from
//! outside when that is, and reads the process's counters first.

mod by_hand;
mod floor;
mod postgres;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::{self, Message};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

pub(crate) use postgres::Cluster;

use super::figures::{DATABASE_CPU_US, DATABASE_WRITTEN_BYTES, Reading};
use super::meter::{Meter, us_per_message};
use super::stage::{OUTPUT, Stage};
use super::work::{Expected, Work, must_be_right};
use crate::process::{Process, tail};
use crate::wait;

/// The work itself, as the plug-in does it.
#[path = "../../../guests/order-counter/src/work.rs"]
#[allow(missing_docs, reason = "it is the plug-in's own file")]
mod order_counter;

/// How long a contestant may take to begin.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The durable consumer that a contestant reads by.
const CONSUMER: &str = "contestant";

/// What handles the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Contestant {
    /// Consumes with ack-all, and publishes as many events of the same size: what broker and client library cost.
    Floor,
    /// The same, each event with a `Nats-Msg-Id`.
    FloorWithIds,
    /// One loop: a durable redb transaction for each message, its event published and awaited, then the ack.
    ByHand,
    /// An inbox and an outbox in PostgreSQL, one transaction for each message, eight connections that share the keys.
    Postgres,
}

/// What a contestant is told: on its command line, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    contestant: Contestant,
    /// Where the server is.
    url: String,
    /// The stream to read.
    stream: String,
    /// Messages to handle, and the events that they lead to.
    messages: u64,
    events: u64,
    /// A directory of its own.
    directory: PathBuf,
    /// PostgreSQL's port, for who needs it.
    database: Option<u16>,
}

impl Contestant {
    /// Runs it over the first `messages` of the stage's work.
    ///
    /// # Errors
    /// It fails, does not finish, or does something wrong.
    pub(crate) async fn run(self, stage: &Stage, messages: u64, database: Option<&Cluster>) -> Result<Reading> {
        stage.clear().await?;
        if let Some(cluster) = database {
            cluster.clear().await?;
        }
        let expected = Expected::after(&stage.work, messages);
        let server = stage.server_cpu_ms()?;
        let database_before = database.map(Cluster::meter).transpose()?.unwrap_or_default();
        let running = self.start(stage, messages, expected.events(), database.map(Cluster::port))?;
        stage.wait_events(expected.events(), || running.log_tail()).await?;
        let mut reading = Meter::of(running.process.pid())?.since(&Meter::default(), messages);
        let server = stage.server_cpu_ms()?.saturating_sub(server);
        if let Some(cluster) = database {
            let meter = cluster.meter()?;
            let cpu_ms = meter.cpu_ms.saturating_sub(database_before.cpu_ms);
            let written = meter.written_bytes.saturating_sub(database_before.written_bytes);
            reading.insert(DATABASE_CPU_US.to_owned(), us_per_message(cpu_ms, messages));
            reading.insert(DATABASE_WRITTEN_BYTES.to_owned(), written as f64 / messages.max(1) as f64);
        }
        reading.extend(stage.pace(1, expected.events(), messages, server).await?);
        if !matches!(self, Self::Floor | Self::FloorWithIds) {
            must_be_right(&format!("{self:?}"), expected.check(&stage.client, OUTPUT).await?)?;
        }
        Ok(reading)
    }

    /// Starts it as a process: it handles `messages` of the stage's first stream, as they come, and leaves so many events.
    ///
    /// # Errors
    /// It can't be started.
    pub(crate) fn start(self, stage: &Stage, messages: u64, events: u64, database: Option<u16>) -> Result<Running> {
        let directory = TempDir::with_prefix("pelton-contestant-")?;
        let task = Task {
            contestant: self,
            url: stage.nats.url(),
            stream: Work::stream(0),
            messages,
            events,
            directory: directory.path().to_path_buf(),
            database,
        };
        let log = directory.path().join("log");
        let mut command = Command::new(std::env::current_exe().context("where this program is")?);
        command.arg("contestant").arg(serde_json::to_string(&task)?);
        let process = Process::spawn("contestant", &mut command, &log)?;
        Ok(Running { process, log, _directory: directory })
    }
}

/// A contestant's process. Killed when it is dropped, before its directory goes.
pub(crate) struct Running {
    process: Process,
    log: PathBuf,
    _directory: TempDir,
}

impl Running {
    /// Waits until it has made its durable consumer: the next that it does is to pull.
    ///
    /// # Errors
    /// It doesn't.
    pub(crate) async fn wait_reading(&self, stage: &Stage) -> Result<()> {
        let waiting = wait::until("the contestant begins to read", START_LIMIT, || async {
            let names = stage.client.consumer_names(&Work::stream(0)).await?;
            Ok(names.iter().any(|name| name == CONSUMER).then_some(()))
        });
        waiting.await.with_context(|| self.log_tail())
    }

    /// The last that it said.
    pub(crate) fn log_tail(&self) -> String {
        tail(&self.log, 30)
    }
}

/// What a contestant's process does: the work, and then nothing until it is killed.
///
/// # Errors
/// The task can't be read, or the work fails.
pub async fn perform(task: &str) -> Result<()> {
    let task: Task = serde_json::from_str(task).context("the task of a contestant")?;
    match task.contestant {
        Contestant::Floor => floor::run(&task, false).await?,
        Contestant::FloorWithIds => floor::run(&task, true).await?,
        Contestant::ByHand => by_hand::run(&task).await?,
        Contestant::Postgres => postgres::run(&task).await?,
    }
    fs::write(task.directory.join("done"), "")?;
    std::future::pending().await
}

/// A connection as a contestant makes it: with room for what a large pull brings.
async fn connect(task: &Task) -> Result<async_nats::Client> {
    let options = async_nats::ConnectOptions::new().client_capacity(65_536).subscription_capacity(65_536);
    options.connect(&task.url).await.with_context(|| format!("can't connect to {}", task.url))
}

/// The messages of the task's stream, pulled in batches of this size.
async fn messages(client: &async_nats::Client, task: &Task, ack: AckPolicy, batch: usize) -> Result<pull::Stream> {
    let stream = jetstream::new(client.clone()).get_stream(&task.stream).await.context("the stream of the work")?;
    let config = pull::Config {
        durable_name: Some(CONSUMER.to_owned()),
        ack_policy: ack,
        max_ack_pending: 100_000,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await.context("a consumer of the work")?;
    consumer.stream().max_messages_per_batch(batch).messages().await.context("pulling the work")
}

/// What the work needs of a message.
struct Delivery {
    id: String,
    key: String,
    subject: String,
    sequence: u64,
}

impl Delivery {
    fn of(message: &Message) -> Result<Self> {
        let Some(id) = message.headers.as_ref().and_then(|headers| headers.get("Nats-Msg-Id")) else {
            bail!("a message without an id");
        };
        let info = message.info().map_err(|error| anyhow::anyhow!("{error}"))?;
        let key = message.subject.split('.').nth(1).context("a subject of two tokens")?;
        Ok(Self {
            id: id.as_str().to_owned(),
            key: key.to_owned(),
            subject: format!("out.{}", message.subject),
            sequence: info.stream_sequence,
        })
    }

    /// The headers of its event: the same id whenever it is published.
    fn event_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", format!("contestant:{}", self.sequence).as_str());
        headers
    }
}
