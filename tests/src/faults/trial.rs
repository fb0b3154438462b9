//! One row at work: its set-up, its count of rounds, and the judgement after each of them.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::RowReport;
use super::proxy::Proxy;
use super::seen::consumer;
use crate::checker::{Verdict, Violations};
use crate::host::Host;
use crate::nats::{NatsOptions, NatsServer};
use crate::random::Random;
use crate::rig::{Rig, RigOptions};
use crate::tools::HostBuild;
use crate::wait;

/// How soon a fault that is over must be overcome.
pub(super) const SOON: Duration = Duration::from_secs(30);

/// How long nothing may come before what is missing counts as missing.
const PATIENCE: Duration = Duration::from_secs(25);

/// The same with a break, where something is expected to be missing.
const PATIENCE_BROKEN: Duration = Duration::from_secs(5);

/// Messages a second to each of the two consumers: several rows share the machine.
const RATE: u32 = 300;

/// What a host may ever have used of memory, in bytes.
const RESIDENT_BYTES_MAX: u64 = 512 << 20;

/// Files and sockets that a host may have open.
const OPEN_FILES_MAX: usize = 128;

/// What a host's data may take up on disk, in bytes.
const DISK_BYTES_MAX: u64 = 512 << 20;

/// The state of a row.
pub(super) struct Trial {
    pub(super) random: Random,
    broken: Option<String>,
    rounds: u64,
    notes: Vec<String>,
    /// Of set-ups that were left behind.
    before: Verdict,
    /// Of the set-up that is in use.
    now: Verdict,
}

impl Trial {
    pub(super) fn new(seed: u64, broken: Option<String>) -> Self {
        let (before, now) = (Verdict::default(), Verdict::default());
        Self { random: Random::new(seed), broken, rounds: 0, notes: Vec::new(), before, now }
    }

    /// The guarantee that is broken on purpose, if one is.
    pub(super) fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// A fresh set-up under load; the host is laid out, but not started.
    pub(super) async fn rig(&mut self, change: impl FnOnce(&mut RigOptions)) -> Result<Rig> {
        let options = self.options(change);
        Rig::start(&options, &mut self.random).await
    }

    /// The same with a proxy between host and server.
    pub(super) async fn rig_behind_proxy(&mut self, change: impl FnOnce(&mut RigOptions)) -> Result<(Rig, Proxy)> {
        let mut options = self.options(change);
        let nats = NatsServer::with(NatsOptions { sync_always: options.sync_always, ..NatsOptions::default() }).await?;
        let proxy = Proxy::start(nats.port()).await?;
        options.nats_url = Some(proxy.url());
        Ok((Rig::on(nats, &options, &mut self.random).await?, proxy))
    }

    fn options(&mut self, change: impl FnOnce(&mut RigOptions)) -> RigOptions {
        self.before.add(&std::mem::take(&mut self.now));
        let mut options = RigOptions::default();
        options.plan.rate = RATE;
        if let Some(name) = &self.broken {
            options.build = HostBuild::Faulty;
            options.environment.push(("PELTON_BREAK".to_owned(), name.clone()));
        }
        change(&mut options);
        options
    }

    /// One more time that the fault was made.
    pub(super) fn round(&mut self) {
        self.rounds += 1;
    }

    /// So many more.
    pub(super) fn rounds(&mut self, rounds: u64) {
        self.rounds += rounds;
    }

    /// Something worth knowing beside the result.
    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Takes over the outcome of a check that was made elsewhere.
    pub(super) fn found(&mut self, messages: u64, violations: Violations) -> Result<()> {
        self.now.messages = messages;
        self.now.violations = violations;
        ensure!(violations.total() == 0, "{} violations: {violations:?}", violations.total());
        Ok(())
    }

    /// The fault is over and the host runs. Everything published must come out, exactly once and in order; the lag must be gone; nothing may have
    /// grown without bounds. Ends with the load at rest.
    pub(super) async fn healed(&mut self, rig: &mut Rig) -> Result<()> {
        rig.pause().await?;
        rig.host.ready().await?;
        let patience = if self.broken.is_some() { PATIENCE_BROKEN } else { PATIENCE };
        self.now = rig.drain(patience).await?;
        self.judged()?;
        for name in ["limits", "queue"] {
            lag_is_gone(rig, name).await?;
        }
        is_bounded(&rig.host)
    }

