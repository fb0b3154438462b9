//! Memory of consumers that have nothing to do.

use std::time::Duration;

use anyhow::{Context, Result};

use super::figures::{Case, RESIDENT_MB, Reading, reading};
use super::meter::{Meter, megabytes};
use super::pelton::{Isolation, Pelton};
use super::scale::Scale;
use super::stage::Stage;
use super::work::Work;
use crate::progress::say;

pub(crate) const BENCH: &str = "idle";

/// The case with one consumer.
pub(crate) const FEW: &str = "few";
/// The case with many.
pub(crate) const MANY: &str = "many";

/// How many there really were: fewer in a short run.
pub(crate) const CONSUMERS: &str = "consumers";

/// Consumers of the larger case.
const MANY_CONSUMERS: u64 = 101;

/// After the start a host settles down for so long before its memory is looked at.
const SETTLE: Duration = Duration::from_secs(3);

/// Runs it.
///
/// # Errors
/// The host does not come up.
pub(crate) async fn run(scale: Scale) -> Result<Vec<Case>> {
    let many = if scale.is_full() { MANY_CONSUMERS } else { 11 };
    let mut cases = Vec::new();
    for (consumers, name) in [(1, FEW), (many, MANY)] {
        let work = Work { consumers, ..Work::uniform(0) };
        let mut readings = Vec::new();
        for round in 1..=scale.runs {
            say(&format!("{BENCH}: {consumers} consumers, run {round} of {}", scale.runs));
            readings.push(once(&work).await?);
        }
        cases.push(Case::measured(BENCH, name, &format!("{consumers} consumers on empty streams"), &readings));
    }
    Ok(cases)
}

async fn once(work: &Work) -> Result<Reading> {
    let stage = Stage::empty(work).await?;
    let mut host = Pelton::with(Isolation::Fresh).prepare(&stage)?;
    Pelton::start_many(&mut host).await?;
    tokio::time::sleep(SETTLE).await;
    let resident = Meter::of(host.pid().context("the host runs")?)?.resident_bytes;
    Ok(reading([(RESIDENT_MB, megabytes(resident)), (CONSUMERS, work.consumers as f64)]))
}
