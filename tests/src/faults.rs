//! `cargo xtask faults`: what the host must survive, one row for each kind of fault, against the real binary and a real server.
//!
//! After every row a checker that knows only what was published and what came out judges the whole run: every message applied exactly once and in the
//! order of its key, every event published, nothing that was not committed; the lag is gone, memory, open files and disk stay bounded. A
//! row whose tool is missing has failed.

mod damage;
mod disk;
mod frame;
mod history;
mod killed;
mod messages;
mod mixed;
mod mount;
mod network;
mod paused;
mod plugins;
mod poison;
mod proxy;
mod seen;
mod stalls;
mod strace;
mod trial;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::LocalBoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use serde::Serialize;

use crate::progress::say;
use crate::tools::{self, HostBuild};
use trial::Trial;

/// How long a row may take.
const ROW_LIMIT: Duration = Duration::from_secs(180);

/// Rows that are tried at one time: most of them wait most of the time.
const ROWS_AT_ONCE: usize = 4;

/// A kind of fault and how it is tried.
struct Row {
    number: u32,
    fault: &'static str,
    play: for<'a> fn(&'a mut Trial) -> LocalBoxFuture<'a, Result<()>>,
}

const fn row(
    number: u32,
    fault: &'static str,
    play: for<'a> fn(&'a mut Trial) -> LocalBoxFuture<'a, Result<()>>,
) -> Row {
    Row { number, fault, play }
}

/// All of them. Those that take longest are begun first.
const ROWS: [Row; 20] = [
    row(3, "power lost under the database", |trial| killed::power_loss(trial).boxed_local()),
    row(1, "host killed at a random time", |trial| killed::at_random(trial).boxed_local()),
    row(2, "host killed at a named point", |trial| killed::at_points(trial).boxed_local()),
    row(8, "server or host frozen", |trial| paused::frozen(trial).boxed_local()),
    row(11, "connection cut, silent, reset mid-frame", |trial| network::broken(trial).boxed_local()),
    row(9, "stream went backwards", |trial| history::backwards(trial).boxed_local()),
    row(19, "stalled disk, slow relay", |trial| stalls::stalls(trial).boxed_local()),
    row(4, "I/O error at the n-th operation", |trial| disk::io_error(trial).boxed_local()),
    row(5, "disk full, read-only", |trial| disk::full(trial).boxed_local()),
    row(6, "database file damaged or foreign", |trial| damage::damaged(trial).boxed_local()),
    row(7, "server killed and restarted", |trial| paused::server_killed(trial).boxed_local()),
    row(10, "broker forgets how far the host was", |trial| history::forgotten(trial).boxed_local()),
    row(12, "only acks, only PubAcks lost", |trial| network::acks_lost(trial).boxed_local()),
    row(13, "outage longer than the duplicate window", |trial| network::beyond_the_window(trial).boxed_local()),
    row(14, "duplicates and shuffled redelivery", |trial| messages::shuffled(trial).boxed_local()),
    row(15, "stream, durable, output stream deleted", |trial| history::deleted(trial).boxed_local()),
    row(16, "poison messages", |trial| poison::poisoned(trial).boxed_local()),
    row(17, "clock jumps", |trial| messages::clock_jumps(trial).boxed_local()),
    row(18, "half-written and swapped component", |trial| plugins::swapped(trial).boxed_local()),
    row(20, "all of it, mixed", |trial| mixed::mixed(trial).boxed_local()),
];

/// Rows whose host has its faults compiled in: it is built before they begin.
const FAULTY_ROWS: [u32; 2] = [2, 17];

/// What to do.
#[derive(Clone, Debug)]
pub struct FaultsOptions {
    /// Which rows; empty: all.
    pub rows: Vec<u32>,
    /// The seed of every random choice.
    pub seed: u64,
    /// A guarantee of the host to break on purpose: a row that is worth something fails then.
    pub broken: Option<String>,
}

/// How a row went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RowReport {
    /// Its number in the plan.
    pub row: u32,
    /// What was done to the host.
    pub fault: &'static str,
    /// How often.
    pub rounds: u64,
    /// Messages published and acknowledged meanwhile, repetitions not counted.
    pub messages: u64,
    /// What the checker found wrong.
    pub violations: u64,
    /// `ok` or `FAILED`.
    pub result: &'static str,
    /// What was seen, or why it failed.
    pub note: String,
}

