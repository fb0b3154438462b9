//! One key whose messages can't be handled, in the middle of ten times as many others: what the others feel of it, and that it comes back in order.
//!
//! First the others alone, for comparison; then the same again with the poisoned key in between. When the others are done, all messages of the key are parked. Then
//! what was wrong is mended, an operator releases the key, and all of it is applied in order.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::figures::{Case, PEAK_MB, Reading, reading};
use super::meter::megabytes;
use super::scale::Scale;
use crate::checker::{Checker, Published};
use crate::client::{Client, StreamSpec};
use crate::host::{Host, HostOptions};
use crate::load::ledger_message;
use crate::manifest::Manifest;
use crate::nats::NatsServer;
use crate::progress::{Progress, say};
use crate::wait;

pub(crate) const BENCH: &str = "poisoned";

/// The one case.
pub(crate) const CASE: &str = "parked";
/// Others a second when they are alone.
const ALONE: &str = "others_alone_per_second";
/// Others a second with the poisoned key between them.
const BESIDE: &str = "others_beside_per_second";
/// The second of those by the first.
pub(crate) const RATIO: &str = "ratio";
/// Messages of the poisoned key that were parked when the others were done.
const PARKED: &str = "parked_messages";
/// From the release to the last event of the poisoned key.
const RELEASE: &str = "release_seconds";

/// The key in trouble.
const POISONED: &str = "poisoned";

/// Messages of other keys in full. There is one of the poisoned key for ten of them.
const OTHERS: u64 = 1_000_000;

/// Keys over which the others are spread evenly.
const KEYS: u64 = 1_000;

/// How long the host may take for everything.
const LIMIT: Duration = Duration::from_secs(600);

/// Runs it.
///
/// # Errors
/// The server or the host does not come up, does not finish, or does something wrong.
pub(crate) async fn run(scale: Scale) -> Result<Vec<Case>> {
    let others = scale.of(OTHERS);
    let mut readings = Vec::new();
    for round in 1..=scale.runs {
        say(&format!("{BENCH}, run {round} of {}", scale.runs));
        readings.push(once(others).await?);
    }
    let about = "messages of one key that can't be handled, a tenth of the others, parked and then released";
    Ok(vec![Case::measured(BENCH, CASE, about, &readings)])
}

async fn once(others: u64) -> Result<Reading> {
    say("the others alone");
    let alone = Stage::set(others, 0).await?;
    let alone_seconds = alone.others_done(others).await?;
    drop(alone);
    say("beside a poisoned key");
    let poisoned = others / 10;
    let stage = Stage::set(others, poisoned).await?;
    let beside_seconds = stage.others_done(others).await?;
    let parked = stage.wait_parked(poisoned).await?;
    stage.host.manifest("bench", &manifest(false))?;
    let released = Instant::now();
    stage.release().await?;
    stage.wait_for_events(others + poisoned).await?;
    let release_seconds = released.elapsed().as_secs_f64();
    // After the release: to bring them back is no less work than to put them away.
    let peak = stage.host.usage()?.peak_resident_bytes;
    let (alone, beside) = (others as f64 / alone_seconds, others as f64 / beside_seconds);
    stage.check(others + poisoned).await?;
    Ok(reading([
        (ALONE, alone),
        (BESIDE, beside),
        (RATIO, beside / alone),
        (PEAK_MB, megabytes(peak)),
        (PARKED, parked as f64),
        (RELEASE, release_seconds),
    ]))
}

fn manifest(broken: bool) -> Manifest {
    let config =
        if broken { format!("out = \"bench-out\"\nbroken_key = \"{POISONED}\"") } else { "out = \"bench-out\"".into() };
    Manifest::new("ledger.wasm", "BENCH", "bench.*").emits("bench-out.>").quick_retries(3).section("[config]", &config)
}

struct Stage {
    client: Client,
    host: Host,
    checker: Checker,
    _nats: NatsServer,
}

