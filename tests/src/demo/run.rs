//! The run: publish, kill, start again, replace a plug-in, wait, compare.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use retail_feed::{Options, Report, Row};
use serde_json::Value;

use super::calculation::{Calculation, Findings};
use super::{DemoOptions, DemoReport};
use crate::client::Client;
use crate::host::{Host, HostOptions};
use crate::progress::{Progress, say};
use crate::{tools, wait};

/// The threshold of the example's manifest.
const THRESHOLD_PENCE: i64 = 100_000;

/// Of a hundred rows, so many are published twice.
const DUPLICATES_PERCENT: u8 = 5;

/// Poison in each part.
const POISON: u64 = 5;

/// How long the whole chain may take to catch up.
const LIMIT: Duration = Duration::from_secs(300);

/// Runs the demo.
///
/// # Errors
/// The run itself failed: something can't be built, found or started.
pub async fn run(options: &DemoOptions) -> Result<DemoReport> {
    let rows = rows(options)?;
    say("building the host and the plug-ins of examples/retail …");
    let mut host = prepare()?;
    let second_version = tools::totals_v2()?;
    say("starting a host with a nats-server of its own");
    host.start().await?;
    let calculation = Calculation::new(&rows, THRESHOLD_PENCE);
    let began = Instant::now();
    let published = publish_and_disturb(&mut host, &rows, &second_version).await?;
    let client = host.embedded_client().await?;
    wait_for_all(&host, &client, &calculation).await?;
    let time = began.elapsed();
    let dead_letters = wait_for_dead_letters(&host, published.poison).await?;
    let mut report = DemoReport {
        rows: published.rows,
        duplicates: published.duplicates,
        poison: published.poison,
        messages: published.stored(),
        dead_letters,
        time,
        ..DemoReport::default()
    };
    compare(&client, &calculation, &mut report).await?;
    ensure!(host.stop().await?.success(), "the host did not end well:\n{}", host.log_tail());
    Ok(report)
}

fn rows(options: &DemoOptions) -> Result<Vec<Row>> {
    let rows: Vec<Row> = match &options.data {
        Some(file) => retail_feed::read_csv(file)?.into_iter().take(options.count).collect(),
        None => retail_feed::generate(options.seed).take(options.count).collect(),
    };
    ensure!(rows.len() >= 100, "the demo needs at least 100 rows, and there are {}", rows.len());
    Ok(rows)
}

/// A host with the manifests of the example, each beside its component.
fn prepare() -> Result<Host> {
    let host = Host::prepare(HostOptions { show_log: false, ..HostOptions::embedded() })?;
    for name in ["totals", "notify"] {
        host.component(name, &tools::example(name)?)?;
        host.example_manifest("examples/retail", name)?;
    }
    Ok(host)
}

/// Publishes everything, kills the host half-way, and replaces the plug-in in the second half.
async fn publish_and_disturb(host: &mut Host, rows: &[Row], second_version: &Path) -> Result<Report> {
    let (first, second) = rows.split_at(rows.len() / 2);
    let (second, last) = second.split_at(second.len() * 3 / 4);
    let progress = Progress::new("publishing", rows.len() as u64);
    let mut all = Report::default();
    add(&mut all, &publish(host, first, POISON, &progress, 0).await?);
    let behind = applied(host, "totals").await?;
    progress.say(&format!("killing the host (SIGKILL) after {} rows; it has applied {behind} messages", first.len()));
    host.kill()?;
    host.start().await?;
    progress.say("the host is back; replacing the totals plug-in by its second version while traffic flows");
    let before = version(host).await?;
    host.component("totals", second_version)?;
    add(&mut all, &publish(host, second, POISON, &progress, first.len()).await?);
    let waiting = wait::until("the second version of totals serves", LIMIT, || async {
        Ok((version(host).await? != before).then_some(()))
    });
    waiting.await.with_context(|| format!("the host's log:\n{}", host.log_tail()))?;
    progress.say("the second version serves; publishing the rest");
    add(&mut all, &publish(host, last, 0, &progress, first.len() + second.len()).await?);
    Ok(all)
}

