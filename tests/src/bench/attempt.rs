//! What an attempt costs in the sandbox alone, on one thread and on two: a benchmark of the host's own (`host/benches/attempt.rs`), run as a program.

use anyhow::{Context, Result};

use super::figures::Case;
use super::pelton::GUEST;
use super::program;
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

/// The same of threads that only compute.
pub(crate) const PLAIN_TWO_THREADS: &str = "plain_two_threads_ratio";

/// Attempts of each part, in full.
const ATTEMPTS: u64 = 200_000;

/// Runs it.
///
/// # Errors
/// It can't be built, or an attempt goes wrong.
pub(crate) async fn run(scale: Scale) -> Result<Vec<Case>> {
    let component = tools::guest(GUEST)?;
    let mut readings = Vec::new();
    for round in 1..=scale.runs {
        say(&format!("{BENCH}, run {round} of {}", scale.runs));
        let component = component.to_str().context("the component's path is no text")?.to_owned();
        readings.push(program::figures(BENCH, vec![component, scale.of(ATTEMPTS).to_string()]).await?);
    }
    Ok(vec![Case::measured(BENCH, CASE, "attempts of order-counter in the sandbox alone, isolation fresh", &readings)])
}
