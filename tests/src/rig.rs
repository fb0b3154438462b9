//! What crash rounds and fault rows stand on: a server, a host with two consumers of `ledger`, and for each of them a load, its output and a
//! checker.
//!
//! One consumer reads a stream with limits retention, where the host's own cursor says how far it is; the other a work queue, where the acks do, so
//! that an ack before the commit loses a message.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::checker::{Checker, Verdict};
use crate::client::{Client, StreamSpec};
use crate::host::{Host, HostOptions};
use crate::load::{Load, LoadPlan};
use crate::manifest::Manifest;
use crate::nats::{NatsOptions, NatsServer};
use crate::random::Random;
use crate::reader::Reader;
use crate::tools::HostBuild;

/// Messages of one key in flight while the server is safe.
pub(crate) const BURST: usize = 8;

/// After everything came: how long nothing more may come.
const QUIET: Duration = Duration::from_millis(250);

/// How a rig is set up.
#[derive(Clone, Debug)]
pub(crate) struct RigOptions {
    /// Which host.
    pub(crate) build: HostBuild,
    /// The host's environment variables.
    pub(crate) environment: Vec<(String, String)>,
    /// More lines of `pelton.toml`.
    pub(crate) host: String,
    /// Where the host connects, if not to the server itself: what stands between them knows the server's address.
    pub(crate) nats_url: Option<String>,
    /// Whether the server syncs each message.
    pub(crate) sync_always: bool,
    /// How long the output streams drop repetitions by themselves.
    pub(crate) output_window: Duration,
    /// When the server gives a message of the work queue out again, in milliseconds.
    pub(crate) ack_wait_ms: u64,
    /// Lines of each consumer's `[limits]`.
    pub(crate) limits: String,
    /// Lines of each consumer's `[retry]`.
    pub(crate) retry: String,
    /// What is published to each consumer; the prefix is the consumer's name.
    pub(crate) plan: LoadPlan,
}

impl Default for RigOptions {
    fn default() -> Self {
        Self {
            build: HostBuild::Normal,
            environment: Vec::new(),
            host: String::new(),
            nats_url: None,
            sync_always: true,
            // So short a window that JetStream itself lets repetitions through.
            output_window: SHORT_WINDOW,
            ack_wait_ms: 30_000,
            limits: String::new(),
            retry: String::new(),
            plan: LoadPlan {
                prefix: String::new(),
                keys: 200,
                exponent: 1.0,
                duplicates: 0.08,
                failing: 0.0,
                window: 64,
                rate: 1_000,
                payload_bytes: 128,
            },
        }
    }
}

/// The shortest window that a stream may have.
const SHORT_WINDOW: Duration = Duration::from_millis(100);

/// All of it. The fields are dropped in this order: the loads before the server that they publish to.
pub(crate) struct Rig {
    pub(crate) sides: Vec<Side>,
    pub(crate) host: Host,
    pub(crate) nats: NatsServer,
    pub(crate) client: Client,
}

impl Rig {
    /// Starts the server and the load; the host is laid out, but not started.
    pub(crate) async fn start(options: &RigOptions, random: &mut Random) -> Result<Self> {
        let nats = NatsServer::with(NatsOptions { sync_always: options.sync_always, ..NatsOptions::default() }).await?;
        Self::on(nats, options, random).await
    }

    /// The same on a server that runs.
    pub(crate) async fn on(nats: NatsServer, options: &RigOptions, random: &mut Random) -> Result<Self> {
        let client = nats.client().await?;
        let url = options.nats_url.clone().unwrap_or_else(|| nats.url());
        let environment = options.environment.clone();
        let host = HostOptions { build: options.build, show_log: false, environment, ..HostOptions::on(&url) };
        let host = Host::prepare(host.extra("[limits]\nexecutor_threads = 4").extra(&options.host))?;
        host.guest("ledger")?;
        let mut sides = Vec::new();
        for name in ["limits", "queue"] {
            sides.push(Side::start(name, options, &client, &host, random.fork()).await?);
        }
        Ok(Self { sides, host, nats, client })
    }