async fn publish(host: &Host, rows: &[Row], poison: u64, progress: &Progress, before: usize) -> Result<Report> {
    let url = host.embedded_url()?;
    let options = Options { duplicates_percent: DUPLICATES_PERCENT, poison, rate: None };
    Ok(retail_feed::publish(&url, rows.to_vec(), &options, |done| progress.at(before as u64 + done)).await?)
}

fn add(all: &mut Report, part: &Report) {
    all.rows += part.rows;
    all.duplicates += part.duplicates;
    all.poison += part.poison;
    all.known_to_broker += part.known_to_broker;
}

/// A consumer's part of the host's status.
async fn consumer(host: &Host, name: &str) -> Result<Value> {
    let status = host.status().await?;
    let consumers = status.get("consumers").and_then(Value::as_array);
    let found = consumers.into_iter().flatten().find(|entry| entry.get("name").and_then(Value::as_str) == Some(name));
    found.cloned().with_context(|| format!("the host does not know the consumer {name}"))
}

async fn applied(host: &Host, name: &str) -> Result<u64> {
    Ok(consumer(host, name).await?.get("applied").and_then(Value::as_u64).unwrap_or(0))
}

async fn version(host: &Host) -> Result<String> {
    let totals = consumer(host, "totals").await?;
    Ok(totals.get("version").and_then(Value::as_str).unwrap_or_default().to_owned())
}

/// Waits until both consumers have nothing left, or until nothing moves any more: then the comparison says what is missing.
async fn wait_for_all(host: &Host, client: &Client, calculation: &Calculation) -> Result<()> {
    let wanted = calculation.events() + calculation.notifications();
    let progress = Progress::new("waiting for events", wanted);
    let mut last = (0, Instant::now());
    loop {
        let events = client.stream_size("RETAIL_TOTALS").await?.0 + client.stream_size("RETAIL_NOTIFICATIONS").await?.0;
        progress.at(events);
        let idle = is_idle(&consumer(host, "totals").await?) && is_idle(&consumer(host, "notify").await?);
        if events >= wanted && idle {
            return Ok(());
        }
        if events != last.0 {
            last = (events, Instant::now());
        }
        if last.1.elapsed() > Duration::from_secs(20) {
            progress.say("nothing has come for 20 s: comparing what is there");
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn is_idle(consumer: &Value) -> bool {
    ["pending", "held", "outbox_pending"].iter().all(|name| consumer.get(name).and_then(Value::as_u64) == Some(0))
}

async fn wait_for_dead_letters(host: &Host, poison: u64) -> Result<u64> {
    let patience = Duration::from_secs(10);
    let found = host.wait_dead_letters("totals", usize::try_from(poison)?, patience).await;
    let count = match found {
        Ok(letters) => letters.len(),
        Err(_) => host.dead_letters("totals").await?.len(),
    };
    Ok(count as u64 + host.dead_letters("notify").await?.len() as u64)
}

async fn compare(client: &Client, calculation: &Calculation, report: &mut DemoReport) -> Result<()> {
    say("comparing every total and every notification with an independent calculation");
    let mut findings = Findings::default();
    let totals = everything(client, "RETAIL_TOTALS").await?;
    (report.applied_once, report.versions) = calculation.compare_totals(&totals, &mut findings)?;
    let notifications = everything(client, "RETAIL_NOTIFICATIONS").await?;
    calculation.compare_notifications(&notifications, &mut findings)?;
    report.events_out = (totals.len() + notifications.len()) as u64;
    report.findings = findings;
    Ok(())
}

async fn everything(client: &Client, stream: &str) -> Result<Vec<crate::reader::Stored>> {
    let count = usize::try_from(client.stream_size(stream).await?.0)?;
    client.read(stream).take(count, LIMIT).await
}
