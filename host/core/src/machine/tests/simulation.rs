//! The core in a small world with faults: every seed is another history.

use super::violation::Checked;
use super::world::World;
use crate::breaks::Breaks;

/// Seeds tried by default; `PELTON_CORE_SEEDS=first..last` tries others.
const SEEDS: u64 = 400;

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
    for seed in seeds() {
        let world = history(seed, Breaks::default())
            .unwrap_or_else(|violation| panic!("seed {seed}: {:?}: {}", violation.broken, violation.what));
        settled += world.durable.settled.len();
        rows += world.durable.next_row;
        crashes += world.crashes;
    }
    println!("{settled} messages settled, {rows} events, {crashes} crashes and drains");
}

#[cfg(feature = "fault-injection")]
mod broken_on_purpose {
    use std::collections::BTreeMap;

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
