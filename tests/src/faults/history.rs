//! Rows 9, 10 and 15: what the server has is not what it had.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::seen::{consumer, last_refusal};
use super::trial::{SOON, Trial, run_for, says_one_of};
use crate::client::Outgoing;
use crate::rig::Rig;
use crate::wait;

/// The consumers of a rig, and the one that is left alone when the other is hit.
const BOTH: [(&str, &str); 2] = [("limits", "queue"), ("queue", "limits")];

/// How the host meets a stream that went backwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meets {
    /// It runs while the server is away.
    Running,
    /// It is started afterwards.
    Started,
    /// It runs and looks away until the stream has grown beyond where it was.
    Overgrown,
    /// It is started afterwards, when the stream has grown beyond where it was.
    OvergrownStarted,
}

impl Meets {
    const ALL: [Self; 4] = [Self::Running, Self::Started, Self::Overgrown, Self::OvergrownStarted];

    fn is_started_afterwards(self) -> bool {
        matches!(self, Self::Started | Self::OvergrownStarted)
    }
}

/// Row 9.
pub(super) async fn backwards(trial: &mut Trial) -> Result<()> {
    let mut rig = trial.rig(|_| {}).await?;
    rig.host.start().await?;
    for (name, other) in BOTH {
        for meets in Meets::ALL {
            let round = goes_backwards(trial, &mut rig, name, other, meets).await;
            round.with_context(|| format!("the stream of {name}; {meets:?}"))?;
            trial.round();
        }
    }
    trial.note("halted with the reason each time, the other consumer went on");
    Ok(())
}

async fn goes_backwards(trial: &mut Trial, rig: &mut Rig, name: &str, other: &str, meets: Meets) -> Result<()> {
    run_for(rig, 300).await;
    trial.healed(rig).await?;
    let stream = rig.nats.stream_directory(&name.to_uppercase());
    let (earlier, later) = (rig.host.path("earlier"), rig.host.path("later"));
    rig.nats.stop().await?;
    copy(&stream, &earlier)?;
    rig.nats.start_again().await?;
    run_for(rig, 500).await;
    trial.healed(rig).await?;
    let logged = rig.host.log().len();
    if meets.is_started_afterwards() {
        rig.host.kill()?;
    }
    if meets == Meets::Overgrown {
        rig.host.signal(Signal::STOP)?;
    }
    rig.nats.kill()?;
    copy(&stream, &later)?;
    copy(&earlier, &stream)?;
    rig.nats.start_again().await?;
    if matches!(meets, Meets::Overgrown | Meets::OvergrownStarted) {
        overgrow(rig, name).await?;
    }
    if meets.is_started_afterwards() {
        rig.host.spawn()?;
    } else {
        rig.host.signal(Signal::CONT)?;
    }
    is_halted(rig, name, logged).await?;
    rig.side(other)?.load.resume(1);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    trial.side_is_right(rig, other).await.context("the other consumer")?;
    // The way out that the host names: the stream is restored, the host started again.
    rig.nats.stop().await?;
    copy(&later, &stream)?;
    rig.nats.start_again().await?;
    rig.host.kill()?;
    rig.host.start().await?;
    trial.healed(rig).await.context("after the stream was restored")
}

/// Publishes until the stream's last sequence is beyond what the host has seen.
async fn overgrow(rig: &mut Rig, name: &str) -> Result<()> {
    let client = rig.client.clone();
    let up = wait::until("the server takes messages again", SOON, || async {
        Ok(client.publish(&Outgoing::new(format!("{name}.other"), "{\"n\":1}")).await.ok())
    });
    up.await?;
    let more: Vec<Outgoing> =
        (2..1_000).map(|n| Outgoing::new(format!("{name}.other"), format!("{{\"n\":{n}}}"))).collect();
    client.publish_all(&more).await
}

/// The consumer must have stopped, and say why wherever an operator looks.
async fn is_halted(rig: &Rig, name: &str, logged: usize) -> Result<()> {
    says_one_of(&rig.host, logged, &["consumer halted"]).await?;
    let waiting = wait::until("the status says so", SOON, || async {
        let seen = consumer(&rig.host, name).await.ok();
        Ok(seen.filter(|seen| seen.phase == "halted"))
    });
    let seen = waiting.await?;
    let says = |problem: &String| problem.contains("went backwards");
    ensure!(seen.problems.iter().any(says), "its problems are {:?}", seen.problems);
    ensure!(rig.host.get("/readyz").await?.status != 200, "the host calls itself ready");
    let shown = rig.host.run(&["status"])?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    ensure!(shown.contains("went backwards"), "`pelton status` says:\n{shown}");
    Ok(())
}

