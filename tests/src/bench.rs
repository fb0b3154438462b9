//! `cargo xtask bench`: the throughput and the cost of the main path, with the server on the same machine.
//!
//! 200,000 messages of 256 bytes over 1,000 keys wait in a stream; the host is started and each of them costs a check for duplicates, a
//! read and a write of state, and one event. The checker then looks at every event, so that a fast wrong answer is no result.

mod poisoned;
mod swap;

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

pub use poisoned::{PoisonedOptions, PoisonedReport, run as poisoned};
pub use swap::{SwapOptions, SwapReport, run as swap};

use crate::checker::{Checker, Published, Violations};
use crate::client::{Client, StreamSpec};
use crate::host::{Host, HostOptions};
use crate::load::ledger_message;
use crate::manifest::Manifest;
use crate::nats::NatsServer;
use crate::process::Usage;
use crate::progress::{Progress, say};
use crate::wait;

/// Messages a second that must be kept up with.
pub const RATE_MIN: f64 = 10_000.0;

/// Resident memory that the host must stay below, in bytes.
pub const RESIDENT_BYTES_MAX: u64 = 300 << 20;

/// How long the host may take for everything.
const LIMIT: Duration = Duration::from_secs(300);

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct BenchOptions {
    /// Messages.
    pub messages: u64,
    /// Keys over which they are spread evenly.
    pub keys: u64,
    /// Payload of a message, in bytes.
    pub payload_bytes: usize,
}

impl Default for BenchOptions {
    fn default() -> Self {
        Self { messages: 200_000, keys: 1_000, payload_bytes: 256 }
    }
}

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    /// Messages.
    pub messages: u64,
    /// From the first event to the last, in seconds.
    pub seconds: f64,
    /// Messages a second over that time.
    pub messages_per_second: f64,
    /// The most memory that the host had resident, in bytes.
    pub host_peak_resident_bytes: u64,
    /// CPU time of the host a message, in microseconds, its start included.
    pub host_cpu_us_per_message: f64,
    /// CPU time of the server a message, in microseconds: delivering it and storing its event.
    pub server_cpu_us_per_message: f64,
    /// What the checker found wrong.
    #[serde(flatten)]
    pub violations: Violations,
}

impl BenchReport {
    /// Whether it is fast, small and right.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.messages_per_second >= RATE_MIN
            && self.host_peak_resident_bytes <= RESIDENT_BYTES_MAX
            && self.violations.total() == 0
    }

    /// A table for a reader.
    #[must_use]
    pub fn table(&self) -> String {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED).set_header(["", "measured", "wanted"]);
        let mut row =
            |name: &str, measured: String, wanted: String| _ = table.add_row([name.to_owned(), measured, wanted]);
        row("messages", self.messages.to_string(), String::new());
        row("messages/s", format!("{:.0}", self.messages_per_second), format!("at least {RATE_MIN:.0}"));
        row(
            "host, peak resident MiB",
            format!("{:.0}", mebibytes(self.host_peak_resident_bytes)),
            format!("at most {:.0}", mebibytes(RESIDENT_BYTES_MAX)),
        );
        row("host, CPU µs a message", format!("{:.1}", self.host_cpu_us_per_message), String::new());
        row("server, CPU µs a message", format!("{:.1}", self.server_cpu_us_per_message), String::new());
        row("lost, doubled, reordered, …", self.violations.total().to_string(), "0".to_owned());
        table.to_string()
    }
}

/// Runs it.
///
/// # Errors
/// The server or the host does not come up, or the host does not finish in five minutes.
pub async fn run(options: BenchOptions) -> Result<BenchReport> {
    let nats = NatsServer::start().await?;
    let client = nats.client().await?;
    client.create_stream(&StreamSpec::new("BENCH", "bench.*")).await?;
    client.create_stream(&StreamSpec::new("BENCH-OUT", "bench-out.>")).await?;
    let mut checker = Checker::default();
    publish(&client, options, &mut checker).await?;
    let mut host = Host::prepare(HostOptions { show_log: false, ..HostOptions::on(&nats.url()) })?;
    host.guest("ledger")?;
    let manifest = Manifest::new("ledger.wasm", "BENCH", "bench.*").emits("bench-out.>");
    host.manifest("bench", &manifest.section("[config]", "out = \"bench-out\""))?;
    let server_pid = nats.pid().context("the server runs")?;
    let before = Usage::of(server_pid)?;
    host.start().await?;
    wait_for_events(&client, &host, options.messages).await?;
    let (host_usage, server_usage) = (host.usage()?, Usage::of(server_pid)?);
    let seconds = seconds_to(&client, options.messages).await?;
    let per_message = |cpu_ms: u64| cpu_ms as f64 * 1_000.0 / options.messages as f64;
    Ok(BenchReport {
        messages: options.messages,
        seconds,
        messages_per_second: options.messages as f64 / seconds,
        host_peak_resident_bytes: host_usage.peak_resident_bytes,
        host_cpu_us_per_message: per_message(host_usage.cpu_ms),
        server_cpu_us_per_message: per_message(server_usage.cpu_ms.saturating_sub(before.cpu_ms)),
        violations: check(&client, options.messages, checker).await?,
    })
}

async fn publish(client: &Client, options: BenchOptions, checker: &mut Checker) -> Result<()> {
    let progress = Progress::new("publishing", options.messages);
    let mut batch = Vec::new();
    for number in 0..options.messages {
        let (key, n) = (format!("k{}", number % options.keys), number / options.keys + 1);
        let id = format!("{key}-{n}");
        batch.push(ledger_message(format!("bench.{key}"), &id, n, options.payload_bytes));
        checker.published(Published { key, n, id });
        if batch.len() == 4_096 || number + 1 == options.messages {
            client.publish_all(&batch).await?;
            batch.clear();
            progress.at(number + 1);
        }
    }
    Ok(())
}

/// Waits until so many events have been stored.
pub(crate) async fn wait_for_events(client: &Client, host: &Host, count: u64) -> Result<()> {
    let progress = Progress::new("running", count);
    let waiting = wait::until("every message has left its event", LIMIT, || async {
        // The server is busy with the run itself: it is asked now and then.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (stored, _) = client.stream_size("BENCH-OUT").await?;
        progress.at(stored);
        Ok((stored >= count).then_some(()))
    });
    waiting.await.with_context(|| format!("the host's log:\n{}", host.log_tail()))
}

/// How long it took from the first event stored to number `count`, in seconds.
pub(crate) async fn seconds_to(client: &Client, count: u64) -> Result<f64> {
    let first = client.stored_at_ms("BENCH-OUT", 1).await?;
    let last = client.stored_at_ms("BENCH-OUT", count).await?;
    Ok((last.saturating_sub(first).max(1)) as f64 / 1_000.0)
}

/// Hands every event to the checker.
pub(crate) async fn check(client: &Client, count: u64, mut checker: Checker) -> Result<Violations> {
    say("checking every event …");
    let count = usize::try_from(count)?;
    for stored in client.read("BENCH-OUT").take(count, LIMIT).await? {
        checker.came_out(&stored)?;
    }
    let verdict = checker.verdict();
    verdict.details.iter().for_each(|detail| say(detail));
    Ok(verdict.violations)
}
