//! The composition root: builds everything, owns every task and thread, and brings them down in order.
//!
//! Order of the end: no new work, running attempts end, their outcomes are committed and settled, events in flight are acknowledged, a last
//! checkpoint, the connections, and the embedded server last. Whatever does not end in time is cut off: nothing depends on a clean end.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use crossbeam_channel::{Sender, unbounded};
use pelton_core::{Core, Input, KnownConsumer, OutboxRow, Recovered, Settings};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::admin::{Admin, AdminServer};
use crate::board::Board;
use crate::clock::Clock;
use crate::config::{Credentials, HostConfig, NatsServer};
use crate::deploy::{Dependencies, Deployer, Watcher};
use crate::driver::{Driver, Hands, Note};
use crate::durability::{self, CheckpointSettings, Durability};
use crate::executor::{self, Shared};
use crate::faults;
use crate::nats::{ConnectSettings, Connection, EmbeddedServer, EmbeddedSettings, Publisher};
use crate::relay::{self, Refusals};
use crate::store::{self, Opened};
use crate::wasm::{self, Sandbox};

/// Runs for each executor thread that may be out: enough that none waits for the driver.
const RUNS_PER_EXECUTOR: usize = 4;
/// Largest memory that a manifest may ask for, in bytes; the same bound as the configuration's.
const MEMORY_BYTES_MAX: usize = 1 << 30;
/// Time that the embedded server has to stop by itself.
const SERVER_STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the connections to send what is left, after the drain.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How the host came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Everything under way was finished.
    Drained,
    /// The deadline passed first; what was cut off is delivered again at the next start.
    CutOff,
    /// A second signal.
    AtOnce,
}

/// Runs a host until a signal ends it.
///
/// # Errors
/// If it can't start, or something breaks that it can't go on without.
pub async fn run(config: HostConfig) -> anyhow::Result<End> {
    let mut signals = Signals::new()?;
    let cancel = CancellationToken::new();
    // However this function is left, everything that listens to the token ends.
    let _cancelled_at_the_end = cancel.clone().drop_guard();
    let opened = interruptible(&mut signals, open_store(&config)).await?;
    let Some(opened) = opened else { return Ok(End::Drained) };
    let Some(server) = interruptible(&mut signals, start_server(&config)).await? else { return Ok(End::Drained) };
    let end = serve(&config, opened, server.as_ref(), &cancel, &mut signals).await;
    // Also after an error: nobody else would end the child.
    if let Some(server) = server {
        interruptible(&mut signals, async { Ok(server.stop().await) }).await?;
    }
    end
}

async fn serve(
    config: &HostConfig,
    opened: Opened,
    server: Option<&EmbeddedServer>,
    cancel: &CancellationToken,
    signals: &mut Signals,
) -> anyhow::Result<End> {
    match interruptible(signals, Host::start(config, opened, server, cancel)).await? {
        Some(host) => host.run(config, signals).await,
        None => Ok(End::Drained),
    }
}

