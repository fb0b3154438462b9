//! Row 18: a component is written slowly where it is, or replaced in one step, while messages come.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::seen::consumer;
use super::trial::{SOON, Trial, run_for};
use crate::rig::Rig;
use crate::{tools, wait};

/// Parts in which a component is written slowly.
const PARTS: usize = 20;

/// Time between two parts: longer than a watcher waits for a file to come to rest.
const PAUSE: Duration = Duration::from_millis(120);

/// Row 18.
pub(super) async fn swapped(trial: &mut Trial) -> Result<()> {
    let mut rig = trial.rig(|_| {}).await?;
    rig.host.start().await?;
    let component = tools::guest("ledger")?;
    let mut served = vec![version(&rig).await?.context("a version serves")?];
    for round in 0..3 {
        run_for(&rig, 200).await;
        let slowly = tools::stamped(&component, &format!("slowly {round}"))?;
        let old = served.last().cloned().unwrap_or_default();
        write_slowly(&rig, &slowly, &old).await.with_context(|| format!("version {} is written slowly", round + 2))?;
        served.push(next_version(&rig, &old).await?);
        trial.round();
        run_for(&rig, 200).await;
        let old = served.last().cloned().unwrap_or_default();
        rig.host.write("consumers/ledger.wasm", &tools::stamped(&component, &format!("at once {round}"))?)?;
        served.push(next_version(&rig, &old).await?);
        trial.healed(&mut rig).await?;
        trial.round();
    }
    served.sort();
    served.dedup();
    ensure!(served.len() == 7, "7 versions were laid down, and {} served", served.len());
    trial.note("the old version served until the new one was whole");
    Ok(())
}

/// Writes part after part over the file itself; until the last of them the old version must serve.
async fn write_slowly(rig: &Rig, bytes: &[u8], old: &str) -> Result<()> {
    let mut file = File::create(rig.host.path("consumers/ledger.wasm"))?;
    let mut parts = bytes.chunks(bytes.len().div_ceil(PARTS)).peekable();
    while let Some(part) = parts.next() {
        file.write_all(part)?;
        if parts.peek().is_some() {
            tokio::time::sleep(PAUSE).await;
            let now = version(rig).await?;
            ensure!(now.as_deref() == Some(old), "half of a file was written, and {now:?} serves in place of {old}");
        }
    }
    Ok(())
}

/// The version that serves both consumers; none while they differ.
async fn version(rig: &Rig) -> Result<Option<String>> {
    let mut versions = Vec::new();
    for name in ["limits", "queue"] {
        let seen = consumer(&rig.host, name).await?;
        ensure!(seen.phase == "running", "consumer {name} does not run: {seen:?}");
        versions.push(seen.version);
    }
    versions.dedup();
    Ok(if versions.len() == 1 { versions.pop().flatten() } else { None })
}

async fn next_version(rig: &Rig, old: &str) -> Result<String> {
    let waiting =
        wait::until("the new version serves", SOON, || async { Ok(version(rig).await?.filter(|now| now != old)) });
    waiting.await.with_context(|| format!("the host's log:\n{}", rig.host.log_tail()))
}
