//! Rows 1 to 3: the host dies, at any time, at the worst times, and with the machine under it.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::trial::Trial;
use crate::crash::{self, CrashOptions, CrashReport};
use crate::steps::Count;
use crate::tools;

/// How often the host is killed in row 1; a longer run is `cargo xtask crash`.
const ROUNDS: u64 = 6;

/// Power-loss images of row 3, of each kind.
const IMAGES: &str = "500";

/// Row 1.
pub(super) async fn at_random(trial: &mut Trial) -> Result<()> {
    let broken = trial.broken().map(str::to_owned);
    let report = crash::rounds(&CrashOptions { rounds: ROUNDS, seed: trial.random.draw(), broken }).await?;
    take_over(trial, &report)
}

/// Row 2.
pub(super) async fn at_points(trial: &mut Trial) -> Result<()> {
    let seed = trial.random.draw();
    let report = crash::points(seed, trial.broken()).await?;
    take_over(trial, &report)
}

fn take_over(trial: &mut Trial, report: &CrashReport) -> Result<()> {
    trial.rounds(report.rounds);
    trial.found(report.messages, report.violations)
}

/// Builds what row 3 runs: the time of the compiler is not the row's.
pub(super) fn build_power_loss() -> Result<()> {
    tools::run("building the store's power-loss tests", power_tests().arg("--no-run")).map(drop)
}

/// Row 3. A guarantee of the host that is broken on purpose is none of the store's: this row does not notice it. A SIGKILL leaves the page cache, so the power is lost where the store's own tests can lose it: between it and its disk.
pub(super) async fn power_loss(trial: &mut Trial) -> Result<()> {
    let said = tokio::task::spawn_blocking(|| {
        tools::run("the store's power-loss tests", power_tests().arg("store::tests::power"))
    });
    let mut count = Count::default();
    said.await.context("the tests were cancelled")??.lines().for_each(|line| count.add_line(line));
    ensure!(count.passed > 0 && count.failed == 0, "{} power-loss tests passed, {} failed", count.passed, count.failed);
    trial.rounds(count.passed);
    trial.note(format!("{} tests passed, with PELTON_POWER_IMAGES={IMAGES}", count.passed));
    Ok(())
}

fn power_tests() -> Command {
    let mut cargo = tools::cargo();
    cargo.current_dir(tools::root()).env("PELTON_POWER_IMAGES", IMAGES);
    cargo.args(["test", "--quiet", "--release", "--package", "pelton", "--lib"]);
    cargo
}
