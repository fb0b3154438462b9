//! Rows 14 and 17: messages come twice and in disorder; the clock jumps.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::paused::dropped;
use super::proxy::Mode;
use super::seen::{consumer, dead_letters};
use super::trial::{SOON, Trial, run_for};
use crate::client::{Client, Outgoing, StreamSpec};
use crate::manifest::Manifest;
use crate::reader::Reader;
use crate::rig::Rig;
use crate::tools::HostBuild;
use crate::wait;

/// How far the clock jumps, in milliseconds: 30 days.
const JUMP_MS: i64 = 30 * 24 * 3_600_000;

/// Row 14. Attempts that fail hold their keys up for longer than the server waits for an ack, while neither acks nor words of progress reach it.
pub(super) async fn shuffled(trial: &mut Trial) -> Result<()> {
    let (mut rig, proxy) = trial
        .rig_behind_proxy(|options| {
            options.ack_wait_ms = 1_000;
            options.plan.duplicates = 0.3;
            options.plan.failing = 0.05;
            options.retry = "first_delay_ms = 1500\nlongest_delay_ms = 3000".to_owned();
        })
        .await?;
    rig.host.start().await?;
    for _ in 0..2 {
        run_for(&rig, 500).await;
        proxy.set(Mode::DropAcks);
        run_for(&rig, 4_000).await;
        proxy.set(Mode::Pass);
        run_for(&rig, 500).await;
        trial.healed(&mut rig).await?;
        trial.round();
    }
    let again = dropped(&rig, "queue").await?;
    let mut doubles = 0;
    for name in ["limits", "queue"] {
        doubles += consumer(&rig.host, name).await?.duplicates;
    }
    ensure!(again > 0 && doubles > 0, "{again} deliveries and {doubles} messages came again: nothing was shown");
    trial.note(format!("{again} deliveries and {doubles} messages came again and were dropped"));
    Ok(())
}

/// Row 17.
pub(super) async fn clock_jumps(trial: &mut Trial) -> Result<()> {
    let mut rig = trial
        .rig(|options| {
            options.build = HostBuild::Faulty;
            options.plan.duplicates = 0.3;
            // So that there is many a moment at which something could be thrown away.
            options.host = "[store]\ncheckpoint_interval_ms = 100".to_owned();
        })
        .await?;
    let offset = rig.host.path("offset-ms");
    rig.host.add_environment("PELTON_CLOCK_OFFSET_FILE", &offset.display().to_string());
    let mut requests = Requests::lay_out(&rig).await?;
    rig.host.start().await?;
    let today = requests.day_of_a_dead_letter(&rig).await?;
    requests.ask("before", "applied").await?;
    run_for(&rig, 500).await;
    trial.healed(&mut rig).await?;
    for restarted in [false, true] {
        for jump in [JUMP_MS, -JUMP_MS, 0] {
            rig.host.write("offset-ms", jump.to_string().as_bytes())?;
            tokio::time::sleep(Duration::from_millis(200)).await;
            if restarted {
                rig.host.kill()?;
                rig.host.start().await?;
            }
            let day = requests.day_of_a_dead_letter(&rig).await?;
            ensure!((day == today) == (jump == 0), "the clock was to jump by {jump} ms, and the host dates by {day}");
            run_for(&rig, 700).await;
            trial.healed(&mut rig).await.with_context(|| format!("the clock jumped by {jump} ms"))?;
            trial.round();
        }
        if !restarted {
            // Marked for a day: a clock that went ahead and came back must not have cost it that.
            requests.ask("before", "repeated").await?;
        }
    }
    trial.note("ids and marks outlive a jump of 30 days ahead, behind and back");
    Ok(())
}

/// What it says of a request.
#[derive(Deserialize)]
struct Answer {
    outcome: String,
}

/// A consumer that remembers the ids of business requests for a day.
struct Requests {
    client: Client,
    answers: Reader,
    sent: u64,
}

impl Requests {
    async fn lay_out(rig: &Rig) -> Result<Self> {
        let client = rig.client.clone();
        client.create_stream(&StreamSpec::new("REQUESTS", "requests.*")).await?;
        client.create_stream(&StreamSpec::new("ANSWERS", "answers.>")).await?;
        rig.host.guest("business-ids")?;
        let manifest = Manifest::new("business-ids.wasm", "REQUESTS", "requests.*").emits("answers.>");
        rig.host.manifest("requests", &manifest.section("[config]", "out = \"answers\""))?;
        Ok(Self { answers: client.read("ANSWERS"), client, sent: 0 })
    }

    /// Sends a request and expects this outcome.
    async fn ask(&mut self, request: &str, outcome: &str) -> Result<()> {
        self.send(&format!("{{\"request\":\"{request}\"}}")).await?;
        let answers = self.answers.take(1, SOON).await?;
        let answer: Answer = answers.first().context("one answer was asked for")?.json()?;
        ensure!(answer.outcome == outcome, "request {request} was to be {outcome}, and was {}", answer.outcome);
        Ok(())
    }

    /// The day on which the host gives a message up that nobody can read.
    async fn day_of_a_dead_letter(&mut self, rig: &Rig) -> Result<String> {
        let sequence = self.send("no request").await?;
        let given_up = wait::until("the message was given up", SOON, || async {
            let letters = dead_letters(&rig.host, "requests").await?;
            Ok(letters.into_iter().find(|letter| letter.sequence == sequence))
        });
        Ok(given_up.await?.at.chars().take("2026-01-01".len()).collect())
    }

    async fn send(&mut self, payload: &str) -> Result<u64> {
        self.sent += 1;
        let message = Outgoing::new("requests.a", payload.to_owned()).id(format!("request-{}", self.sent));
        self.client.publish(&message).await
    }
}
