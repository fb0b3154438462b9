//! The simulation itself is tested: what once failed holds, a run follows from its case, and what is broken on purpose is noticed.

use pelton_core::breaks::{Break, Breaks};

use crate::case::{self, Case};
use crate::run::{run, shrink};
use crate::violation::Broken;

/// Seeds that are tried here; `cargo xtask sim` tries more.
const SEEDS: std::ops::Range<u64> = 1..120;

fn assert_kept(case: &Case) {
    if let Some(violation) = run(case, Breaks::default()).violation {
        panic!("{case}: {:?}: {}", violation.broken, violation.brief());
    }
}

#[test]
fn cases_that_once_failed_hold() {
    let kept = case::kept().unwrap();
    assert!(!kept.is_empty());
    kept.iter().for_each(assert_kept);
}

#[test]
fn every_promise_holds_whatever_happens() {
    SEEDS.for_each(|seed| assert_kept(&Case::whole(seed)));
}

#[test]
fn a_run_is_a_function_of_its_case() {
    for seed in 1_000..1_010 {
        let [first, second] = [0, 1].map(|_| run(&Case::whole(seed), Breaks::default()));
        assert!(first.trace == second.trace && first.tally.attempts == second.tally.attempts, "seed {seed}");
        assert!(first.tally.attempts > 0);
    }
}

#[test]
fn each_guarantee_that_is_broken_is_noticed_for_what_it_is() {
    for (name, broken) in Break::ALL {
        let expected: &[Broken] = match broken {
            Break::AckBeforeCommit => &[Broken::SettledTooEarly],
            Break::NoDedup => &[Broken::Twice],
            Break::NoKeyGate | Break::OvertakeParked => &[Broken::KeyOrder],
            Break::RemoveBeforePuback => &[Broken::EventLost],
            Break::ForgetParkedOnCrash => &[Broken::Books, Broken::Stuck],
            Break::LoseGap => &[Broken::Outcome],
            Break::PublishBeforeCommit => &[Broken::Published],
        };
        let breaks = Breaks::one(broken);
        let found =
            SEEDS.clone().find_map(|seed| Some((Case::whole(seed), run(&Case::whole(seed), breaks).violation?)));
        let (case, violation) = found.unwrap_or_else(|| panic!("{name} was not noticed"));
        assert!(expected.contains(&violation.broken), "{name}, {case}: {violation:?}");
    }
}

#[test]
fn a_smaller_case_breaks_the_same_promise() {
    let breaks = Breaks::one(Break::NoKeyGate);
    let found = SEEDS.clone().find_map(|seed| Some((Case::whole(seed), run(&Case::whole(seed), breaks).violation?)));
    let (case, violation) = found.unwrap();
    let broken = violation.broken;
    let (smaller, _) = shrink(&case, breaks, violation);
    assert!(smaller.messages.is_some() && smaller.troubles.is_some(), "{smaller}");
    let again = run(&smaller.to_string().parse().unwrap(), breaks).violation.unwrap();
    assert_eq!(again.broken, broken);
}
