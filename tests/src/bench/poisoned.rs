//! One key whose messages can't be handled, in the middle of ten times as many others: what the others feel of it, and that it comes back in order.
//!
//! First the others alone, for comparison; then the same again with the poisoned key in between. When the others are done, all messages of the key are parked. Then
//! what was wrong is mended, an operator releases the key, and all of it is applied in order.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use super::{LIMIT, check, seconds_to, wait_for_events};
use crate::checker::{Checker, Published, Violations};
use crate::client::{Client, StreamSpec};
use crate::host::{Host, HostOptions};
use crate::load::ledger_message;
use crate::manifest::Manifest;
use crate::nats::NatsServer;
use crate::progress::{Progress, say};
use crate::wait;

/// The key in trouble.
const POISONED: &str = "poisoned";

/// The others may lose this part of their speed to the poisoned key. Its messages are a tenth of what they are, and each of them is read, written to the log and
/// folded once, so this is not 1.
const RATIO_MIN: f64 = 0.7;

/// Resident memory that the host must stay below, in bytes: far less than the parked messages and the log together.
const RESIDENT_BYTES_MAX: u64 = 400 << 20;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct PoisonedOptions {
    /// Messages of other keys. There is one of the poisoned key for ten of them.
    pub others: u64,
    /// Keys over which those are spread evenly.
    pub keys: u64,
}

impl Default for PoisonedOptions {
    fn default() -> Self {
        Self { others: 1_000_000, keys: 1_000 }
    }
}

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub struct PoisonedReport {
    /// Messages of other keys.
    pub others: u64,
    /// Messages of the poisoned key.
    pub poisoned: u64,
    /// Others a second when they are alone.
    pub alone_per_second: f64,
    /// Others a second with the poisoned key between them.
    pub beside_per_second: f64,
    /// The second of those by the first.
    pub ratio: f64,
    /// The most memory that the host had resident, in bytes.
    pub host_peak_resident_bytes: u64,
    /// Messages of the poisoned key that were parked when the others were done.
    pub parked: u64,
    /// From its release to the last event of the poisoned key, in seconds.
    pub release_seconds: f64,
    /// What the checker found wrong.
    #[serde(flatten)]
    pub violations: Violations,
}

impl PoisonedReport {
    /// Whether the others felt little of it, memory was bounded, and all is right.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.ratio >= RATIO_MIN
            && self.parked == self.poisoned
            && self.host_peak_resident_bytes <= RESIDENT_BYTES_MAX
            && self.violations.total() == 0
    }

    /// A table for a reader.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED).set_header(["", "measured", "wanted"]);
        let mut row =
            |name: &str, measured: String, wanted: String| _ = table.add_row([name.to_owned(), measured, wanted]);
        row("messages of other keys", self.others.to_string(), String::new());
        row("messages of the poisoned key", self.poisoned.to_string(), String::new());
        row("others/s alone", format!("{:.0}", self.alone_per_second), String::new());
        row("others/s beside it", format!("{:.0}", self.beside_per_second), String::new());
        row("ratio", format!("{:.2}", self.ratio), format!("at least {RATIO_MIN}"));
        let mebibytes = |bytes: u64| format!("{:.0}", bytes as f64 / f64::from(1 << 20));
        row(
            "host, peak resident MiB",
            mebibytes(self.host_peak_resident_bytes),
            format!("at most {}", mebibytes(RESIDENT_BYTES_MAX)),
        );
        row("parked", self.parked.to_string(), self.poisoned.to_string());
        row("release, seconds", format!("{:.1}", self.release_seconds), String::new());
        row("lost, doubled, reordered, …", self.violations.total().to_string(), "0".to_owned());
        table.to_string()
    }
}

/// Runs it.
///
/// # Errors
/// The server or the host does not come up, or the host does not finish in five minutes.
pub async fn run(options: PoisonedOptions) -> Result<PoisonedReport> {
    say("the others alone");
    let alone = Stage::set(options, 0).await?;
    let alone_seconds = alone.others_done(options.others).await?;
    drop(alone);
    say("beside a poisoned key");
    let poisoned = options.others / 10;
    let stage = Stage::set(options, poisoned).await?;
    let beside_seconds = stage.others_done(options.others).await?;
    let parked = stage.wait_parked(poisoned).await?;
    stage.host.manifest("bench", &manifest(false))?;
    let released = Instant::now();
    stage.release().await?;
    wait_for_events(&stage.client, &stage.host, options.others + poisoned).await?;
    let release_seconds = released.elapsed().as_secs_f64();
    // After the release: to bring them back is no less work than to put them away.
    let host_peak_resident_bytes = stage.host.usage()?.peak_resident_bytes;
    let (alone_per_second, beside_per_second) =
        (options.others as f64 / alone_seconds, options.others as f64 / beside_seconds);
    Ok(PoisonedReport {
        others: options.others,
        poisoned,
        alone_per_second,
        beside_per_second,
        ratio: beside_per_second / alone_per_second,
        host_peak_resident_bytes,
        parked,
        release_seconds,
        violations: check(&stage.client, options.others + poisoned, stage.checker).await?,
    })
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
    async fn set(options: PoisonedOptions, poisoned: u64) -> Result<Self> {
        let nats = NatsServer::start().await?;
        let client = nats.client().await?;
        client.create_stream(&StreamSpec::new("BENCH", "bench.*")).await?;
        client.create_stream(&StreamSpec::new("BENCH-OUT", "bench-out.>")).await?;
        let mut checker = Checker::default();
        publish(&client, options, poisoned, &mut checker).await?;
        let mut host = Host::prepare(HostOptions { show_log: false, ..HostOptions::on(&nats.url()) })?;
        host.guest("ledger")?;
        host.manifest("bench", &manifest(poisoned > 0))?;
        host.start().await?;
        Ok(Self { client, host, checker, _nats: nats })
    }

    async fn others_done(&self, others: u64) -> Result<f64> {
        wait_for_events(&self.client, &self.host, others).await?;
        seconds_to(&self.client, others).await
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

async fn publish(client: &Client, options: PoisonedOptions, poisoned: u64, checker: &mut Checker) -> Result<()> {
    let progress = Progress::new("publishing", options.others);
    let mut batch = Vec::new();
    let mut add = |batch: &mut Vec<_>, key: String, n: u64| {
        let id = format!("{key}-{n}");
        batch.push(ledger_message(format!("bench.{key}"), &id, n, 256));
        checker.published(Published { key, n, id });
    };
    let every = options.others.checked_div(poisoned);
    for number in 0..options.others {
        add(&mut batch, format!("k{}", number % options.keys), number / options.keys + 1);
        if let Some(every) = every
            && number % every == 0
            && number / every < poisoned
        {
            add(&mut batch, POISONED.to_owned(), number / every + 1);
        }
        if batch.len() >= 4_096 || number + 1 == options.others {
            client.publish_all(&batch).await?;
            batch.clear();
            progress.at(number + 1);
        }
    }
    Ok(())
}
