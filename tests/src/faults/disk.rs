//! Rows 4 and 5: the disk refuses.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::mount::Mount;
use super::seen::consumer;
use super::strace;
use super::trial::{SOON, Trial, gives_up, run_for};
use crate::host::Host;
use crate::rig::Rig;

/// What a host says that can't write.
const CANT_WRITE: [&str; 4] = ["can't be written", "can't be read", "Input/output error", "No space left on device"];

/// Room for a host's data in row 5, in bytes, and what has to be free of it.
const ROOM: u64 = 96 << 20;
const FREE_MIN: u64 = 24 << 20;

/// What is left of the room where the host is to notice that it becomes too little: enough for what it has in hand.
const LEFT: u64 = 12 << 20;

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
    fills_up(trial).await?;
    full_at_once(trial).await
}

/// The room becomes too little: the host takes nothing new, says so, and goes on by itself.
async fn fills_up(trial: &mut Trial) -> Result<()> {
    let mut rig = trial.rig(|options| options.host = format!("[store]\nfree_bytes_min = {FREE_MIN}")).await?;
    let data = rig.host.path("data");
    let disk = Mount::small(&data, ROOM)?;
    rig.host.start().await?;
    let pid = rig.host.pid();
    for _ in 0..2 {
        run_for(&rig, 1_000).await;
        fill(&data.join("ballast"), LEFT)?;
        says_unhealthy(&mut rig.host, "bytes of room").await?;
        run_for(&rig, 1_000).await;
        stands_still(&rig).await?;
        fs::remove_file(data.join("ballast"))?;
        trial.healed(&mut rig).await.context("after there was room again")?;
        ensure!(rig.host.pid() == pid, "the host did not go on by itself");
        trial.round();
    }
    trial.note("too little room: unhealthy, takes nothing, goes on by itself");
    rig.host.kill()?;
    disk.remove();
    Ok(())
}

/// The room is gone before anybody noticed, or nobody looks: the host ends with the reason, and a restart goes on.
async fn full_at_once(trial: &mut Trial) -> Result<()> {
    let mut rig = trial.rig(|options| options.host = "[store]\nfree_bytes_min = 0".to_owned()).await?;
    let data = rig.host.path("data");
    let disk = Mount::small(&data, ROOM)?;
    rig.host.start().await?;
    for _ in 0..2 {
        run_for(&rig, 1_000).await;
        let logged = rig.host.log().len();
        fill(&data.join("ballast"), 0)?;
        gives_up(&mut rig.host, logged, &CANT_WRITE).await?;
        // While the disk is full it can't even write where it is.
        let logged = rig.host.log().len();
        rig.host.spawn()?;
        gives_up(&mut rig.host, logged, &CANT_WRITE).await.context("started on a full disk")?;
        fs::remove_file(data.join("ballast"))?;
        rig.host.start().await?;
        trial.healed(&mut rig).await.context("after there was room again")?;
        trial.round();
    }
    trial.note("full: ends with the reason, resumes after a restart");
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

/// Writes until no more than so many bytes of room are left.
fn fill(path: &Path, left: u64) -> Result<()> {
    let mut file = File::create(path)?;
    for size in [1 << 20, 4096, 1] {
        loop {
            let free = rustix::fs::statvfs(path).map(|of| of.f_bavail * of.f_frsize)?;
            if free < left + size || file.write_all(&vec![0; usize::try_from(size)?]).is_err() {
                break;
            }
        }
    }
    Ok(())
}

/// Waits until the host calls itself unhealthy for this reason; it must live on.
async fn says_unhealthy(host: &mut Host, reason: &str) -> Result<()> {
    let deadline = Instant::now() + SOON;
    while Instant::now() < deadline {
        if let Some(status) = host.exited()? {
            bail!("the host was to wait for room, and ended with {status}; its log:\n{}", host.log_tail());
        }
        if host.get("/readyz").await.is_ok_and(|answer| answer.status == 503 && answer.body.contains(reason)) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("there is too little room, and the host calls itself healthy; its log:\n{}", host.log_tail())
}

/// Nothing is applied for a while, although there is something to apply.
async fn stands_still(rig: &Rig) -> Result<()> {
    let applied = |name: &'static str| async move { consumer(&rig.host, name).await.map(|seen| seen.applied) };
    let before = (applied("limits").await?, applied("queue").await?);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let after = (applied("limits").await?, applied("queue").await?);
    ensure!(before == after, "there is too little room, and messages are applied: {before:?}, then {after:?}");
    Ok(())
}
