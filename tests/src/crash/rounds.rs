//! Rounds: start, kill at a random moment, start again; drain and check now and then.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::setup::{BURST, Crashable};
use super::{CrashOptions, CrashReport};
use crate::checker::Verdict;
use crate::progress::Progress;
use crate::random::Random;
use crate::tools::HostBuild;

/// Every so many rounds the server is killed as well.
const SERVER_EVERY: u64 = 5;

/// Every so many rounds everything is drained and checked; with a break it is every round.
const CHECK_EVERY: u64 = 5;

/// How long nothing may come before what is missing counts as missing: in a sound host something comes long before.
const PATIENCE: Duration = Duration::from_secs(20);

/// The same with a break, where something is expected to be missing.
const PATIENCE_BROKEN: Duration = Duration::from_secs(4);

/// Runs the rounds. The report tells about violations; they are no error.
///
/// # Errors
/// The run itself failed: no server, a host that ended by itself or does not start.
pub async fn rounds(options: &CrashOptions) -> Result<CrashReport> {
    let mut random = Random::new(options.seed);
    let build = if options.broken.is_some() { HostBuild::Faulty } else { HostBuild::Normal };
    let mut run = Crashable::start(build, &mut random).await?;
    if let Some(name) = &options.broken {
        run.host.set_environment(&[("PELTON_BREAK", name)]);
    }
    let progress = Progress::new("rounds of killing the host", options.rounds);
    let mut report = CrashReport { seed: options.seed, ..CrashReport::default() };
    for round in 1..=options.rounds {
        let outcome = one_round(&mut run, round, &mut random).await;
        outcome.with_context(|| format!("in round {round}; the host's log:\n{}", run.host.log_tail()))?;
        report.rounds = round;
        progress.at(round);
        let every = if options.broken.is_some() { 1 } else { CHECK_EVERY };
        if round % every == 0 || round == options.rounds {
            let patience = if options.broken.is_some() { PATIENCE_BROKEN } else { PATIENCE };
            let verdict = check(&mut run, patience).await.with_context(|| format!("after round {round}"))?;
            report.messages = verdict.messages;
            report.violations = verdict.violations;
            progress.say(&format!("round {round}: {} messages checked", verdict.messages));
            verdict.details.iter().for_each(|detail| progress.say(detail));
            if verdict.violations.total() > 0 {
                progress.say(&format!("violations found after round {round}"));
                break;
            }
        }
    }
    Ok(report)
}

async fn one_round(run: &mut Crashable, round: u64, random: &mut Random) -> Result<()> {
    let with_server = round.is_multiple_of(SERVER_EVERY);
    if with_server {
        run.pause().await?;
        run.resume(1);
    }
    run.host.spawn()?;
    let lives = random.between(50, 2_000);
    let server_lives = random.between(0, lives);
    if with_server {
        tokio::time::sleep(Duration::from_millis(server_lives)).await;
        run.nats.kill()?;
        tokio::time::sleep(Duration::from_millis(random.between(0, 300))).await;
        run.nats.start_again().await?;
        tokio::time::sleep(Duration::from_millis(lives - server_lives)).await;
    } else {
        tokio::time::sleep(Duration::from_millis(lives)).await;
    }
    if let Some(status) = run.host.exited()? {
        bail!("the host ended by itself with {status}");
    }
    run.host.kill()
}

/// Lets a host that nobody kills catch up, and judges everything since the beginning.
async fn check(run: &mut Crashable, patience: Duration) -> Result<Verdict> {
    run.pause().await?;
    run.host.start().await?;
    let verdict = run.drain(patience).await?;
    run.host.kill()?;
    run.resume(BURST);
    Ok(verdict)
}
