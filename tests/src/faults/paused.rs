//! Rows 7 and 8: the server dies and comes back; the server or the host stands still for a while.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::seen;
use super::trial::{Trial, run_for};
use crate::rig::Rig;

/// How long each stands still, in milliseconds; the longest of the server's is longer than anything that the host waits for from it: it gives a connection up
/// after 20 s. A longer run, of up to 90 s, is row 8 with `PELTON_FAULTS_LONG=1`.
const SERVER_STANDS: [u64; 3] = [1_000, 6_000, 35_000];
const HOST_STANDS: [u64; 3] = [1_000, 4_000, 12_000];
/// The longest of the plan.
const LONGEST: u64 = 90_000;

/// Row 7.
pub(super) async fn server_killed(trial: &mut Trial) -> Result<()> {
    for sync_always in [false, true] {
        let mut rig = trial.rig(|options| options.sync_always = sync_always).await?;
        rig.host.start().await?;
        let mut longest = Duration::ZERO;
        for _ in 0..3 {
            rig.one_at_a_time().await?;
            tokio::time::sleep(Duration::from_millis(trial.random.between(200, 1_200))).await;
            rig.nats.kill()?;
            tokio::time::sleep(Duration::from_millis(trial.random.between(0, 2_000))).await;
            rig.nats.start_again().await?;
            let back = Instant::now();
            rig.host.ready().await?;
            longest = longest.max(back.elapsed());
            trial.healed(&mut rig).await.with_context(|| format!("with sync_always = {sync_always}"))?;
            trial.round();
        }
        let mode = if sync_always { "always" } else { "by default" };
        trial.note(format!("synced {mode}: ready {:.1} s after the server at the latest", longest.as_secs_f32()));
    }
    Ok(())
}

/// Row 8.
pub(super) async fn frozen(trial: &mut Trial) -> Result<()> {
    // So short that what a frozen host holds is given out again meanwhile.
    let mut rig = trial.rig(|options| options.ack_wait_ms = 1_000).await?;
    rig.host.start().await?;
    let long = std::env::var_os("PELTON_FAULTS_LONG").map(|_| LONGEST);
    for milliseconds in SERVER_STANDS.into_iter().chain(long) {
        rig.one_at_a_time().await?;
        run_for(&rig, 300).await;
        rig.nats.freeze()?;
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        rig.nats.thaw()?;
        trial.healed(&mut rig).await.with_context(|| format!("the server stood still for {milliseconds} ms"))?;
        trial.round();
    }
    let mut repeated = 0;
    for milliseconds in HOST_STANDS.into_iter().chain(long) {
        run_for(&rig, 300).await;
        rig.host.signal(Signal::STOP)?;
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        rig.host.signal(Signal::CONT)?;
        trial.healed(&mut rig).await.with_context(|| format!("the host stood still for {milliseconds} ms"))?;
        repeated = dropped(&rig, "queue").await?;
        trial.round();
    }
    ensure!(repeated > 0, "nothing was delivered again, so nothing was shown");
    trial.note(format!("{repeated} deliveries came again and were dropped"));
    Ok(())
}

/// Deliveries that a consumer has dropped because it had them before.
pub(super) async fn dropped(rig: &Rig, consumer: &str) -> Result<u64> {
    Ok(seen::consumer(&rig.host, consumer).await?.redelivered)
}
