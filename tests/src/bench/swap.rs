//! What a swap costs those who wait: the longest pause of any lane while new versions take over under load, beside the same load without any.
//!
//! A lane pauses while it has a message and nothing comes of it: from the moment that the message was stored, or that the event before it was, whichever was later,
//! to the moment that its own event was. All of it is measured by the server's clock, from outside. What a lane pauses *at* a swap is its pause before the first event
//! that the new version makes; the longest of all pauses meanwhile is also that of the disk, the server and the load.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::figures::{Case, Reading, reading};
use super::scale::Scale;
use crate::checker::{Checker, LedgerEvent};
use crate::client::StreamSpec;
use crate::host::{Host, HostOptions};
use crate::load::{Load, LoadPlan};
use crate::manifest::Manifest;
use crate::nats::NatsServer;
use crate::progress::say;
use crate::random::Random;
use crate::reader::Stored;
use crate::{tools, wait};
use anyhow::{Context, Result, ensure};

/// Its name.
pub(super) const BENCH: &str = "swap";
/// The case without.
pub(super) const ALONE: &str = "alone";
/// The case with swaps.
pub(super) const SWAPPING: &str = "swapping";
/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(300);
/// The header that says which version made an event.
const VERSION: &str = "pelton-version";
/// The longest pause of any lane.
pub(super) const LONGEST_MS: &str = "longest_pause_ms";
/// The longest pause of any lane before its first event by a new version.
pub(super) const AT_SWAP_MS: &str = "longest_pause_at_swap_ms";
/// Half of the lanes paused no longer before their first event by a new version.
pub(super) const AT_SWAP_P50_MS: &str = "pause_at_swap_p50_ms";
/// The longest pause with swaps by the longest one without.
const RATIO: &str = "ratio";
/// New versions of a full run.
const SWAPS: u32 = 20;
/// Messages of the main work from which on a run is a full one.
const FULL: u64 = 200_000;
/// Messages a second that are asked for.
const RATE: u32 = 10_000;
/// Messages that are published at once: what comes in two milliseconds. A larger burst takes longer to be worked off than a swap takes, and would be all that is seen.
const WINDOW: usize = 20;

/// Runs it.
///
/// # Errors
/// The server or the host does not come up, or a version does not take over in five minutes.
pub(super) async fn run(scale: Scale) -> Result<Vec<Case>> {
    let swaps = if scale.messages() >= FULL { SWAPS } else { SWAPS / 5 };
    let nats = NatsServer::start().await?;
    let client = nats.client().await?;
    client.create_stream(&StreamSpec::new("BENCH", "bench.*")).await?;
    client.create_stream(&StreamSpec::new("BENCH-OUT", "bench-out.>")).await?;
    let mut host = Host::prepare(HostOptions { show_log: false, ..HostOptions::on(&nats.url()) })?;
    host.guest("ledger")?;
    let manifest = Manifest::new("ledger.wasm", "BENCH", "bench.*").emits("bench-out.>");
    host.manifest("bench", &manifest.section("[config]", "out = \"bench-out\""))?;
    host.start().await?;
    let plan = LoadPlan {
        prefix: "bench".to_owned(),
        keys: 300,
        exponent: 1.0,
        duplicates: 0.0,
        failing: 0.0,
        window: WINDOW,
        rate: RATE,
        payload_bytes: 256,
    };
    let checker = Arc::new(Mutex::new(Checker::default()));
    let mut load = Load::start(nats.client().await?, plan, Random::new(1), Arc::clone(&checker), 16);
    let missing = || checker.lock().unwrap_or_else(PoisonError::into_inner).missing();
    say("the load alone …");
    tokio::time::sleep(Duration::from_millis(500) * swaps).await;
    load.pause().await?;
    let alone = missing();
    say("the same with new versions …");
    load.resume(16);
    swap_all(&host, swaps).await?;
    load.pause().await?;
    load.end().await?;
    let all = missing();
    let (stored, events) =
        (client.read("BENCH").take(all, LIMIT).await?, client.read("BENCH-OUT").take(all, LIMIT).await?);
    let pauses = Pauses::of(&stored, &events, alone as u64)?;
    let mut checker = checker.lock().unwrap_or_else(PoisonError::into_inner);
    for event in &events {
        checker.came_out(event)?;
    }
    let verdict = checker.verdict();
    ensure!(verdict.violations.total() == 0, "the host did the work wrongly: {}", verdict.details.join("; "));
    pauses.cases(swaps)
}

/// How long lanes paused, in milliseconds, an entry for each event.
#[derive(Default)]
struct Pauses {
    /// While no version took over.
    alone: Vec<u64>,
    /// While versions took over one after the other.
    swapping: Vec<u64>,
    /// Those of `swapping` that were before a lane's first event of another version.
    at_swaps: Vec<u64>,
}

