//! Row 19: the disk, or the server's answers, take far too long.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::proxy::Mode;
use super::seen::consumer;
use super::strace;
use super::trial::{SOON, Trial};
use crate::rig::Rig;

/// What a sync takes, in microseconds.
const SYNC_US: u32 = 5_000_000;

/// What PubAcks take.
const LATE: Duration = Duration::from_secs(3);

/// Messages a second: more than a stalled host can take.
const RATE: u32 = 1_500;

/// A consumer's bounds: messages in hand, and events that wait to be published.
const HELD_MAX: u64 = 1_000;
const OUTBOX_MAX: u64 = 500;

/// What a stalled host may use of memory, in bytes: as much as one that works.
const RESIDENT_BYTES_MAX: u64 = 256 << 20;

/// Row 19.
pub(super) async fn stalls(trial: &mut Trial) -> Result<()> {
    let (mut rig, proxy) = trial
        .rig_behind_proxy(|options| {
            options.plan.rate = RATE;
            // The server lives: what it syncs is not what this is about, and would be slow itself.
            options.sync_always = false;
            options.plan.keys = 2_000;
            options.limits = format!("messages_held_max = {HELD_MAX}\noutbox_rows_max = {OUTBOX_MAX}");
        })
        .await?;
    // Not from the first one on, so that the host is in the middle of its work.
    strace::inject(&mut rig.host, "fdatasync", &format!("delay_exit={SYNC_US}:when=100..103"))?;
    rig.host.start().await?;
    rig.resume(1);
    let slow_disk = watch(&rig, SOON, |rig, _| strace::injected(&rig.host) > 0).await?;
    let during = watch(&rig, Duration::from_secs(8), |_, _| false).await?.most(slow_disk);
    ensure!(strace::injected(&rig.host) > 0, "no sync was delayed");
    ensure!(during.held > HELD_MAX / 2, "the stall never filled the host: {during:?}");
    strace::detach(&mut rig.host)?;
    trial.healed(&mut rig).await.context("after the disk's stall")?;
    trial.round();
    proxy.set(Mode::DelayPubAcks(LATE));
    rig.resume(1);
    let full = |most: Most| most.outbox >= OUTBOX_MAX;
    let filling = watch(&rig, SOON, |_, most| full(most)).await?;
    let slow_relay = watch(&rig, Duration::from_secs(4), |_, _| false).await?.most(filling);
    ensure!(slow_relay.outbox >= OUTBOX_MAX, "the slow relay never filled the outbox: {slow_relay:?}");
    proxy.set(Mode::Pass);
    trial.healed(&mut rig).await.context("after the relay's stall")?;
    trial.round();
    let most = during.most(slow_relay);
    trial.note(format!("at most {} messages, {} events, {} MiB held", most.held, most.outbox, most.resident >> 20));
    Ok(())
}

/// The most that was seen of what a stall could let grow.
#[derive(Clone, Copy, Debug, Default)]
struct Most {
    held: u64,
    outbox: u64,
    resident: u64,
}

impl Most {
    fn most(self, other: Self) -> Self {
        Self {
            held: self.held.max(other.held),
            outbox: self.outbox.max(other.outbox),
            resident: self.resident.max(other.resident),
        }
    }
}

/// Looks at the host until `done`, or for so long; it must keep to its bounds all the while.
async fn watch(rig: &Rig, long: Duration, done: impl Fn(&Rig, Most) -> bool) -> Result<Most> {
    let mut most = Most::default();
    let until = Instant::now() + long;
    while Instant::now() < until && !done(rig, most) {
        let resident = rig.host.usage()?.resident_bytes;
        for name in ["limits", "queue"] {
            let seen = consumer(&rig.host, name).await?;
            most = most.most(Most { held: seen.held, outbox: seen.outbox_pending, resident });
        }
        // What is in hand when pulls stop still becomes events.
        let outbox_max = OUTBOX_MAX + HELD_MAX;
        ensure!(most.held <= HELD_MAX && most.outbox <= outbox_max, "more in hand than is allowed: {most:?}");
        ensure!(resident <= RESIDENT_BYTES_MAX, "the host uses {} MiB of memory", resident >> 20);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(most)
}
