//! The task runner behind the README's commands: `cargo xtask demo`, `test`, `crash`, `bench`.
//!
//! Only the command line lives here; what the commands do is in `pelton-tests`. Exit status 0: all is well; 1: something is not.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use pelton_tests::bench::{self, BenchOptions};
use pelton_tests::crash::{self, BREAKS, CrashOptions, CrashReport};
use pelton_tests::demo::{self, DemoOptions};
use pelton_tests::steps;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Try, test and measure Pelton on this machine")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Show the whole: retail events, a host killed half-way, a plug-in swapped under load, and an independent calculation
    Demo {
        /// A CSV of invoice lines (InvoiceNo, StockCode, Description, Quantity, InvoiceDate, UnitPrice, CustomerID, Country) instead of generated ones
        #[arg(long, value_name = "FILE")]
        data: Option<PathBuf>,
        /// Events to publish, repetitions not counted
        #[arg(long, default_value_t = 50_000)]
        count: usize,
        /// The seed of every random choice
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Build everything and run all tests
    Test,
    /// Kill the host at random moments under load and check that nothing is lost, doubled, reordered or invented
    Crash {
        /// How often the host is killed; every fifth time the server is killed as well
        #[arg(long, default_value_t = 100)]
        rounds: u64,
        /// The seed of every random choice; without, one is taken from the clock and printed
        #[arg(long)]
        seed: Option<u64>,
        /// Break a guarantee on purpose and see that the checker finds it: exit status 1 when it does
        #[arg(long = "break", value_name = "NAME", value_parser = BREAKS)]
        broken: Option<String>,
        /// Die once at each named point of the host instead of at random moments
        #[arg(long, conflicts_with_all = ["rounds", "broken"])]
        points: bool,
    },
    /// Measure throughput, memory and CPU time of the main path
    Bench {
        /// Print one line of JSON in place of the table
        #[arg(long)]
        json: bool,
        /// Messages to run through
        #[arg(long, default_value_t = BenchOptions::default().messages)]
        messages: u64,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().command).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(task: Task) -> Result<bool> {
    match task {
        Task::Demo { data, count, seed } => {
            let report = demo::run(&DemoOptions { data, count, seed }).await?;
            println!("{}\n{}", report.table(), report.verdict());
            Ok(report.is_good())
        }
        Task::Test => {
            let outcome = tokio::task::spawn_blocking(steps::test).await?;
            println!("{}", if outcome.is_ok() { "verdict: all is well" } else { "verdict: NOT well" });
            outcome.map(|count| count.failed == 0)
        }
        Task::Crash { rounds, seed, broken, points } => {
            let seed = seed.unwrap_or_else(seed_from_clock);
            if points {
                return Ok(conclude(&crash::points(seed).await?, None));
            }
            let options = CrashOptions { rounds, seed, broken };
            Ok(conclude(&crash::rounds(&options).await?, options.broken.as_deref()))
        }
        Task::Bench { json, messages } => {
            let report = bench::run(BenchOptions { messages, ..BenchOptions::default() }).await?;
            if json {
                println!("{}", serde_json::to_string(&report)?)
            } else {
                println!("{}", report.table())
            }
            Ok(report.is_good())
        }
    }
}

/// Says how a crash run went; the last line is the report as JSON.
fn conclude(report: &CrashReport, broken: Option<&str>) -> bool {
    let found = report.violations.total();
    match (broken, found) {
        (None, 0) => println!("verdict: nothing lost, doubled, reordered, unpublished or foreign"),
        (None, _) => println!("verdict: {found} violations"),
        (Some(name), 0) => {
            println!("verdict: {name} was broken on purpose and NOT noticed in {} rounds", report.rounds)
        }
        (Some(name), _) => {
            println!("verdict: the break {name} was found in round {}, {found} violations", report.rounds)
        }
    }
    println!("{}", serde_json::to_string(report).unwrap_or_default());
    found == 0
}

fn seed_from_clock() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(1, |time| time.as_secs() ^ u64::from(time.subsec_nanos()))
}