impl Pauses {
    /// Those of `events`, which were made of the messages `stored`; the first `alone` of these came before the swaps.
    fn of(stored: &[Stored], events: &[Stored], alone: u64) -> Result<Self> {
        let stored_at: HashMap<u64, u64> =
            stored.iter().map(|message| (message.sequence, message.stored_at_ms)).collect();
        let mut lanes: HashMap<String, (u64, &str)> = HashMap::new();
        let mut pauses = Self::default();
        for event in events {
            let LedgerEvent { key, sequence, .. } = event.json()?;
            let came_at = stored_at.get(&sequence).copied().context("an event of a message that was never stored")?;
            let by = event.header(VERSION).context("an event that doesn't say by which version")?;
            let (free_at, by_before) = lanes.insert(key, (event.stored_at_ms, by)).unwrap_or((0, by));
            let pause = event.stored_at_ms.saturating_sub(came_at.max(free_at));
            if by != by_before {
                pauses.at_swaps.push(pause);
            }
            let phase = if sequence <= alone { &mut pauses.alone } else { &mut pauses.swapping };
            phase.push(pause);
        }
        Ok(pauses)
    }

    /// Their figures, and the word to whoever watches.
    fn cases(self, swaps: u32) -> Result<Vec<Case>> {
        ensure!(!self.at_swaps.is_empty(), "no lane had events of two versions");
        let (alone, mut swapping, at_swaps) =
            (quantiles(self.alone), quantiles(self.swapping), quantiles(self.at_swaps));
        let longest = |reading: &Reading| reading.get(LONGEST_MS).copied().unwrap_or(0.0);
        let ratio = longest(&swapping) / longest(&alone).max(1.0);
        say(&format!(
            "the longest pause of any lane: {} ms alone; with {swaps} swaps {} ms, {ratio:.1} times as long, and {} ms before the first event of a new version",
            longest(&alone),
            longest(&swapping),
            longest(&at_swaps)
        ));
        swapping.insert(RATIO.to_owned(), ratio);
        for (name, figure) in
            [("swapped_lanes", "messages"), (AT_SWAP_MS, LONGEST_MS), (AT_SWAP_P50_MS, "pause_p50_ms")]
        {
            swapping.insert(name.to_owned(), at_swaps.get(figure).copied().unwrap_or(0.0));
        }
        Ok(vec![
            Case::measured(BENCH, ALONE, "10,000 messages a second asked for, skewed keys, no swap", &[alone]),
            Case::measured(BENCH, SWAPPING, "the same, while new versions take over one after the other", &[swapping]),
        ])
    }
}

/// Lays down one version after the other, each when the one before it serves.
async fn swap_all(host: &Host, swaps: u32) -> Result<()> {
    for n in 0..swaps {
        let before = version(host).await?;
        host.write("consumers/ledger.wasm", &tools::stamped(&tools::guest("ledger")?, &format!("swap {n}"))?)?;
        let waiting = wait::until("the new version serves", LIMIT, || async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok((version(host).await? != before).then_some(()))
        });
        waiting.await.with_context(|| format!("the host's log:\n{}", host.log_tail()))?;
    }
    Ok(())
}

/// The version that serves.
async fn version(host: &Host) -> Result<Option<serde_json::Value>> {
    Ok(host.consumer_status("bench").await?.get("version").cloned())
}

fn quantiles(mut all: Vec<u64>) -> Reading {
    all.sort_unstable();
    let at = |part: f64| all.get((all.len().saturating_sub(1) as f64 * part) as usize).copied().unwrap_or(0);
    // Milliseconds of a run: far below 2^53.
    reading([
        ("messages", all.len() as f64),
        (LONGEST_MS, at(1.0) as f64),
        ("pause_p999_ms", at(0.999) as f64),
        ("pause_p50_ms", at(0.5) as f64),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(sequence: u64, stored_at_ms: u64) -> Stored {
        Stored {
            sequence,
            stored_at_ms,
            subject: "bench.x".to_owned(),
            headers: Vec::new(),
            payload: Vec::new().into(),
        }
    }

    /// The event of message `sequence`.
    fn event(key: &str, sequence: u64, stored_at_ms: u64, version: &str) -> Stored {
        let body =
            format!(r#"{{"key":"{key}","id":"x","sequence":{sequence},"n":1,"count":1,"chain":"0000000000000000"}}"#);
        let headers = vec![(VERSION.to_owned(), version.to_owned())];
        Stored { headers, payload: body.into(), ..stored(sequence, stored_at_ms) }
    }

    #[test]
    fn a_lane_pauses_while_it_has_a_message_and_nothing_comes_of_it() {
        let messages = [stored(1, 100), stored(2, 100), stored(3, 101), stored(4, 200), stored(5, 205)];
        // Message 2 waits for 1, its lane's other one, message 3 for nobody; 4 and 5 are done by the next version.
        let events = [
            event("a", 1, 107, "v1"),
            event("a", 2, 109, "v1"),
            event("b", 3, 111, "v1"),
            event("a", 4, 213, "v2"),
            event("b", 5, 206, "v2"),
        ];
        let pauses = Pauses::of(&messages, &events, 3).unwrap();
        assert_eq!(pauses.alone, [7, 2, 10]);
        assert_eq!(pauses.swapping, [13, 1]);
        assert_eq!(pauses.at_swaps, [13, 1]);
    }

    #[test]
    fn an_event_of_no_message_is_refused() {
        assert!(Pauses::of(&[stored(1, 100)], &[event("a", 2, 107, "v1")], 1).is_err());
    }
}
