//! Rows 11 to 13: the connection breaks, or loses only some of what it carries.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::paused::dropped;
use super::proxy::{Mode, Proxy};
use super::trial::{Trial, run_for};
use crate::reader::Stored;
use crate::rig::Rig;

/// How long the server remembers the ids of events in row 13.
const WINDOW: Duration = Duration::from_secs(2);

/// How long PubAcks are held back in row 13.
const HELD: Duration = Duration::from_secs(10);

/// Row 11.
pub(super) async fn broken(trial: &mut Trial) -> Result<()> {
    let (mut rig, proxy) = trial.rig_behind_proxy(|_| {}).await?;
    rig.host.start().await?;
    for milliseconds in [50, 1_000, 4_000] {
        run_for(&rig, 300).await;
        proxy.set(Mode::Cut);
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        proxy.set(Mode::Pass);
        recovers(trial, &mut rig, &format!("cut for {milliseconds} ms")).await?;
    }
    for _ in 0..6 {
        let bytes = trial.random.between(1, 200_000);
        let before = proxy.affected();
        proxy.set(Mode::ResetAfter(bytes));
        run_for(&rig, 0).await;
        let reset = crate::wait::until("a connection is reset", Duration::from_secs(20), || async {
            Ok((proxy.affected() > before).then_some(()))
        });
        reset.await?;
        proxy.set(Mode::Pass);
        recovers(trial, &mut rig, &format!("reset after {bytes} bytes")).await?;
    }
    run_for(&rig, 300).await;
    proxy.set(Mode::Hold);
    tokio::time::sleep(Duration::from_secs(8)).await;
    proxy.set(Mode::Pass);
    recovers(trial, &mut rig, "nothing passed for 8 s").await?;
    run_for(&rig, 300).await;
    let (before, began) = (proxy.connections(), Instant::now());
    let silent = proxy.silence();
    // Nobody tells the host: it must notice by itself, on each of its connections.
    let rebuilt = crate::wait::until("the host gives the silent connections up", Duration::from_secs(60), || async {
        Ok((proxy.connections() >= before + silent).then_some(()))
    });
    rebuilt.await.with_context(|| format!("{silent} were silent; the host's log:\n{}", rig.host.log_tail()))?;
    trial.note(format!("{silent} silent connections were given up within {:.0} s", began.elapsed().as_secs_f32()));
    recovers(trial, &mut rig, "silent for ever").await
}

async fn recovers(trial: &mut Trial, rig: &mut Rig, what: &str) -> Result<()> {
    trial.healed(rig).await.with_context(|| what.to_owned())?;
    trial.round();
    Ok(())
}

/// Row 12.
pub(super) async fn acks_lost(trial: &mut Trial) -> Result<()> {
    let (mut rig, proxy) = trial
        .rig_behind_proxy(|options| {
            options.ack_wait_ms = 1_000;
            // As long as a server remembers ids by default: it drops what the relay publishes again.
            options.output_window = Duration::from_secs(120);
        })
        .await?;
    rig.host.start().await?;
    run_for(&rig, 300).await;
    lose(&proxy, Mode::DropAcks, Duration::from_secs(4)).await?;
    recovers(trial, &mut rig, "the host's acks were lost").await?;
    let again = dropped(&rig, "queue").await?;
    ensure!(again > 0, "nothing was delivered again, so nothing was shown");
    run_for(&rig, 300).await;
    lose(&proxy, Mode::DropPubAcks, Duration::from_secs(7)).await?;
    recovers(trial, &mut rig, "the server's PubAcks were lost").await?;
    let copies = second_copies(&rig).await?;
    ensure!(copies == 0, "{copies} events are on the stream twice, within the window of the server");
    run_for(&rig, 300).await;
    let before = proxy.affected();
    proxy.set(Mode::DropEvents);
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    // It has sent them, and knows nothing of their fate: they must still be in its outbox.
    rig.host.kill()?;
    proxy.set(Mode::Pass);
    ensure!(proxy.affected() > before, "no event was lost, so nothing was shown");
    rig.host.start().await?;
    recovers(trial, &mut rig, "events were lost on their way, and the host died").await?;
    trial.note(format!("{again} deliveries came again and were dropped; every event is on its stream once"));
    Ok(())
}

async fn lose(proxy: &Proxy, mode: Mode, long: Duration) -> Result<()> {
    let before = proxy.affected();
    proxy.set(mode);
    tokio::time::sleep(long).await;
    proxy.set(Mode::Pass);
    ensure!(proxy.affected() > before, "nothing was lost, so nothing was shown");
    Ok(())
}

/// Row 13.
pub(super) async fn beyond_the_window(trial: &mut Trial) -> Result<()> {
    let (mut rig, proxy) = trial.rig_behind_proxy(|options| options.output_window = WINDOW).await?;
    rig.host.start().await?;
    run_for(&rig, 300).await;
    lose(&proxy, Mode::DelayPubAcks(HELD), HELD).await?;
    recovers(trial, &mut rig, "PubAcks came after the window").await?;
    let copies = second_copies(&rig).await?;
    ensure!(copies > 0, "no event was published again, so nothing was shown");
    trial.note(format!("{copies} second copies, each under the id and with the bytes of the first"));
    Ok(())
}

/// Events that are on an output stream more than once, all copies the same but for their place.
async fn second_copies(rig: &Rig) -> Result<usize> {
    let mut copies = 0;
    for side in &rig.sides {
        let (count, _) = rig.client.stream_size(&side.output.name).await?;
        let all = rig.client.read(&side.output.name).take(usize::try_from(count)?, Duration::from_secs(20)).await?;
        let mut first: HashMap<String, &Stored> = HashMap::new();
        for stored in &all {
            let id = stored.id().context("an event has no id")?;
            let Some(before) = first.insert(id.to_owned(), stored) else { continue };
            copies += 1;
            let same = (&before.subject, &before.payload) == (&stored.subject, &stored.payload);
            ensure!(same, "two events have the id {id}: {before:?} and {stored:?}");
        }
    }
    Ok(copies)
}