/// How it went; printed as one line of JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FaultsReport {
    /// Row by row.
    pub rows: Vec<RowReport>,
    /// Of all rows.
    pub violations: u64,
    /// The seed to repeat it with.
    pub seed: u64,
}

impl FaultsReport {
    /// Whether every row holds.
    #[must_use]
    pub fn is_good(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| row.result == "ok")
    }

    /// A table for a reader.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED);
        table.set_header(["row", "fault", "rounds", "messages", "result", ""]);
        for row in &self.rows {
            let RowReport { row, fault, rounds, messages, result, note, .. } = row;
            let note: String = note.chars().take(300).collect();
            table.add_row([&row.to_string(), *fault, &rounds.to_string(), &messages.to_string(), result, &note]);
        }
        table.to_string()
    }
}

/// Tries the rows. The report tells about those that failed; they are no error.
///
/// # Errors
/// A row is not known, or what all of them need can't be built.
pub async fn run(options: &FaultsOptions) -> Result<FaultsReport> {
    let known = |number: &u32| ROWS.iter().any(|row| row.number == *number);
    let unknown = options.rows.iter().find(|number| !known(number));
    ensure!(unknown.is_none(), "there is no row {}: they go from 1 to {}", unknown.unwrap_or(&0), ROWS.len());
    let wanted: Vec<&Row> =
        ROWS.iter().filter(|row| options.rows.is_empty() || options.rows.contains(&row.number)).collect();
    tools::host(HostBuild::Normal).context("the rows need the host")?;
    if options.broken.is_some() || wanted.iter().any(|row| FAULTY_ROWS.contains(&row.number)) {
        tools::host(HostBuild::Faulty).context("some rows need the host with faults compiled in")?;
    }
    tools::guest("ledger")?;
    if wanted.iter().any(|row| row.number == 3) {
        killed::build_power_loss()?;
    }
    let playing = wanted.iter().map(|row| play(row, options));
    let mut rows: Vec<RowReport> = stream::iter(playing).buffer_unordered(ROWS_AT_ONCE).collect().await;
    rows.sort_by_key(|row| row.row);
    let violations = rows.iter().map(|row| row.violations).sum();
    Ok(FaultsReport { rows, violations, seed: options.seed })
}

async fn play(row: &Row, options: &FaultsOptions) -> RowReport {
    say(&format!("row {}: {} …", row.number, row.fault));
    let began = Instant::now();
    let mut trial = Trial::new(options.seed ^ u64::from(row.number), options.broken.clone());
    let outcome = match tokio::time::timeout(ROW_LIMIT, (row.play)(&mut trial)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(anyhow::anyhow!("not done after {} s", ROW_LIMIT.as_secs())),
    };
    if let Err(error) = &outcome {
        say(&format!("row {}: {error:#}", row.number));
    }
    let report = trial.report(row.number, row.fault, outcome);
    let RowReport { result, note, .. } = &report;
    say(&format!("row {}: {result} after {:.1} s: {note}", row.number, began.elapsed().as_secs_f32()));
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_plan_is_there_once() {
        let mut numbers: Vec<u32> = ROWS.iter().map(|row| row.number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
    }

    #[test]
    fn a_row_that_failed_makes_the_whole_fail_and_says_why() {
        let mut trial = Trial::new(1, None);
        trial.round();
        let failed = trial.report(4, "I/O error", Err(anyhow::anyhow!("needs strace")));
        assert_eq!((failed.result, failed.note.as_str(), failed.rounds), ("FAILED", "needs strace", 1));
        let fine = Trial::new(1, None).report(1, "killed", Ok(()));
        assert_eq!(fine.result, "ok");
        assert!(FaultsReport { rows: vec![fine.clone()], ..FaultsReport::default() }.is_good());
        assert!(!FaultsReport { rows: vec![fine, failed], ..FaultsReport::default() }.is_good());
        assert!(!FaultsReport::default().is_good(), "no row, no proof");
    }
}
