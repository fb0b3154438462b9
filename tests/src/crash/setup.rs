//! The set-up of a crash run: a server, a host with two consumers of `ledger`, a load and a checker for each.

use std::sync::{Arc, Mutex, PoisonError};
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
pub(super) const BURST: usize = 8;

/// After everything came: how long nothing more may come.
const QUIET: Duration = Duration::from_millis(250);

/// One consumer, what is published to it, and what comes out.
struct Side {
    name: &'static str,
    load: Load,
    reader: Reader,
    checker: Arc<Mutex<Checker>>,
}

/// All of it.
pub(super) struct Crashable {
    pub(super) nats: NatsServer,
    pub(super) host: Host,
    sides: Vec<Side>,
}

impl Crashable {
    /// Starts the server and the load; the host is laid out, but not started.
    pub(super) async fn start(build: HostBuild, random: &mut Random) -> Result<Self> {
        let nats = NatsServer::with(NatsOptions { sync_always: true, ..NatsOptions::default() }).await?;
        let client = nats.client().await?;
        let options = HostOptions { build, show_log: false, ..HostOptions::on(&nats.url()) };
        let host = Host::prepare(options.extra("[limits]\nexecutor_threads = 4"))?;
        host.guest("ledger")?;
        let mut sides = Vec::new();
        for name in ["limits", "queue"] {
            sides.push(Side::start(name, &client, &host, random.fork()).await?);
        }
        Ok(Self { nats, host, sides })
    }

    /// Stops publishing; everything published is acknowledged then.
    pub(super) async fn pause(&mut self) -> Result<()> {
        for side in &mut self.sides {
            side.load.pause().await?;
        }
        Ok(())
    }

    /// Publishes again, with up to `burst` messages of a key in flight.
    pub(super) fn resume(&self, burst: usize) {
        self.sides.iter().for_each(|side| side.load.resume(burst));
    }

    /// Reads what comes out until everything published has, or nothing more has come for `patience`; then judges.
    pub(super) async fn drain(&mut self, patience: Duration) -> Result<Verdict> {
        let mut whole = Verdict::default();
        for side in &mut self.sides {
            let verdict =
                side.drain(patience).await.with_context(|| format!("the output of consumer {}", side.name))?;
            whole.messages += verdict.messages;
            whole.violations.add(&verdict.violations);
            whole.details.extend(verdict.details.iter().map(|detail| format!("{}: {detail}", side.name)));
        }
        Ok(whole)
    }
}

impl Side {
    async fn start(name: &'static str, client: &Client, host: &Host, random: Random) -> Result<Self> {
        // So short a window that JetStream itself lets repetitions through.
        let window = Duration::from_millis(100);
        let (stream, output) = (name.to_uppercase(), format!("{}-OUT", name.to_uppercase()));
        let input = StreamSpec::new(&stream, &format!("{name}.*")).duplicate_window(window);
        client.create_stream(&if name == "queue" { input.work_queue() } else { input }).await?;
        client.create_stream(&StreamSpec::new(&output, &format!("{name}-out.>")).duplicate_window(window)).await?;
        let manifest = Manifest::new("ledger.wasm", &stream, &format!("{name}.*"))
            .emits(&format!("{name}-out.>"))
            .section("[config]", &format!("out = \"{name}-out\""));
        host.manifest(name, &manifest)?;
        let checker = Arc::new(Mutex::new(Checker::default()));
        let plan = LoadPlan {
            prefix: name.to_owned(),
            keys: 200,
            exponent: 1.0,
            duplicates: 0.08,
            window: 64,
            rate: 1_000,
            payload_bytes: 128,
        };
        let load = Load::start(client.clone(), plan, random, Arc::clone(&checker), BURST);
        Ok(Self { name, load, reader: client.read(&output), checker })
    }

    async fn drain(&mut self, patience: Duration) -> Result<Verdict> {
        let mut last = Instant::now();
        loop {
            let missing = self.checker.lock().unwrap_or_else(PoisonError::into_inner).missing();
            let waits_for = if missing == 0 { QUIET } else { patience };
            if last.elapsed() >= waits_for {
                break;
            }
            let stored = self.reader.some(Duration::from_millis(100)).await;
            let mut checker = self.checker.lock().unwrap_or_else(PoisonError::into_inner);
            for message in &stored {
                let before = checker.events();
                checker.came_out(message)?;
                if checker.events() > before {
                    last = Instant::now();
                }
            }
        }
        Ok(self.checker.lock().unwrap_or_else(PoisonError::into_inner).verdict())
    }
}