    /// Judges one consumer alone: the other is out of order on purpose.
    pub(super) async fn side_is_right(&mut self, rig: &mut Rig, name: &str) -> Result<()> {
        let side = rig.side(name)?;
        side.load.pause().await?;
        self.now = side.drain(PATIENCE).await?;
        self.judged()?;
        lag_is_gone(rig, name).await
    }

    fn judged(&self) -> Result<()> {
        let found = self.now.violations.total();
        ensure!(found == 0, "{found} violations, the first: {}", self.now.details.first().map_or("?", String::as_str));
        Ok(())
    }

    /// What became of the row.
    pub(super) fn report(mut self, row: u32, fault: &'static str, outcome: Result<()>) -> RowReport {
        self.before.add(&std::mem::take(&mut self.now));
        let (result, note) = match outcome {
            Ok(()) => ("ok", self.notes.join("; ")),
            Err(error) => ("FAILED", in_short(&error)),
        };
        let Verdict { messages, violations, .. } = self.before;
        RowReport { row, fault, rounds: self.rounds, messages, violations: violations.total(), result, note }
    }
}

/// An error without the logs that it carries.
fn in_short(error: &anyhow::Error) -> String {
    let causes = error.chain().map(|cause| cause.to_string().lines().next().unwrap_or_default().to_owned());
    let causes: Vec<String> = causes.filter(|cause| !cause.ends_with("log:")).collect();
    causes.join(": ")
}

/// Lets the load run for a while, with one message of a key in flight: the server may die.
pub(super) async fn run_for(rig: &Rig, milliseconds: u64) {
    rig.resume(1);
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

/// Waits until a consumer has nothing before it and nothing in hand, and nothing to complain about.
async fn lag_is_gone(rig: &Rig, name: &str) -> Result<()> {
    let stream = name.to_uppercase();
    let mut seen = None;
    let deadline = Instant::now() + SOON;
    loop {
        let (messages, last) = rig.client.stream_size(&stream).await?;
        let now = consumer(&rig.host, name).await?;
        let at_end = now.floor == last && (name != "queue" || messages == 0);
        let idle = now.held == 0 && now.outbox_pending == 0;
        if at_end && idle && now.phase == "running" && now.problems.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!(
                "the lag of {name} does not go away: stream at {last} with {messages} messages, status {seen:?}; log:\n{}",
                rig.host.log_tail()
            );
        }
        seen = Some(now);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Memory, open files and disk.
fn is_bounded(host: &Host) -> Result<()> {
    let resident = host.usage()?.peak_resident_bytes;
    ensure!(resident <= RESIDENT_BYTES_MAX, "the host has used {} MiB of memory", resident >> 20);
    let pid = host.pid().context("the host runs")?;
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).context("/proc can't be read")?.count();
    ensure!(open <= OPEN_FILES_MAX, "the host has {open} files open");
    let disk = size_of(&host.path("data"))?;
    ensure!(disk <= DISK_BYTES_MAX, "the host's data takes {} MiB", disk >> 20);
    Ok(())
}

/// The bytes of all files below a directory.
fn size_of(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { size_of(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

/// Waits until what the host has logged since it had logged `from` bytes holds one of these texts.
pub(super) async fn says_one_of(host: &Host, from: usize, texts: &[&str]) -> Result<String> {
    let what = format!("the host's log holds one of {texts:?}");
    let waiting = wait::until(&what, SOON, || async {
        let log = host.log();
        let new = log.get(from..).unwrap_or_default();
        let found = new.lines().rev().find(|line| texts.iter().any(|text| line.contains(text)));
        Ok(found.map(str::to_owned))
    });
    waiting.await.with_context(|| format!("the host's log:\n{}", host.log_tail()))
}

/// The host must end by itself, not as if all were well, and name the reason in one of these words. Gives the line that does.
pub(super) async fn gives_up(host: &mut Host, from: usize, reasons: &[&str]) -> Result<String> {
    let status = host.wait_exit(SOON).await?;
    let code = status.code().with_context(|| format!("the host was to end by itself, and ended with {status}"))?;
    ensure!(code != 0, "the host ended as if all were well; its log:\n{}", host.log_tail());
    says_one_of(host, from, reasons).await
}
