//! Row 20: one fault after the other, and into the other, by a seeded schedule.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::proxy::{Mode, Proxy};
use super::trial::{Trial, run_for};
use crate::random::Random;
use crate::rig::Rig;
use crate::tools;

/// Checks of the whole; between two of them there are several faults.
const ROUNDS: u64 = 5;

/// Faults of a round.
const FAULTS: u64 = 4;

const KINDS: [&str; 12] = [
    "host killed",
    "host frozen",
    "server killed",
    "server frozen",
    "connections cut",
    "connection reset",
    "connections silent",
    "acks lost",
    "PubAcks lost",
    "component replaced",
    "component broken",
    "durable consumer deleted",
];

/// Row 20.
pub(super) async fn mixed(trial: &mut Trial) -> Result<()> {
    let (mut rig, proxy) = trial.rig_behind_proxy(|options| options.ack_wait_ms = 1_000).await?;
    rig.host.start().await?;
    let mut random = trial.random.fork();
    let mut schedule = Vec::new();
    for _ in 0..ROUNDS {
        rig.one_at_a_time().await?;
        schedule.clear();
        for _ in 0..FAULTS {
            let place = usize::try_from(random.between(0, KINDS.len() as u64))?;
            let kind = KINDS.get(place).copied().unwrap_or_default();
            schedule.push(kind);
            happens(&mut rig, &proxy, kind, &mut random).await.with_context(|| format!("{schedule:?}"))?;
            run_for(&rig, random.between(0, 600)).await;
        }
        proxy.set(Mode::Pass);
        // A host that was started over a broken component has none that could serve.
        replace_component(&rig, &mut random)?;
        trial.healed(&mut rig).await.with_context(|| format!("{schedule:?}"))?;
        trial.round();
    }
    trial.note(format!("{} faults", ROUNDS * FAULTS));
    Ok(())
}

/// Lays down a version that does the same.
fn replace_component(rig: &Rig, random: &mut Random) -> Result<()> {
    let component = tools::guest("ledger")?;
    rig.host.write("consumers/ledger.wasm", &tools::stamped(&component, &format!("mixed {}", random.draw()))?)
}

async fn happens(rig: &mut Rig, proxy: &Proxy, kind: &str, random: &mut Random) -> Result<()> {
    let long = Duration::from_millis(random.between(50, 2_500));
    let lasting = |mode| async move {
        proxy.set(mode);
        tokio::time::sleep(long).await;
    };
    match kind {
        "host killed" => {
            rig.host.kill()?;
            rig.host.spawn()?;
        }
        "host frozen" => {
            rig.host.signal(Signal::STOP)?;
            tokio::time::sleep(long).await;
            rig.host.signal(Signal::CONT)?;
        }
        "server killed" => {
            rig.nats.kill()?;
            tokio::time::sleep(long).await;
            rig.nats.start_again().await?;
        }
        "server frozen" => {
            rig.nats.freeze()?;
            tokio::time::sleep(long).await;
            rig.nats.thaw()?;
        }
        "connections cut" => lasting(Mode::Cut).await,
        "connection reset" => lasting(Mode::ResetAfter(random.between(1, 50_000))).await,
        "connections silent" => drop(proxy.silence()),
        // What serves goes on until another one is whole.
        "component replaced" => replace_component(rig, random)?,
        "component broken" => rig.host.write("consumers/ledger.wasm", b"no component")?,
        "acks lost" => lasting(Mode::DropAcks).await,
        "PubAcks lost" => lasting(Mode::DropPubAcks).await,
        _ => {
            // The server may have lost it already, or may not be up yet: either is a fault as well.
            let _ = rig.client.delete_consumer("QUEUE", "pelton-queue").await;
        }
    }
    Ok(())
}
