//! What an attempt costs in the sandbox alone, on one thread and on two: a benchmark of the host's own (`host/benches/attempt.rs`), run as a program.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::figures::{Case, Reading};
use super::pelton::GUEST;
use super::scale::Scale;
use crate::progress::say;
use crate::tools;

pub(crate) const BENCH: &str = "attempt";

/// The one case.
pub(crate) const CASE: &str = "fresh";
/// CPU time of an attempt with its three host calls: instance, call, and what the plug-in does.
pub(crate) const CPU: &str = "attempt_cpu_us";
/// Attempts a second of two threads, by those of one.
pub(crate) const TWO_THREADS: &str = "two_threads_ratio";

/// Attempts of each part, in full.
const ATTEMPTS: u64 = 200_000;

/// Runs it.
///
/// # Errors
/// It can't be built, or an attempt goes wrong.
pub(crate) async fn run(scale: Scale) -> Result<Vec<Case>> {
    let mut readings = Vec::new();
    for round in 1..=scale.runs {
        say(&format!("{BENCH}, run {round} of {}", scale.runs));
        let attempts = scale.of(ATTEMPTS);
        readings.push(tokio::task::spawn_blocking(move || once(attempts)).await.context("it was cancelled")??);
    }
    Ok(vec![Case::measured(BENCH, CASE, "attempts of order-counter in the sandbox alone, isolation fresh", &readings)])
}

fn once(attempts: u64) -> Result<Reading> {
    let component = tools::guest(GUEST)?;
    let mut cargo = tools::cargo();
    cargo.current_dir(tools::root()).args(["bench", "--quiet", "--package", "pelton", "--bench", "attempt", "--"]);
    let said = tools::run("the benchmark of attempts", cargo.arg(component).arg(attempts.to_string()))?;
    let line = said.lines().find(|line| line.starts_with('{')).context("the benchmark of attempts said nothing")?;
    let figures: BTreeMap<String, f64> = serde_json::from_str(line).context("what the benchmark of attempts said")?;
    Ok(figures)
}
