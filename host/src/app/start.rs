//! Builds a host: its threads, its connections, its tasks.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use flume::{Receiver, Sender, unbounded};
use pelton_core::{Core, KnownConsumer, OutboxRow, Recovered, Settings};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::deploying::Deploying;
use super::host::Host;
use crate::admin::{Admin, AdminServer, Secret};
use crate::board::Board;
use crate::clock::Clock;
use crate::config::{AdminConfig, Credentials, HostConfig, NatsServer};
use crate::deploy::{Dependencies, Deployer, Desk, Watcher};
use crate::driver::{Driver, FailedVersion, Hands, Note};
use crate::durability::{self, CheckpointSettings, Durability};
use crate::executor::{self, Shared};
use crate::faults;
use crate::nats::{ConnectSettings, Connection, EmbeddedServer, Objects, Publisher};
use crate::observe::Observer;
use crate::relay::{self, Refusals};
use crate::room::Room;
use crate::source::Sources;
use crate::store::{self, Opened};
use crate::telemetry::meters::Meters;
use crate::telemetry::recent::Recent;
use crate::telemetry::traces::{Endpoint, Exporting, Traces};
use crate::versions::Versions;
use crate::wasm::{self, KEPT_PER_THREAD, Sandbox};

/// Runs for each executor thread that may be out, however long they take.
const RUNS_PER_EXECUTOR: usize = 4;
/// The same while they are short.
const SHORT_RUNS_PER_EXECUTOR: usize = 64;
/// Largest memory that a manifest may ask for, in bytes; the same bound as the configuration's.
const MEMORY_BYTES_MAX: usize = 1 << 30;

/// The directory of versions of plug-ins, below the data directory.
const VERSIONS: &str = "versions";
/// Versions that failed and that the deployer was not told of yet: each consumer has one at most.
const FAILED_VERSIONS_MAX: usize = 1_000;

/// Where threads leave what can be seen of them.
struct Seen {
    board: Arc<Board>,
    meters: Arc<Meters>,
    traces: Option<Arc<Traces>>,
}

/// The host's own threads. They end one after the other once the driver has.
pub(super) struct Threads {
    /// How the driver ended.
    pub(super) ended: oneshot::Receiver<anyhow::Result<()>>,
    pub(super) shared: Arc<Shared>,
    driver: JoinHandle<()>,
    executors: Vec<JoinHandle<()>>,
    durability: Durability,
    heartbeat: Arc<AtomicU64>,
}

impl Threads {
    fn start(
        config: &HostConfig,
        opened: Opened,
        clock: Clock,
        links: &Links,
        seen: &Seen,
        channels: (Sender<Note>, Receiver<Note>, mpsc::Sender<FailedVersion>),
        observer: Option<Observer>,
    ) -> anyhow::Result<Self> {
        let Opened { reader, log, checkpointer, recovered } = opened;
        let (notes, for_driver, failed) = channels;
        let count = match config.limits.executor_threads {
            0 => std::thread::available_parallelism().map_or(2, usize::from),
            count => count,
        };
        let sandbox = Arc::new(sandbox(config, count)?);
        let seed = recovered.seed;
        let draining = AtomicBool::new(false);
        let shared = Arc::new(Shared {
            sandbox,
            reader: Arc::clone(&reader),
            board: Arc::clone(&seen.board),
            clock,
            draining,
            seed,
            observer,
            meters: Arc::clone(&seen.meters),
            traces: seen.traces.clone(),
        });
        let (to_executors, work) = unbounded();
        let (to_committer, batches) = unbounded();
        let executors = executor::start(count, &shared, &work, &notes).context("starting executor threads")?;
        let checkpoints = CheckpointSettings {
            interval: Duration::from_millis(config.store.checkpoint_interval_ms),
            overlay_bytes_max: config.store.overlay_bytes_max,
            meters: Arc::clone(&seen.meters),
            traces: seen.traces.clone(),
        };
        let durability = durability::start(log, checkpointer, &reader, checkpoints, clock, batches, &notes)
            .context("starting the committer and the checkpointer")?;
        let heartbeat = Arc::new(AtomicU64::new(0));
        let hands = Hands {
            executors: to_executors,
            committer: to_committer,
            publisher: links.publisher.handle(),
            reader,
            failed,
            heartbeat: Arc::clone(&heartbeat),
            traces: seen.traces.clone(),
        };
        let settings = Settings {
            runs_max: count * RUNS_PER_EXECUTOR,
            short_runs_max: count * SHORT_RUNS_PER_EXECUTOR,
            executors: count,
            relay_in_flight_max: config.limits.relay_in_flight_max,
            jitter_seed: seed,
            breaks: faults::breaks()?,
            ..Settings::default()
        };
        let driver = Driver::new(Core::new(settings, known(recovered)), clock, for_driver, hands);
        let (end, ended) = oneshot::channel();
        let driver = std::thread::Builder::new()
            .name("driver".into())
            .spawn(move || driver.run(end))
            .context("starting the driver thread")?;
        Ok(Self { ended, shared, driver, executors, durability, heartbeat })
    }