    /// The consumer of this name, and what belongs to it.
    pub(crate) fn side(&mut self, name: &str) -> Result<&mut Side> {
        self.sides.iter_mut().find(|side| side.name == name).with_context(|| format!("there is no consumer {name}"))
    }

    /// Stops publishing; everything published is acknowledged then.
    pub(crate) async fn pause(&mut self) -> Result<()> {
        for side in &mut self.sides {
            side.load.pause().await?;
        }
        Ok(())
    }

    /// Publishes again, with up to `burst` messages of a key in flight: 1 if the server may die.
    pub(crate) fn resume(&self, burst: usize) {
        self.sides.iter().for_each(|side| side.load.resume(burst));
    }

    /// One message of a key in flight from now on: a server that dies may lose one, and must not have stored the next.
    pub(crate) async fn one_at_a_time(&mut self) -> Result<()> {
        self.pause().await?;
        self.resume(1);
        Ok(())
    }

    /// Reads what comes out until everything published has, or nothing more has come for `patience`; then judges.
    pub(crate) async fn drain(&mut self, patience: Duration) -> Result<Verdict> {
        let mut whole = Verdict::default();
        for side in &mut self.sides {
            whole.add(&side.drain(patience).await?);
        }
        Ok(whole)
    }
}

/// One consumer, what is published to it, and what comes out.
pub(crate) struct Side {
    pub(crate) name: &'static str,
    pub(crate) input: StreamSpec,
    pub(crate) output: StreamSpec,
    pub(crate) load: Load,
    pub(crate) reader: Reader,
    checker: Arc<Mutex<Checker>>,
}

impl Side {
    async fn start(
        name: &'static str,
        options: &RigOptions,
        client: &Client,
        host: &Host,
        random: Random,
    ) -> Result<Self> {
        let (stream, output) = (name.to_uppercase(), format!("{}-OUT", name.to_uppercase()));
        let input = StreamSpec::new(&stream, &format!("{name}.*")).duplicate_window(SHORT_WINDOW);
        let input = if name == "queue" { input.work_queue() } else { input };
        let output = StreamSpec::new(&output, &format!("{name}-out.>")).duplicate_window(options.output_window);
        client.create_stream(&input).await?;
        client.create_stream(&output).await?;
        let manifest = Manifest::new("ledger.wasm", &stream, &format!("{name}.*"))
            .emits(&format!("{name}-out.>"))
            .subscription(&format!("ack_wait_ms = {}", options.ack_wait_ms))
            .section("[config]", &format!("out = \"{name}-out\""))
            .section("[limits]", &options.limits)
            .section("[retry]", &options.retry);
        host.manifest(name, &manifest)?;
        let checker = Arc::new(Mutex::new(Checker::default()));
        let plan = LoadPlan { prefix: name.to_owned(), ..options.plan.clone() };
        let load = Load::start(client.clone(), plan, random, Arc::clone(&checker), BURST);
        Ok(Self { name, load, reader: client.read(&output.name), input, output, checker })
    }

    /// What was published and what came out.
    pub(crate) fn checker(&self) -> MutexGuard<'_, Checker> {
        self.checker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what comes out until everything published has, or nothing more has come for `patience`; then judges.
    pub(crate) async fn drain(&mut self, patience: Duration) -> Result<Verdict> {
        let mut last = Instant::now();
        loop {
            let waits_for = if self.checker().missing() == 0 { QUIET } else { patience };
            if last.elapsed() >= waits_for {
                break;
            }
            let stored = self.reader.some(Duration::from_millis(100)).await;
            let mut checker = self.checker();
            for message in &stored {
                let before = checker.events();
                checker.came_out(message).with_context(|| format!("the output of consumer {}", self.name))?;
                if checker.events() > before {
                    last = Instant::now();
                }
            }
        }
        let mut verdict = self.checker().verdict();
        verdict.details.iter_mut().for_each(|detail| *detail = format!("{}: {detail}", self.name));
        Ok(verdict)
    }
}
