//! Rounds: start, kill at a random moment, start again; drain and check now and then.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::points::POINT_LIMIT;
use super::{CrashOptions, CrashReport, POINTS};
use crate::checker::Verdict;
use crate::progress::Progress;
use crate::random::Random;
use crate::rig::{BURST, Rig, RigOptions};
use crate::tools::HostBuild;

/// Every so many rounds the server is killed as well.
const SERVER_EVERY: u64 = 5;

/// Messages gather for this long before a round in which the server dies first.
const GATHER: Duration = Duration::from_millis(500);

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
    let mut run = Rig::start(&RigOptions { build, ..RigOptions::default() }, &mut random).await?;
    if let Some(name) = &options.broken {
        run.host.set_environment(&[("PELTON_BREAK", name)]);
    }
    let progress = Progress::new("rounds of killing the host", options.rounds);
    let mut report = CrashReport { seed: options.seed, ..CrashReport::default() };
    for round in 1..=options.rounds {
        let outcome = one_round(&mut run, round, options.broken.as_deref(), &mut random).await;
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

/// How the host dies in a round.
enum Death {
    /// By SIGKILL, alone.
    Alone,
    /// By itself, at a named point: only a host with fault injection can.
    AtPoint(String),
    /// By SIGKILL, after the server was killed and came back.
    AfterServer,
    /// By SIGKILL, while the server is dead: what it published last has reached nobody.
    BeforeServer,
}

impl Death {
    fn choose(round: u64, broken: bool, random: &mut Random) -> Self {
        if round.is_multiple_of(SERVER_EVERY) {
            return if random.chance(0.5) { Self::AfterServer } else { Self::BeforeServer };
        }
        if broken && random.chance(0.7) {
            // Half of them at the moment that matters most: outcomes are known, and not durable.
            let place = if random.chance(0.5) { 0 } else { random.between(0, POINTS.len() as u64) };
            let point = POINTS.get(usize::try_from(place).unwrap_or(0)).copied().unwrap_or("before-commit");
            return Self::AtPoint(format!("{point}:{}", random.between(1, 40)));
        }
        Self::Alone
    }
}

async fn one_round(run: &mut Rig, round: u64, broken: Option<&str>, random: &mut Random) -> Result<()> {
    let death = Death::choose(round, broken.is_some(), random);
    let lives = random.between(50, 2_000);
    match death {
        Death::Alone => {
            run.host.spawn()?;
            tokio::time::sleep(Duration::from_millis(lives)).await;
        }
        Death::AtPoint(place) => {
            let breaks = broken.map(|name| ("PELTON_BREAK", name));
            let environment: Vec<_> = breaks.into_iter().chain([("PELTON_CRASH_AT", place.as_str())]).collect();
            run.host.set_environment(&environment);
            run.host.spawn()?;
            run.host.set_environment(&breaks.into_iter().collect::<Vec<_>>());
            run.host.wait_exit(POINT_LIMIT).await.with_context(|| format!("the host was to die at {place}"))?;
            return Ok(());
        }
        Death::AfterServer => {
            run.one_at_a_time().await?;
            run.host.spawn()?;
            let server_lives = random.between(0, lives);
            tokio::time::sleep(Duration::from_millis(server_lives)).await;
            run.nats.kill()?;
            tokio::time::sleep(Duration::from_millis(random.between(0, 300))).await;
            run.nats.start_again().await?;
            tokio::time::sleep(Duration::from_millis(lives - server_lives)).await;
        }
        Death::BeforeServer => {
            // What gathers while no host runs keeps the next one busy.
            tokio::time::sleep(GATHER).await;
            run.one_at_a_time().await?;
            run.host.spawn()?;
            tokio::time::sleep(Duration::from_millis(random.between(50, 700))).await;
            run.nats.freeze()?;
            tokio::time::sleep(Duration::from_millis(lives)).await;
            end_host(run)?;
            run.nats.kill()?;
            return run.nats.start_again().await;
        }
    }
    end_host(run)
}

fn end_host(run: &mut Rig) -> Result<()> {
    if let Some(status) = run.host.exited()? {
        bail!("the host ended by itself with {status}");
    }
    run.host.kill()
}

/// Lets a host that nobody kills catch up, and judges everything since the beginning.
async fn check(run: &mut Rig, patience: Duration) -> Result<Verdict> {
    run.pause().await?;
    run.host.start().await?;
    let verdict = run.drain(patience).await?;
    run.host.kill()?;
    run.resume(BURST);
    Ok(verdict)
}