    /// Waits for all of them, after the driver has ended.
    pub(super) fn join(self) {
        // A thread that panicked has told the driver, or was it.
        _ = self.driver.join();
        for executor in self.executors {
            _ = executor.join();
        }
        self.durability.join();
    }
}

/// The ways to NATS and back.
pub(super) struct Links {
    pub(super) consuming: Arc<Connection>,
    pub(super) publishing: Connection,
    pub(super) publisher: Publisher,
    refusals: Arc<Refusals>,
    settings: ConnectSettings,
}

impl Links {
    fn open(
        config: &HostConfig,
        server: Option<&EmbeddedServer>,
        notes: &Sender<Note>,
        cancel: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let connect = connect_settings(config, server)?;
        let consuming = Arc::new(Connection::open(connect.clone(), "consume", cancel));
        let publishing = Connection::open(connect.clone(), "publish", cancel);
        let refusals = Arc::new(Refusals::default());
        let publisher = Publisher::start(&publishing, relay::sink(Arc::clone(&refusals), notes.clone()));
        Ok(Self { consuming, publishing, publisher, refusals, settings: connect })
    }
}

impl Host {
    /// Starts everything. The consumers follow, as the deployment task finds them.
    pub(super) async fn start(
        config: &HostConfig,
        opened: Opened,
        server: Option<&EmbeddedServer>,
        cancel: &CancellationToken,
        observer: Option<Observer>,
    ) -> anyhow::Result<Self> {
        let token = config.admin.as_ref().map(Secret::of).transpose()?.flatten();
        let clock = Clock::start();
        let (notes, for_driver) = unbounded();
        let links = Links::open(config, server, &notes, cancel)?;
        let reader = Arc::clone(&opened.reader);
        let (failed, failed_versions) = mpsc::channel(FAILED_VERSIONS_MAX);
        let versions = Arc::new(Versions::open(&config.store.path.join(VERSIONS))?);
        let (desk, requests) = Desk::open(failed_versions);
        let meters = Arc::<Meters>::default();
        let (traces, exporting) = start_traces(config, opened.recovered.seed, &meters)?;
        let board = Arc::new(Board::default());
        let seen = Seen { board: Arc::clone(&board), meters: Arc::clone(&meters), traces };
        let channels = (notes.clone(), for_driver, failed);
        let threads = Threads::start(config, opened, clock, &links, &seen, channels, observer)?;
        let deployed = Arc::new(AtomicBool::new(false));
        let room = Room::new(&config.store.path, config.store.free_bytes_min);
        tokio::spawn(cancel.clone().run_until_cancelled_owned(Arc::clone(&room).watch(notes.clone())));
        let recent = start_sampling(&notes, &meters, clock, cancel);
        let admin = Admin {
            notes: notes.clone(),
            board: Arc::clone(&board),
            meters: Arc::clone(&meters),
            recent,
            store: config.store.path.clone(),
            reader: Arc::clone(&reader),
            clock,
            heartbeat: Arc::clone(&threads.heartbeat),
            connections: [links.consuming.status(), links.publishing.status()],
            deployed: Arc::clone(&deployed),
            refusals: Arc::clone(&links.refusals),
            token,
            nats: links.settings.clone(),
            manifests: config.consumers.clone(),
            room,
            overlay_bytes_max: config.store.overlay_bytes_max,
            versions: Arc::clone(&versions),
            desk,
        };
        let admin = start_admin(config, admin, cancel).await?;
        let sources = sources(config, &links, &board)?;
        let dependencies = Dependencies {
            directory: config.consumers.clone(),
            sources: Arc::new(sources),
            mark_ttl_ms: mark_ttl_ms(config),
            sandbox: Arc::clone(&threads.shared.sandbox),
            versions,
            connection: Arc::clone(&links.consuming),
            reader,
            board,
            meters,
            notes: notes.clone(),
            clock,
        };
        let deployer = Deployer::new(dependencies, requests);
        let (watcher, changes) = Watcher::new()?;
        let no_more_deployments = cancel.child_token();
        let deploying =
            Deploying { deployer, watcher, changes, watch: config.watch, deployed, stop: no_more_deployments.clone() };
        let deploying = tokio::spawn(deploying.run());
        Ok(Self { notes, threads, links, deploying, no_more_deployments, admin, exporting, cancel: cancel.clone() })
    }
}

/// Listens for operators, unless that is switched off.
async fn start_admin(
    config: &HostConfig,
    admin: Admin,
    cancel: &CancellationToken,
) -> anyhow::Result<Option<AdminServer>> {
    let Some(AdminConfig { address, .. }) = &config.admin else { return Ok(None) };
    Ok(Some(AdminServer::start(Arc::new(admin), *address, &config.store.path, cancel.child_token()).await?))
}

