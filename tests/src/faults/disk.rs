//! Rows 4 and 5: the disk refuses.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::mount::Mount;
use super::strace;
use super::trial::{SOON, Trial, gives_up, run_for};
use crate::host::Host;
use crate::rig::Rig;

/// What a host says that can't write.
const CANT_WRITE: [&str; 4] = ["can't be written", "can't be read", "Input/output error", "No space left on device"];

/// Room for a host's data in row 5, in bytes.
const ROOM: u64 = 64 << 20;

/// Row 4. The n-th call fails: once, as a disk does that recovers, or from then on, as one does that is gone.
pub(super) async fn io_error(trial: &mut Trial) -> Result<()> {
    let mut rig = trial.rig(|_| {}).await?;
    rig.host.start().await?;
    run_for(&rig, 500).await;
    for (call, from, to) in [
        ("fdatasync", 1, 3),
        ("fdatasync", 5, 40),
        ("fdatasync", 40, 200),
        ("pwrite64", 5, 100),
        ("pwrite64", 100, 500),
    ] {
        rig.host.kill()?;
        let (number, and_on) = (trial.random.between(from, to), if trial.random.chance(0.5) { "+" } else { "" });
        strace::inject(&mut rig.host, call, &format!("error=EIO:when={number}{and_on}"))?;
        let logged = rig.host.log().len();
        rig.host.spawn()?;
        rig.resume(1);
        let fault = format!("EIO from {call} number {number}{and_on}");
        let said = gives_up(&mut rig.host, logged, &CANT_WRITE).await;
        said.with_context(|| format!("{fault}, {} injected", strace::injected(&rig.host)))?;
        rig.host.set_launcher(&[]);
        rig.host.start().await?;
        trial.healed(&mut rig).await.with_context(|| format!("after {fault}"))?;
        trial.round();
    }
    trial.note("ends with the reason each time, heals by a restart");
    Ok(())
}

/// Row 5.
pub(super) async fn full(trial: &mut Trial) -> Result<()> {
    let mut rig = trial.rig(|_| {}).await?;
    let data = rig.host.path("data");
    let disk = Mount::small(&data, ROOM)?;
    rig.host.start().await?;
    run_for(&rig, 1_000).await;
    for _ in 0..2 {
        let logged = rig.host.log().len();
        fill(&data.join("ballast"))?;
        let ended = until_it_tells(&mut rig.host).await?;
        if ended {
            gives_up(&mut rig.host, logged, &CANT_WRITE).await?;
            // While the disk is full the host says so, or runs as far as it can without room.
            rig.host.spawn()?;
            tokio::time::sleep(Duration::from_millis(1_000)).await;
            rig.host.kill()?;
        }
        fs::remove_file(data.join("ballast"))?;
        if ended {
            rig.host.start().await?;
        }
        trial.healed(&mut rig).await.context("after there was room again")?;
        trial.round();
        trial.note(if ended {
            "full: ends with the reason, resumes after a restart"
        } else {
            "full: unhealthy, resumes by itself"
        });
        run_for(&rig, 500).await;
    }
    read_only(trial, &mut rig).await?;
    rig.host.kill()?;
    disk.remove();
    Ok(())
}

async fn read_only(trial: &mut Trial, rig: &mut Rig) -> Result<()> {
    rig.host.kill()?;
    let locked = Mount::read_only(&rig.host.path("data"))?;
    let logged = rig.host.log().len();
    rig.host.spawn()?;
    gives_up(&mut rig.host, logged, &["Read-only file system"]).await?;
    locked.remove();
    rig.host.start().await?;
    trial.healed(rig).await.context("after the file system took writes again")?;
    trial.round();
    trial.note("read-only: refuses to start with the reason");
    Ok(())
}

/// Writes until there is no more room.
fn fill(path: &Path) -> Result<()> {
    let mut file = File::create(path)?;
    for size in [1 << 20, 4096, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
    Ok(())
}

/// Waits until the host has ended or calls itself unhealthy. True: it has ended.
async fn until_it_tells(host: &mut Host) -> Result<bool> {
    let deadline = std::time::Instant::now() + SOON;
    while std::time::Instant::now() < deadline {
        if host.exited()?.is_some() {
            return Ok(true);
        }
        // No answer: it is about to end.
        if host.get("/readyz").await.is_ok_and(|answer| answer.status != 200) {
            return Ok(false);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("the disk is full, and the host calls itself healthy; its log:\n{}", host.log_tail())
}
