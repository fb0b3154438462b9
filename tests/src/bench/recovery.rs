//! How soon a host is ready that was killed with all of the work in its commit log and none of it folded.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::figures::{Case, READY_MS, Reading, reading};
use super::meter::megabytes;
use super::pelton::{Isolation, Pelton};
use super::scale::Scale;
use super::stage::{OUTPUT, Stage};
use super::work::{Work, must_be_right};
use crate::progress::say;

pub(crate) const BENCH: &str = "recovery";

/// The one case.
pub(crate) const CASE: &str = "killed";

/// The commit log's file when the host was killed.
const LOG_MB: &str = "log_mb";

/// Nothing is folded before the kill: neither time nor memory asks for it.
const NO_CHECKPOINT: &str = "[store]\ncheckpoint_interval_ms = 3600000\noverlay_bytes_max = 8589934592\n";

/// Runs it.
///
/// # Errors
/// The host does not come up, does not finish, or has lost something.
pub(crate) async fn run(scale: Scale) -> Result<Vec<Case>> {
    let stage = Stage::with(&Work::uniform(scale.messages())).await?;
    let mut readings = Vec::new();
    for round in 1..=scale.runs {
        say(&format!("{BENCH}, run {round} of {}", scale.runs));
        readings.push(once(&stage).await?);
    }
    let about = format!("killed with {} messages in the log, then started", stage.work.total());
    Ok(vec![Case::measured(BENCH, CASE, &about, &readings)])
}

async fn once(stage: &Stage) -> Result<Reading> {
    stage.clear().await?;
    let mut host = Pelton::with(Isolation::Fresh).host(NO_CHECKPOINT).prepare(stage)?;
    host.start().await?;
    let expected = stage.expected();
    stage.wait_events(expected.events(), || host.log_tail()).await?;
    host.kill()?;
    let log = std::fs::metadata(host.path("data/commit.log")).context("the commit log")?.len();
    let began = Instant::now();
    host.start().await?;
    let ready = began.elapsed();
    let status = host.stop().await?;
    ensure!(status.success(), "the host ended with {status}:\n{}", host.log_tail());
    must_be_right("pelton", expected.check(&stage.client, OUTPUT).await?)?;
    Ok(reading([(READY_MS, ready.as_secs_f64() * 1_000.0), (LOG_MB, megabytes(log))]))
}