/// A step of the start or of the end that a signal cuts short; none: one did.
async fn interruptible<T>(
    signals: &mut Signals,
    step: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<Option<T>> {
    tokio::select! {
        done = step => done.map(Some),
        signal = signals.next() => {
            tracing::info!(signal, "stopping at once: there is nothing under way that a restart would not find");
            Ok(None)
        }
    }
}

async fn open_store(config: &HostConfig) -> anyhow::Result<Opened> {
    let settings = store::Settings {
        directory: config.store.path.clone(),
        cache_bytes: config.store.cache_bytes,
        processed_ids_ms: mark_ttl_ms(config),
    };
    let opening = tokio::task::spawn_blocking(move || store::open(&settings, Clock::start().now()));
    Ok(opening.await.context("the thread that opens the store broke")??)
}

/// What the store found, in the core's words.
fn known(recovered: store::Recovered) -> Recovered {
    let consumer = |store::RecoveredConsumer { id, name, stream, cursor }| KnownConsumer { id, name, stream, cursor };
    let row = |store::OutboxRow { row, consumer, event }| OutboxRow { row, consumer, event: Arc::new(event) };
    Recovered {
        consumers: recovered.consumers.into_iter().map(consumer).collect(),
        outbox: recovered.outbox.into_iter().map(row).collect(),
        next_row: recovered.next_row.0,
    }
}

fn mark_ttl_ms(config: &HostConfig) -> u64 {
    config.store.processed_ids_hours.saturating_mul(3_600_000)
}

async fn start_server(config: &HostConfig) -> anyhow::Result<Option<EmbeddedServer>> {
    let NatsServer::Embedded { binary, port } = &config.nats.server else { return Ok(None) };
    let settings = EmbeddedSettings {
        binary: binary.clone(),
        port: *port,
        data_directory: config.store.path.clone(),
        sync_always: false,
        stop_timeout: SERVER_STOP_TIMEOUT,
    };
    Ok(Some(EmbeddedServer::start(settings).await?))
}

fn connect_settings(config: &HostConfig, server: Option<&EmbeddedServer>) -> anyhow::Result<ConnectSettings> {
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

/// A host at work.
struct Host {
    notes: Sender<Note>,
    ended: oneshot::Receiver<anyhow::Result<()>>,
    driver: JoinHandle<()>,
    executors: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
    durability: Durability,
    consuming: Arc<Connection>,
    publishing: Connection,
    publisher: Publisher,
    deploying: tokio::task::JoinHandle<Deployer>,
    no_more_deployments: CancellationToken,
    admin: Option<AdminServer>,
    cancel: CancellationToken,
}

impl Host {
    async fn start(
        config: &HostConfig,
        opened: Opened,
        server: Option<&EmbeddedServer>,
        cancel: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let clock = Clock::start();
        let Opened { reader, log, checkpointer, recovered } = opened;
        let threads = match config.limits.executor_threads {
            0 => std::thread::available_parallelism().map_or(2, usize::from),
            threads => threads,
        };
        let sandbox = Arc::new(Sandbox::new(&wasm::Settings {
            instances_max: u32::try_from(threads).unwrap_or(u32::MAX).saturating_add(2),
            memory_bytes_max: MEMORY_BYTES_MAX,
            component_bytes_max: config.limits.component_bytes_max,
        })?);
        let seed = recovered.seed;
        let shared = Arc::new(Shared {
            sandbox: Arc::clone(&sandbox),
            reader: Arc::clone(&reader),
            clock,
            draining: AtomicBool::new(false),
            seed,
        });
        let (notes, for_driver) = unbounded();
        let (to_executors, work) = unbounded();
        let (to_committer, batches) = unbounded();
        let executors = executor::start(threads, &shared, &work, &notes).context("starting executor threads")?;
        let checkpoints = CheckpointSettings {
            interval: Duration::from_millis(config.store.checkpoint_interval_ms),
            overlay_bytes_max: config.store.overlay_bytes_max,
        };
        let durability = durability::start(log, checkpointer, &reader, checkpoints, clock, batches, &notes)
            .context("starting the committer and the checkpointer")?;
        let connect = connect_settings(config, server)?;
        let consuming = Arc::new(Connection::open(connect.clone(), "consume", cancel));
        let publishing = Connection::open(connect, "publish", cancel);
        let refusals = Arc::new(Refusals::default());
        let publisher = Publisher::start(&publishing, relay::sink(Arc::clone(&refusals), notes.clone()));
        let heartbeat = Arc::new(AtomicU64::new(0));
        let hands = Hands {
            executors: to_executors,
            committer: to_committer,
            publisher: publisher.handle(),
            reader: Arc::clone(&reader),
            heartbeat: Arc::clone(&heartbeat),
        };
        let settings = Settings {
            runs_max: threads * RUNS_PER_EXECUTOR,
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
        let board = Arc::new(Board::default());
        let deployed = Arc::new(AtomicBool::new(false));
        let admin = Admin {
            notes: notes.clone(),
            board: Arc::clone(&board),
            reader: Arc::clone(&reader),
            clock,
            heartbeat,
            connections: [consuming.status(), publishing.status()],
            deployed: Arc::clone(&deployed),
            refusals,
        };
        let admin = match config.admin {
            Some(address) => {
                Some(AdminServer::start(Arc::new(admin), address, &config.store.path, cancel.child_token()).await?)
            }
            None => None,
        };
        let deployer = Deployer::new(Dependencies {
            directory: config.consumers.clone(),
            component_bytes_max: config.limits.component_bytes_max,
            mark_ttl_ms: mark_ttl_ms(config),
            sandbox,
            connection: Arc::clone(&consuming),
            reader,
            board,
            notes: notes.clone(),
        });
        let (watcher, changes) = Watcher::new()?;
        let no_more_deployments = cancel.child_token();
        let deploying = Deploying { deployer, watcher, changes, deployed, stop: no_more_deployments.clone() };
        let deploying = tokio::spawn(deploying.run());
        let cancel = cancel.clone();
        Ok(Self {
            notes,
            ended,
            driver,
            executors,
            shared,
            durability,
            consuming,
            publishing,
            publisher,
            deploying,
            no_more_deployments,
            admin,
            cancel,
        })
    }

    /// Waits for a signal, or for something to break, and ends the host.
    async fn run(mut self, config: &HostConfig, signals: &mut Signals) -> anyhow::Result<End> {
        tokio::select! {
            ended = &mut self.ended => {
                ended.context("the driver thread broke")??;
                anyhow::bail!("the driver ended without being told to");
            }
            signal = signals.next() => tracing::info!(signal, drain_ms = config.limits.drain_ms, "stopping: finishing what is under way"),
        }
        self.no_more_deployments.cancel();
        self.shared.draining.store(true, Ordering::Relaxed);
        // If the driver is gone, `ended` says why.
        _ = self.notes.send(Note::Core(Input::Drain));
        let drain = tokio::time::timeout(Duration::from_millis(config.limits.drain_ms), &mut self.ended);
        tokio::select! {
            drained = drain => match drained {
                Ok(ended) => ended.context("the driver thread broke")??,
                Err(_) => {
                    tracing::warn!(drain_ms = config.limits.drain_ms, "the deadline has passed: what is still under way is cut off and will be delivered again");
                    return Ok(End::CutOff);
                }
            },
            signal = signals.next() => {
                tracing::warn!(signal, "second signal: stopping at once");
                return Ok(End::AtOnce);
            }
        }
        let closed = interruptible(signals, async { Ok(self.close().await) }).await?;
        Ok(if closed.is_some() { End::Drained } else { End::AtOnce })
    }

    async fn close(self) {
        let Self { driver, executors, durability, consuming, publishing, publisher, deploying, admin, cancel, .. } =
            self;
        drop(admin);
        let joined = tokio::task::spawn_blocking(move || {
            // A thread that panicked has said so through the panic hook.
            _ = driver.join();
            for executor in executors {
                _ = executor.join();
            }
            durability.join();
        });
        _ = joined.await;
        let close = async {
            if let Ok(deployer) = deploying.await {
                deployer.close().await;
            }
            publisher.stop().await;
            publishing.close().await;
            if let Some(consuming) = Arc::into_inner(consuming) {
                consuming.close().await;
            }
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, close).await.is_err() {
            tracing::warn!("the nats connections did not close in time");
        }
        cancel.cancel();
        tracing::info!("stopped");
    }
}

/// The task that looks at the consumer directory at the start and after every change.
struct Deploying {
    deployer: Deployer,
    watcher: Watcher,
    changes: mpsc::Receiver<()>,
    deployed: Arc<AtomicBool>,
    stop: CancellationToken,
}

impl Deploying {
    /// Goes on until it is told to stop, also in the middle of a deployment; gives back what runs.
    async fn run(mut self) -> Deployer {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.deploy_for_ever()).await;
        self.deployer
    }

    async fn deploy_for_ever(&mut self) {
        let mut watched: BTreeSet<PathBuf> = BTreeSet::new();
        loop {
            let files = self.deployer.apply().await;
            self.deployed.store(true, Ordering::Relaxed);
            if files == watched {
                // The watcher lives as long as this task: its channel does not close before.
                self.changes.recv().await;
            } else {
                self.watcher.watch(files.iter().map(PathBuf::as_path));
                // What changed between the look and the watch would be missed: look again at once.
                watched = files;
            }
        }
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listening for signals");
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
