//! The task runner behind the README's commands: `cargo xtask demo`, `test`, `sim`, `crash`, `faults`, `bench`.
//!
//! Only the command line lives here; what the commands do is in `pelton-tests`. Exit status 0: all is well; 1: something is not.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand};
use pelton_tests::bench::{self, BENCHES, Scale};
use pelton_tests::crash::{self, BREAKS, CrashOptions, CrashReport};
use pelton_tests::demo::{self, DemoOptions};
use pelton_tests::faults::{self, FaultsOptions};
use pelton_tests::sim::{self, SimOptions};
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
    /// Run the core and the store through seeded histories of crashes, power losses and a lying broker, in virtual time
    Sim {
        /// How long, in seconds
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// The first seed; without, one is taken from the clock
        #[arg(long)]
        seed: Option<u64>,
        /// End after so many messages, however long it takes
        #[arg(long)]
        messages: Option<u64>,
        /// Break a guarantee on purpose and see that it is noticed: exit status 1 when it is
        #[arg(long = "break", value_name = "NAME")]
        broken: Option<String>,
        /// Run one case alone, as a failing run printed it
        #[arg(long, value_name = "CASE", conflicts_with_all = ["seed", "messages"])]
        case: Option<String>,
    },
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
    /// Make every kind of fault that the host must survive, row by row, and check after each that nothing is lost, doubled, reordered or invented
    Faults {
        /// Only this row; may be given several times
        #[arg(long = "row", value_name = "N")]
        rows: Vec<u32>,
        /// The seed of every random choice; without, one is taken from the clock and printed
        #[arg(long)]
        seed: Option<u64>,
        /// Break a guarantee on purpose and see which rows notice: they fail then
        #[arg(long = "break", value_name = "NAME", value_parser = BREAKS)]
        broken: Option<String>,
    },
    /// Measure throughput, latency, CPU time, memory and recovery, beside what Pelton is compared with
    Bench {
        /// Only these benches; all without
        #[arg(value_name = "NAME", value_parser = PossibleValuesParser::new(BENCHES.iter().map(|bench| bench.name)))]
        names: Vec<String>,
        /// Print one line of JSON in place of the tables
        #[arg(long)]
        json: bool,
        /// A few seconds for each: shows that the benchmark works, and its figures mean nothing
        #[arg(long)]
        short: bool,
        /// Messages of the main work (200000), and as many more or fewer of all else
        #[arg(long, conflicts_with = "short")]
        messages: Option<u64>,
        /// Make BENCHMARKS.md of a full run of all benches
        #[arg(long, conflicts_with_all = ["names", "short"])]
        write: bool,
        /// How often each case is measured; the figure is the median
        #[arg(long)]
        runs: Option<usize>,
    },
    /// What the benchmark starts as a process of its own to compare Pelton with
    #[command(hide = true)]
    Contestant {
        /// What to do, as JSON
        task: String,
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
        Task::Sim { seconds, seed, messages, broken, case } => {
            let seed = seed.unwrap_or_else(seed_from_clock);
            let options = SimOptions { seconds, seed, messages, broken, case };
            tokio::task::spawn_blocking(move || sim::run(&options)).await?
        }
        Task::Crash { rounds, seed, broken, points } => {
            let seed = seed.unwrap_or_else(seed_from_clock);
            if points {
                return Ok(conclude(&crash::points(seed, None).await?, None));
            }
            let options = CrashOptions { rounds, seed, broken };
            Ok(conclude(&crash::rounds(&options).await?, options.broken.as_deref()))
        }
        Task::Faults { rows, seed, broken } => {
            let options = FaultsOptions { rows, seed: seed.unwrap_or_else(seed_from_clock), broken };
            let report = faults::run(&options).await?;
            println!("{}\n{}", report.table(), serde_json::to_string(&report)?);
            Ok(report.is_good())
        }
        Task::Bench { names, json, short, messages, write, runs } => {
            let scale = if short { Scale::short() } else { Scale::full() };
            let scale = messages.map_or(scale, |messages| scale.with_messages(messages));
            let scale = runs.map_or(scale, |runs| scale.with_runs(runs.max(1)));
            measure(&names, json, scale, write).await
        }
        Task::Contestant { task } => bench::perform(&task).await.map(|()| true),
    }
}

/// Measures; true if everything that was measured was also right, whatever the figures are.
async fn measure(names: &[String], json: bool, scale: Scale, write: bool) -> Result<bool> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let report = bench::run(names, scale, &format!("cargo xtask {}", arguments.join(" "))).await?;
    let folder = bench::save(&report)?;
    eprintln!("figures and pictures: {}", folder.display());
    if write {
        bench::write(&report)?;
    }
    println!("{}", if json { serde_json::to_string(&report)? } else { report.table() });
    Ok(true)
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
