//! What a swap costs those who wait: the longest pause of any lane while new versions take over under load, beside the same load without any.
//!
//! A lane pauses while it has a message and nothing comes of it: from the moment that the message was stored, or that the event before it was, whichever was later,
//! to the moment that its own event was. All of it is measured by the server's clock, from outside.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::LIMIT;
use crate::checker::{Checker, LedgerEvent, Violations};
use crate::client::StreamSpec;
use crate::host::{Host, HostOptions};
use crate::load::{Load, LoadPlan};
use crate::manifest::Manifest;
use crate::nats::NatsServer;
use crate::progress::say;
use crate::random::Random;
use crate::{tools, wait};

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct SwapOptions {
    /// New versions, one after the other.
    pub swaps: u32,
    /// Messages a second that are asked for.
    pub rate: u32,
}

impl Default for SwapOptions {
    fn default() -> Self {
        Self { swaps: 20, rate: 10_000 }
    }
}

/// Pauses of one phase, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Pauses {
    /// Messages of the phase.
    pub messages: usize,
    /// The longest.
    pub longest_ms: u64,
    /// One message in a thousand waited longer.
    pub p999_ms: u64,
    /// Half of them did.
    pub median_ms: u64,
}

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub struct SwapReport {
    /// Versions that took over.
    pub swaps: u32,
    /// Without a swap.
    pub alone: Pauses,
    /// With them.
    pub swapping: Pauses,
    /// The longest pause with swaps by the longest one without.
    pub ratio: f64,
    /// What the checker found wrong.
    #[serde(flatten)]
    pub violations: Violations,
}

impl SwapReport {
    /// Whether it is right. What a pause may be depends on the machine; it is shown beside the same load without swaps.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.violations.total() == 0
    }

    /// A table for a reader.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = comfy_table::Table::new();
        let header = ["", "without a swap", &format!("with {} swaps", self.swaps)];
        table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED).set_header(header);
        let mut row = |name: &str, value: fn(&Pauses) -> u64| {
            _ = table.add_row([name.to_owned(), value(&self.alone).to_string(), value(&self.swapping).to_string()]);
        };
        row("messages", |pauses| pauses.messages as u64);
        row("longest pause of any lane, ms", |pauses| pauses.longest_ms);
        row("one message in 1,000 waited longer, ms", |pauses| pauses.p999_ms);
        row("half of them waited longer, ms", |pauses| pauses.median_ms);
        _ = table.add_row(["ratio of the longest".to_owned(), "1.0".to_owned(), format!("{:.1}", self.ratio)]);
        _ = table.add_row([
            "lost, doubled, reordered, …".to_owned(),
            String::new(),
            self.violations.total().to_string(),
        ]);
        table.to_string()
    }
}

/// Runs it.
///
/// # Errors
/// The server or the host does not come up, or a version does not take over in five minutes.
pub async fn run(options: SwapOptions) -> Result<SwapReport> {
    let nats = NatsServer::start().await?;
    let client = nats.client().await?;
    client.create_stream(&StreamSpec::new("BENCH", "bench.*")).await?;
    client.create_stream(&StreamSpec::new("BENCH-OUT", "bench-out.>")).await?;
    let mut host = Host::prepare(HostOptions { show_log: false, ..HostOptions::on(&nats.url()) })?;
    host.guest("ledger")?;
    let manifest = Manifest::new("ledger.wasm", "BENCH", "bench.*").emits("bench-out.>");
    host.manifest("bench", &manifest.section("[config]", "out = \"bench-out\""))?;
    host.start().await?;
    let plan = LoadPlan {
        prefix: "bench".to_owned(),
        keys: 300,
        exponent: 1.0,
        duplicates: 0.0,
        failing: 0.0,
        window: 500,
        rate: options.rate,
        payload_bytes: 256,
    };
    let checker = Arc::new(Mutex::new(Checker::default()));
    let mut load = Load::start(nats.client().await?, plan, Random::new(1), Arc::clone(&checker), 16);
    let missing = || checker.lock().unwrap_or_else(PoisonError::into_inner).missing();
    say("the load alone …");
    tokio::time::sleep(Duration::from_millis(500) * options.swaps).await;
    load.pause().await?;
    let alone = missing();
    say("the same with new versions …");
    load.resume(16);
    swap_all(&host, options.swaps).await?;
    load.pause().await?;
    load.end().await?;
    let all = missing();
    let (stored, events) =
        (client.read("BENCH").take(all, LIMIT).await?, client.read("BENCH-OUT").take(all, LIMIT).await?);
    let stored_at: HashMap<u64, u64> = stored.iter().map(|message| (message.sequence, message.stored_at_ms)).collect();
    let mut lanes: HashMap<String, u64> = HashMap::new();
    let (mut before, mut during) = (Vec::new(), Vec::new());
    for event in &events {
        let LedgerEvent { key, sequence, .. } = event.json()?;
        let came_at = stored_at.get(&sequence).copied().context("an event of a message that was never stored")?;
        let free_at = lanes.insert(key, event.stored_at_ms).unwrap_or(0);
        let pause = event.stored_at_ms.saturating_sub(came_at.max(free_at));
        if sequence <= alone as u64 {
            before.push(pause)
        } else {
            during.push(pause)
        }
        checker.lock().unwrap_or_else(PoisonError::into_inner).came_out(event)?;
    }
    let verdict = checker.lock().unwrap_or_else(PoisonError::into_inner).verdict();
    verdict.details.iter().for_each(|detail| say(detail));
    let (alone, swapping) = (pauses(before), pauses(during));
    let ratio = swapping.longest_ms as f64 / alone.longest_ms.max(1) as f64;
    Ok(SwapReport { swaps: options.swaps, alone, swapping, ratio, violations: verdict.violations })
}

/// Lays down one version after the other, each when the one before it serves.
async fn swap_all(host: &Host, swaps: u32) -> Result<()> {
    for n in 0..swaps {
        let before = version(host).await?;
        host.write("consumers/ledger.wasm", &tools::stamped(&tools::guest("ledger")?, &format!("swap {n}"))?)?;
        let waiting = wait::until("the new version serves", LIMIT, || async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok((version(host).await? != before).then_some(()))
        });
        waiting.await.with_context(|| format!("the host's log:\n{}", host.log_tail()))?;
    }
    Ok(())
}

/// The version that serves.
async fn version(host: &Host) -> Result<Option<serde_json::Value>> {
    Ok(host.consumer_status("bench").await?.get("version").cloned())
}

fn pauses(mut all: Vec<u64>) -> Pauses {
    all.sort_unstable();
    let at = |part: f64| all.get((all.len().saturating_sub(1) as f64 * part) as usize).copied().unwrap_or(0);
    Pauses { messages: all.len(), longest_ms: at(1.0), p999_ms: at(0.999), median_ms: at(0.5) }
}