/// The sandbox for so many executor threads, with what was compiled before.
fn sandbox(config: &HostConfig, count: usize) -> anyhow::Result<Sandbox> {
    let mut sandbox = Sandbox::new(&wasm::Settings {
        instances_max: u32::try_from(count).unwrap_or(u32::MAX).saturating_add(2),
        kept_max: u32::try_from(count).unwrap_or(u32::MAX).saturating_mul(KEPT_PER_THREAD),
        memory_bytes_max: MEMORY_BYTES_MAX,
        component_bytes_max: config.limits.component_bytes_max,
    })?;
    let compiled = config.store.path.join(VERSIONS).join("compiled");
    if let Err(error) = sandbox.keep_compiled(&compiled) {
        tracing::warn!(directory = %compiled.display(), %error, "compiled components can't be kept: each start compiles them anew");
    }
    Ok(sandbox)
}

/// Where components come from.
fn sources(config: &HostConfig, links: &Links, board: &Arc<Board>) -> anyhow::Result<Sources> {
    let directory = config.store.path.join("sources");
    let context = format!("preparing {}", directory.display());
    let objects = Objects::new(Arc::clone(&links.consuming));
    let bytes_max = config.limits.component_bytes_max;
    Sources::new(directory, bytes_max, config.oci.clone(), objects, Arc::clone(board)).context(context)
}

/// Figures of the last minute, until the host ends.
fn start_sampling(notes: &Sender<Note>, meters: &Arc<Meters>, clock: Clock, cancel: &CancellationToken) -> Arc<Recent> {
    let recent = Arc::new(Recent::default());
    let sampling = Arc::clone(&recent).watch(notes.clone(), Arc::clone(meters), clock);
    tokio::spawn(cancel.clone().run_until_cancelled_owned(sampling));
    recent
}

/// Traces, if a collector is named.
fn start_traces(
    config: &HostConfig,
    seed: u64,
    meters: &Meters,
) -> anyhow::Result<(Option<Arc<Traces>>, Option<Exporting>)> {
    let settings = &config.telemetry;
    let Some(endpoint) = Endpoint::chosen(settings.otlp_endpoint.as_deref())? else { return Ok((None, None)) };
    let (traces, exporting) = Traces::start(&endpoint, settings.sample_ratio, seed, Arc::clone(&meters.spans))?;
    Ok((Some(traces), Some(exporting)))
}

/// What the store found, in the core's words.
fn known(recovered: store::Recovered) -> Recovered {
    let consumer = |store::RecoveredConsumer { id, name, stream, cursor, holds, newest, again }| KnownConsumer {
        id,
        name,
        stream,
        cursor,
        holds,
        newest,
        again,
    };
    let row = |store::OutboxRow { row, consumer, event, since_ms }| OutboxRow {
        row,
        consumer,
        event: Arc::new(event),
        since_ms,
    };
    Recovered {
        consumers: recovered.consumers.into_iter().map(consumer).collect(),
        outbox: recovered.outbox.into_iter().map(row).collect(),
        next_row: recovered.next_row.0,
        parked: recovered.parked,
        next_park: recovered.next_park.0,
        next_consumer: recovered.next_consumer.0,
    }
}

/// How long ids of processed messages are kept, in milliseconds.
pub(super) fn mark_ttl_ms(config: &HostConfig) -> u64 {
    config.store.processed_ids_hours.saturating_mul(3_600_000)
}

/// How to reach the server; `server` is the embedded one.
///
/// # Errors
/// If a file with credentials can't be read.
pub(crate) fn connect_settings(
    config: &HostConfig,
    server: Option<&EmbeddedServer>,
) -> anyhow::Result<ConnectSettings> {
    use crate::nats::Credentials as Values;
    let read = |file: &PathBuf| {
        std::fs::read_to_string(file).with_context(|| format!("reading the nats credentials in {}", file.display()))
    };
    let credentials = match &config.nats.credentials {
        Credentials::None => Values::None,
        Credentials::CredsFile(file) => Values::CredentialsFile(read(file)?),
        Credentials::NkeySeedFile(file) => Values::NkeySeed(read(file)?.trim().to_owned()),
        Credentials::TokenFile(file) => Values::Token(read(file)?.trim().to_owned()),
        Credentials::UserPassword { user, password_file } => {
            Values::UserPassword { user: user.clone(), password: read(password_file)?.trim_end().to_owned() }
        }
    };
    let urls = match (&config.nats.server, server) {
        (_, Some(server)) => vec![server.url()],
        (NatsServer::External { urls }, None) => urls.clone(),
        (NatsServer::Embedded { .. }, None) => Vec::new(),
    };
    Ok(ConnectSettings { urls, credentials, name: "pelton".into() })
}
