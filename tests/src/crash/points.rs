//! Named points: the host dies exactly there, once for each of them.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{CrashReport, POINTS};
use crate::progress::Progress;
use crate::random::Random;
use crate::rig::{BURST, Rig, RigOptions};
use crate::tools::HostBuild;

/// How soon a loaded host must pass a point.
pub(super) const POINT_LIMIT: Duration = Duration::from_secs(20);

/// How long nothing may come before what is missing counts as missing.
const PATIENCE: Duration = Duration::from_secs(20);

/// Kills the host once at each named point, at a random passing of it, and checks after each. `broken` is a guarantee to break on purpose.
///
/// # Errors
/// The run itself failed, or the host never passed a point.
pub async fn points(seed: u64, broken: Option<&str>) -> Result<CrashReport> {
    let mut random = Random::new(seed);
    let mut run = Rig::start(&RigOptions { build: HostBuild::Faulty, ..RigOptions::default() }, &mut random).await?;
    let broken: Vec<_> = broken.map(|name| ("PELTON_BREAK", name)).into_iter().collect();
    let progress = Progress::new("named points of death", POINTS.len() as u64);
    let mut report = CrashReport { seed, ..CrashReport::default() };
    for point in POINTS {
        let place = format!("{point}:{}", random.between(1, 40));
        run.host.set_environment(&[&broken[..], &[("PELTON_CRASH_AT", place.as_str())]].concat());
        run.host.spawn()?;
        run.host.wait_exit(POINT_LIMIT).await.with_context(|| format!("the host was to die at {place}"))?;
        run.host.set_environment(&broken);
        run.pause().await?;
        run.host.start().await?;
        let verdict = run.drain(PATIENCE).await?;
        run.host.kill()?;
        run.resume(BURST);
        report.rounds += 1;
        report.messages = verdict.messages;
        report.violations = verdict.violations;
        progress.at(report.rounds);
        verdict.details.iter().for_each(|detail| progress.say(&format!("after {place}: {detail}")));
        if verdict.violations.total() > 0 {
            break;
        }
    }
    Ok(report)
}