/// Makes a directory what another one is.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("can't copy {}", from.display()))? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() { copy(&source, &target)? } else { _ = fs::copy(&source, &target)? }
    }
    Ok(())
}

/// Row 10.
pub(super) async fn forgotten(trial: &mut Trial) -> Result<()> {
    let mut rig = trial.rig(|_| {}).await?;
    rig.host.start().await?;
    for (name, _) in BOTH {
        let (stream, durable) = (name.to_uppercase(), format!("pelton-{name}"));
        for what in ["deleted", "made anew", "reset to 1"] {
            run_for(&rig, 400).await;
            match what {
                "deleted" => rig.client.delete_consumer(&stream, &durable).await?,
                "made anew" => rig.client.recreate_consumer(&stream, &durable).await?,
                _ => rig.client.reset_consumer(&stream, &durable).await?,
            }
            run_for(&rig, 400).await;
            trial.healed(&mut rig).await.with_context(|| format!("the durable consumer of {name} was {what}"))?;
            trial.round();
        }
        // The host is away meanwhile: all that it ever applied is delivered to it again.
        rig.host.kill()?;
        rig.client.recreate_consumer(&stream, &durable).await?;
        rig.host.start().await?;
        trial
            .healed(&mut rig)
            .await
            .with_context(|| format!("the durable consumer of {name} was forgotten in between"))?;
        trial.round();
    }
    trial.note("nothing was applied again");
    Ok(())
}

/// Row 15.
pub(super) async fn deleted(trial: &mut Trial) -> Result<()> {
    // Ids belong to their stream: what is published again to one that was made anew is a message of its own.
    let mut rig = trial.rig(|options| options.plan.duplicates = 0.0).await?;
    rig.host.start().await?;
    for (name, other) in BOTH {
        run_for(&rig, 300).await;
        trial.healed(&mut rig).await?;
        input_goes(trial, &mut rig, name, other).await.with_context(|| format!("the stream of {name} was deleted"))?;
        trial.round();
        output_goes(trial, &mut rig, name).await.with_context(|| format!("the output of {name} was deleted"))?;
        trial.round();
    }
    Ok(())
}

async fn input_goes(trial: &mut Trial, rig: &mut Rig, name: &str, other: &str) -> Result<()> {
    let input = rig.side(name)?.input.clone();
    rig.client.delete_stream(&input.name).await?;
    let loud = wait::until("the host says that the stream is gone", SOON, || async {
        let problems = consumer(&rig.host, name).await?.problems;
        Ok(problems.iter().any(|problem| problem.contains("doesn't exist")).then_some(()))
    });
    loud.await?;
    ensure!(rig.host.get("/readyz").await?.status != 200, "the host calls itself ready");
    rig.side(other)?.load.resume(1);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    trial.side_is_right(rig, other).await.context("the other consumer")?;
    rig.client.create_stream(&input).await?;
    rig.side(name)?.checker().stream_made_anew();
    run_for(rig, 300).await;
    trial.healed(rig).await.context("after the stream was there again")
}

async fn output_goes(trial: &mut Trial, rig: &mut Rig, name: &str) -> Result<()> {
    let output = rig.side(name)?.output.clone();
    rig.client.delete_stream(&output.name).await?;
    run_for(rig, 500).await;
    let kept = waiting_events(rig, name).await?;
    ensure!(last_refusal(&rig.host).await?.is_some(), "the status does not say why events wait");
    // From the beginning: the same complaint is not logged again at once.
    says_one_of(&rig.host, 0, &["an event was not taken by jetstream"]).await?;
    rig.pause().await?;
    rig.host.kill()?;
    rig.host.start().await?;
    let still = waiting_events(rig, name).await?;
    ensure!(still >= kept, "{kept} events waited before the restart and {still} after it");
    rig.client.create_stream(&output).await?;
    rig.side(name)?.reader.begin_again();
    trial.healed(rig).await.context("after the stream was there again")?;
    trial.note(format!("{still} events of {name} waited for their stream, also over a restart"));
    Ok(())
}

/// Waits until the outbox of a consumer holds rows, and says how many.
async fn waiting_events(rig: &Rig, name: &str) -> Result<u64> {
    wait::until("events wait for their stream", SOON, || async {
        let rows = consumer(&rig.host, name).await?.outbox_pending;
        Ok((rows > 0).then_some(rows))
    })
    .await
}
