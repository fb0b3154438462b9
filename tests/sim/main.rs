//! The deterministic simulation: the real core and the real store in a world where everything goes wrong, seed after seed.
//!
//! `cargo xtask sim` builds and runs it. A run is a function of its seed. The model that it is compared with is a fold per key (`books`, `ledger`, `outbox`) and knows
//! nothing of how core and store work. A run that breaks a promise is made smaller and printed as one line, which belongs into `kept.txt`.
#![allow(
    clippy::indexing_slicing,
    reason = "a place that is not there is an error of the simulator, which has to end it"
)]

mod actions;
mod books;
mod broker;
mod case;
mod chance;
mod checks;
mod disk;
mod host;
mod ledger;
mod operators;
mod outbox;
mod plan;
mod report;
mod run;
mod runs;
mod script;
mod streams;
mod tally;
#[cfg(test)]
mod tests;
mod trouble;
mod troubles;
mod violation;
mod wire;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use pelton_core::breaks::{Break, Breaks};

use crate::case::Case;
use crate::report::{Limits, simulate};

#[derive(Parser)]
#[command(name = "pelton-sim", about = "Run the core and the store through seeded histories of failures")]
struct Arguments {
    /// How long to run, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// End after so many messages, however long it takes
    #[arg(long)]
    messages: Option<u64>,
    /// Break a guarantee on purpose and see that it is noticed: exit status 1 when it is
    #[arg(long = "break", value_name = "NAME")]
    broken: Option<String>,
    /// Run this case alone, as a failing run printed it
    #[arg(long, value_name = "CASE", conflicts_with = "messages")]
    case: Option<Case>,
    /// Go on after a broken promise, and tell how often each was
    #[arg(long)]
    all: bool,
    /// Threads
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    threads: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let breaks = match arguments.broken.as_deref().map(named_break).transpose() {
        Ok(broken) => broken.map(Breaks::one).unwrap_or_default(),
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let kept = match case::kept() {
        Ok(kept) => kept,
        Err(error) => {
            eprintln!("error: tests/sim/kept.txt: {error}");
            return ExitCode::from(2);
        }
    };
    // A panic is a violation like any other, and is reported as one.
    std::panic::set_hook(Box::new(|_| {}));
    let limits = Limits {
        first_seed: arguments.seed,
        time: Duration::from_secs(arguments.seconds),
        messages: arguments.messages,
        only: arguments.case,
        kept: if arguments.broken.is_some() { Vec::new() } else { kept },
        threads: arguments.threads.max(1),
        go_on: arguments.all,
    };
    let report = simulate(&limits, breaks);
    println!("{}", report.verdict(arguments.broken.as_deref()));
    println!("{}", report.json(arguments.broken.as_deref()));
    if report.found.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn named_break(name: &str) -> Result<Break, String> {
    let known = || Break::ALL.map(|(known, _)| known).join(", ");
    let found = Break::ALL.into_iter().find(|(known, _)| *known == name);
    found.map(|(_, broken)| broken).ok_or_else(|| format!("{name} is none of {}", known()))
}
