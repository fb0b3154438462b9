//! Twenty new versions while messages come in: every other one is broken in a way of its own. None of the messages may notice.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pelton_tests::checker::Checker;
use pelton_tests::load::{Load, LoadPlan};
use pelton_tests::random::Random;
use pelton_tests::{tools, wait};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::stage::Stage;

const SWAPS: usize = 20;

/// Messages of one round, about: a version that takes long to be refused does not make the test longer.
const ROUND_MESSAGES: usize = 4_500;

/// How long a version may take to serve or to be refused: one that loops is given five seconds, on a machine that may be busy.
const OUTCOME: Duration = Duration::from_secs(60);

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of broken version number `n`, and what its refusal says.
fn broken(n: usize) -> Result<(Vec<u8>, &'static str)> {
    let stamped = |guest: &str| tools::stamped(&tools::guest(guest)?, &format!("broken {n}"));
    Ok(match n % 5 {
        0 => {
            let whole = tools::stamped(&tools::guest("ledger")?, &format!("half of {n}"))?;
            (whole[..whole.len() / 2 + n].to_vec(), "can't be compiled")
        }
        1 => (stamped("init-trap")?, "a trial instance failed"),
        2 => (stamped("wrong-world")?, "is not a plug-in"),
        3 => (stamped("needs-sockets")?, "was not granted"),
        _ => (stamped("init-loop")?, "ran past"),
    })
}

/// A load of 10,000 messages a second over skewed keys, and what is known of it.
struct Traffic {
    load: Load,
    checker: Arc<Mutex<Checker>>,
}

impl Traffic {
    async fn start(stage: &Stage) -> Result<Self> {
        let plan = LoadPlan {
            prefix: "in".to_owned(),
            keys: 300,
            exponent: 1.0,
            duplicates: 0.02,
            failing: 0.0,
            window: 500,
            rate: 10_000,
            payload_bytes: 128,
        };
        let checker = Arc::new(Mutex::new(Checker::default()));
        let load = Load::start(stage.nats.client().await?, plan, Random::new(4), Arc::clone(&checker), 16);
        Ok(Self { load, checker })
    }

    /// Messages published so far.
    fn published(&self) -> usize {
        let checker = self.checker.lock().unwrap_or_else(PoisonError::into_inner);
        checker.events() + checker.missing()
    }

    /// Waits for the outcome of a version while messages come, until there are enough of them in this round.
    async fn until(&mut self, stage: &Stage, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<()> {
        let (before, begun) = (self.published(), Instant::now());
        self.load.resume(16);
        let mut running = true;
        loop {
            let entry = stage.status_of("ledger").await?;
            let enough = self.published() >= before + ROUND_MESSAGES;
            if running && enough {
                self.load.pause().await?;
                running = false;
            }
            // However quickly the outcome came, there were messages before it and after it.
            if wanted(&entry) && self.published() >= before + ROUND_MESSAGES / 3 {
                break;
            }
            ensure!(begun.elapsed() < OUTCOME, "{what}: {entry}; the host's log:\n{}", stage.host.log_tail());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.load.pause().await
    }
}

#[tokio::test]
async fn of_twenty_swaps_under_load_half_are_broken_and_nothing_is_lost_doubled_or_reordered() -> Result<()> {
    let mut stage = Stage::running("ledger").await?;
    let first = stage.status_of("ledger").await?["version"].as_str().context("a version serves")?.to_owned();
    let mut good = BTreeSet::from([first.clone()]);
    let mut serving = first;
    let mut traffic = Traffic::start(&stage).await?;
    for n in 0..SWAPS {
        if n % 2 == 0 {
            let bytes = tools::stamped(&tools::guest("ledger")?, &format!("good {n}"))?;
            serving = digest(&bytes);
            good.insert(serving.clone());
            stage.host.write("consumers/ledger.wasm", &bytes)?;
            traffic.until(&stage, "the version serves", |entry| entry["version"] == serving.as_str()).await?;
        } else {
            let (bytes, why) = broken(n / 2)?;
            stage.host.write("consumers/ledger.wasm", &bytes)?;
            let refused = |entry: &Value| entry["problems"].to_string().contains(why);
            traffic.until(&stage, &format!("broken version {} is refused: {why}", n / 2), refused).await?;
            assert_eq!(stage.status_of("ledger").await?["version"], serving.as_str(), "the version before goes on");
        }
    }
    let Traffic { load, checker } = traffic;
    load.end().await?;
    let count = checker.lock().unwrap_or_else(PoisonError::into_inner).missing();
    let mut versions = BTreeSet::new();
    for event in stage.output().take(count, Duration::from_secs(120)).await? {
        versions.insert(event.header("pelton-version").unwrap_or_default().to_owned());
        checker.lock().unwrap_or_else(PoisonError::into_inner).came_out(&event)?;
    }
    stage.no_more_events().await;
    let verdict = checker.lock().unwrap_or_else(PoisonError::into_inner).verdict();
    assert_eq!(verdict.violations.total(), 0, "{:?}", verdict.details);
    assert!(versions.is_subset(&good), "only versions that were accepted handled messages: {versions:?}, {good:?}");
    assert!(versions.len() > SWAPS / 4, "{} versions handled {count} messages", versions.len());
    let states = stage.host.run(&["versions", "ledger", "--json"])?;
    let listed: Vec<Value> = serde_json::from_slice(&states.stdout)?;
    let refused = listed.iter().filter(|entry| entry["state"] == "refused").count();
    assert!(refused >= SWAPS / 2 - 1, "what was refused is in the ledger: {listed:?}");
    wait::until("the last version is left alone", OUTCOME, || async {
        Ok((stage.status_of("ledger").await?["version"] == serving.as_str()).then_some(()))
    })
    .await
}
