//! The core in a small world with faults: every seed is another history.

use std::collections::BTreeMap;

use super::violation::Checked;
use super::world::World;
use crate::breaks::Breaks;

/// Seeds tried by default; `PELTON_CORE_SEEDS=first..last` tries others, and with `PELTON_CORE_TRACE` set shows all that happens.
const SEEDS: u64 = 400;

/// What the world is there for: all of it happens within the seeds that are tried.
const HAPPENS: [&str; 27] = [
    "asked",
    "ahead",
    "behind",
    "breaker closes",
    "breaker opens",
    "crash while messages are parked",
    "dropped",
    "edited",
    "exhausted",
    "fetch",
    "fetch of nothing",
    "gap",
    "gap passed: operator",
    "gap passed: overdue",
    "gap-never-filled",
    "given up: exhausted",
    "halted",
    "operator refused",
    "parked no more",
    "parked-too-long",
    "paused or resumed",
    "rejected",
    "released by an operator",
    "replayed",
    "retrying",
    "stale",
    "stream replaced while messages are parked",
];

fn seeds() -> std::ops::Range<u64> {
    let asked = std::env::var("PELTON_CORE_SEEDS").ok();
    let range = asked.as_deref().and_then(|asked| asked.split_once(".."));
    range.map_or(0..SEEDS, |(first, last)| first.parse().unwrap()..last.parse().unwrap())
}

fn history(seed: u64, breaks: Breaks) -> Checked<World> {
    let mut world = World::new(seed, breaks);
    world.run().map(|()| world)
}

#[test]
fn every_promise_holds_whatever_happens() {
    let (mut settled, mut rows, mut crashes) = (0, 0, 0);
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in seeds() {
        let world = history(seed, Breaks::default())
            .unwrap_or_else(|violation| panic!("seed {seed}: {:?}: {}", violation.broken, violation.what));
        settled += world.durable.settled.len();
        rows += world.durable.next_row;
        crashes += world.crashes;
        world.seen.iter().for_each(|(what, times)| *seen.entry(what).or_default() += times);
    }
    println!("{seen:#?}");
    let missing: Vec<_> = HAPPENS.iter().filter(|what| !seen.contains_key(*what)).collect();
    assert!(missing.is_empty(), "a world in which some of it never happens shows nothing: {missing:?}");
    println!("{settled} messages settled, {rows} events, {crashes} crashes and drains");
}

#[cfg(feature = "fault-injection")]
mod broken_on_purpose {
    use super::super::violation::Broken;
    use super::*;
    use crate::breaks::Break;

    /// Seeds within which a broken promise must be noticed.
    const NOTICED_WITHIN: u64 = 20;

    #[test]
    fn each_break_is_noticed_for_what_it_is() {
        for (name, broken) in Break::ALL {
            let expected = match broken {
                Break::AckBeforeCommit => Broken::SettledTooEarly,
                Break::NoDedup => Broken::Twice,
                Break::NoKeyGate => Broken::KeyOrder,
                Break::RemoveBeforePuback => Broken::RowRemoved,
                Break::PublishBeforeCommit => Broken::Publish,
                Break::OvertakeParked => Broken::KeyOrder,
                Break::ForgetParkedOnCrash | Break::LoseGap => Broken::Lost,
            };
            let mut found: BTreeMap<String, u64> = BTreeMap::new();
            for seed in 0..NOTICED_WITHIN {
                if let Err(violation) = history(seed, Breaks::one(broken)) {
                    assert_eq!(violation.broken, expected, "{name}, seed {seed}: {}", violation.what);
                    found.entry(violation.what).or_insert(seed);
                }
            }
            assert!(!found.is_empty(), "{name} was not noticed within {NOTICED_WITHIN} seeds");
            println!("{name}: {found:?}");
        }
    }
}
