//! The same work over more and more keys, each of which has state already; and what a host needs that has so many keys and nothing to do.
//!
//! One message of each key is handled first. Then, as often as the scale says, more of the work is published while the host is stopped, and the host is started
//! over it: so each run also measures a start with so many keys in the view.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::figures::{Case, READY_MS, RESIDENT_MB, Reading};
use super::meter::{Meter, megabytes};
use super::pelton::{Isolation, Pelton};
use super::scale::Scale;
use super::stage::{OUTPUT, Stage};
use super::work::{Work, must_be_right};
use crate::host::Host;
use crate::progress::say;

pub(crate) const BENCH: &str = "keys";

/// How many, and the case's name.
pub(crate) const COUNTS: [(u64, &str); 4] =
    [(1_000, "1000"), (10_000, "10000"), (100_000, "100000"), (1_000_000, "1000000")];

/// How many keys there really were: fewer in a short run.
pub(crate) const KEYS: &str = "keys";

/// After the start a host settles down for so long before its memory is looked at.
const SETTLE: Duration = Duration::from_secs(3);

/// Runs it.
///
/// # Errors
/// The host does not come up, does not finish, or does the work wrongly.
pub(crate) async fn run(scale: Scale) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (keys, name) in COUNTS {
        say(&format!("{BENCH}: {name}"));
        let work = Work { keys: scale.of(keys), each_key_first: true, ..Work::uniform(scale.messages()) };
        let readings = with_keys(&work, scale.runs).await?;
        cases.push(Case::measured(BENCH, name, "the work over so many keys with state, isolation fresh", &readings));
    }
    Ok(cases)
}

async fn with_keys(work: &Work, runs: usize) -> Result<Vec<Reading>> {
    let mut stage = Stage::empty(work).await?;
    let mut host = Pelton::with(Isolation::Fresh).prepare(&stage)?;
    stage.publish(work.keys).await?;
    host.start().await?;
    stage.wait_events(stage.expected().events(), || host.log_tail()).await?;
    stop(&mut host).await?;
    let mut readings = Vec::new();
    for round in 1..=runs {
        say(&format!("{BENCH}: {} keys, run {round} of {runs}", work.keys));
        readings.push(once(&mut stage, &mut host).await?);
    }
    must_be_right("pelton", stage.expected().check(&stage.client, OUTPUT).await?)?;
    let resident = idle_resident_mb(&stage, &mut host).await?;
    for reading in &mut readings {
        reading.insert(RESIDENT_MB.to_owned(), resident);
        reading.insert(KEYS.to_owned(), work.keys as f64);
    }
    Ok(readings)
}

async fn once(stage: &mut Stage, host: &mut Host) -> Result<Reading> {
    let before = stage.expected().events();
    stage.publish(stage.work.messages).await?;
    let events = stage.expected().events();
    let server_before = stage.server_cpu_ms()?;
    let began = Instant::now();
    host.start().await?;
    let ready = began.elapsed();
    stage.wait_events(events, || host.log_tail()).await?;
    let server = stage.server_cpu_ms()?.saturating_sub(server_before);
    let meter = Meter::of(host.pid().context("the host runs")?)?;
    let mut reading = meter.since(&Meter::default(), stage.work.messages);
    reading.extend(stage.pace(before + 1, events, stage.work.messages, server).await?);
    reading.insert(READY_MS.to_owned(), ready.as_secs_f64() * 1_000.0);
    stop(host).await?;
    Ok(reading)
}

async fn stop(host: &mut Host) -> Result<()> {
    let status = host.stop().await?;
    ensure!(status.success(), "the host ended with {status}:\n{}", host.log_tail());
    Ok(())
}

/// What is resident when the host has the keys and nothing to do. The page cache is as small as it may be: it is bounded whatever the number of keys, and would
/// only hide what a key costs.
async fn idle_resident_mb(stage: &Stage, host: &mut Host) -> Result<f64> {
    // The next section begins behind these lines, so one may stand among them.
    host.set_nats(&format!("url = \"{}\"\n\n[store]\ncache_bytes = 1048576", stage.nats.url()))?;
    host.start().await?;
    tokio::time::sleep(SETTLE).await;
    let resident = Meter::of(host.pid().context("the host runs")?)?.resident_bytes;
    stop(host).await?;
    Ok(megabytes(resident))
}