impl Stage {
    /// Everything is published; the host has just been started.
    async fn set(others: u64, poisoned: u64) -> Result<Self> {
        let nats = NatsServer::start().await?;
        let client = nats.client().await?;
        client.create_stream(&StreamSpec::new("BENCH", "bench.*")).await?;
        client.create_stream(&StreamSpec::new("BENCH-OUT", "bench-out.>")).await?;
        let mut checker = Checker::default();
        publish(&client, others, poisoned, &mut checker).await?;
        let mut host = Host::prepare(HostOptions { show_log: false, ..HostOptions::on(&nats.url()) })?;
        host.guest("ledger")?;
        host.manifest("bench", &manifest(poisoned > 0))?;
        host.start().await?;
        Ok(Self { client, host, checker, _nats: nats })
    }

    async fn others_done(&self, others: u64) -> Result<f64> {
        self.wait_for_events(others).await?;
        let first = self.client.stored_at_ms("BENCH-OUT", 1).await?;
        let last = self.client.stored_at_ms("BENCH-OUT", others).await?;
        Ok((last.saturating_sub(first).max(1)) as f64 / 1_000.0)
    }

    /// Waits until so many events have been stored.
    async fn wait_for_events(&self, count: u64) -> Result<()> {
        let progress = Progress::new("running", count);
        let waiting = wait::until("every message has left its event", LIMIT, || async {
            // The server is busy with the run itself: it is asked now and then.
            tokio::time::sleep(Duration::from_millis(100)).await;
            let (stored, _) = self.client.stream_size("BENCH-OUT").await?;
            progress.at(stored);
            Ok((stored >= count).then_some(()))
        });
        waiting.await.with_context(|| format!("the host's log:\n{}", self.host.log_tail()))
    }

    /// Hands every event to the checker: a fast wrong answer is no result.
    async fn check(mut self, count: u64) -> Result<()> {
        say("checking every event …");
        for stored in self.client.read("BENCH-OUT").take(usize::try_from(count)?, LIMIT).await? {
            self.checker.came_out(&stored)?;
        }
        let verdict = self.checker.verdict();
        ensure!(verdict.violations.total() == 0, "the host did the work wrongly: {}", verdict.details.join("; "));
        Ok(())
    }

    async fn wait_parked(&self, count: u64) -> Result<u64> {
        wait::until("all messages of the poisoned key are parked", LIMIT, || async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let status = self.host.status().await?;
            let parked = status
                .pointer("/consumers/0/parked_rows")
                .and_then(Value::as_u64)
                .context("status tells how many are parked")?;
            Ok((parked >= count).then_some(parked))
        })
        .await
    }

    async fn release(&self) -> Result<()> {
        // The mended manifest is applied within a moment; a release before that would only park the key again.
        self.host.wait_log("step=Change", LIMIT).await?;
        let output = self.host.run(&["parked", "release", "bench", "--key", POISONED])?;
        ensure!(output.status.success(), "the release was refused: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

async fn publish(client: &Client, others: u64, poisoned: u64, checker: &mut Checker) -> Result<()> {
    let progress = Progress::new("publishing", others);
    let mut batch = Vec::new();
    let mut add = |batch: &mut Vec<_>, key: String, n: u64| {
        let id = format!("{key}-{n}");
        batch.push(ledger_message(format!("bench.{key}"), &id, n, 256));
        checker.published(Published { key, n, id });
    };
    let every = others.checked_div(poisoned);
    for number in 0..others {
        add(&mut batch, format!("k{}", number % KEYS), number / KEYS + 1);
        if let Some(every) = every
            && number % every == 0
            && number / every < poisoned
        {
            add(&mut batch, POISONED.to_owned(), number / every + 1);
        }
        if batch.len() >= 4_096 || number + 1 == others {
            client.publish_all(&batch).await?;
            batch.clear();
            progress.at(number + 1);
        }
    }
    Ok(())
}
