//! Many runs on some threads, what was counted in them, and how it is told.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use pelton_core::breaks::Breaks;
use serde_json::{Value, json};

use crate::case::Case;
use crate::run::{Ended, run, shrink};
use crate::tally::Tally;
use crate::violation::{Broken, Violation};

/// What to run.
pub(crate) struct Limits {
    pub(crate) first_seed: u64,
    pub(crate) time: Duration,
    /// In place of the time.
    pub(crate) messages: Option<u64>,
    /// Only this case.
    pub(crate) only: Option<Case>,
    /// Cases that run before all others.
    pub(crate) kept: Vec<Case>,
    pub(crate) threads: usize,
    /// Don't end with the first broken promise.
    pub(crate) go_on: bool,
}

/// A broken promise.
pub(crate) struct Found {
    case: Case,
    smallest: Case,
    violation: Violation,
    after: Duration,
    messages: u64,
}

/// How it went.
pub(crate) struct Report {
    seeds: u64,
    tally: Tally,
    took: Duration,
    violations: u64,
    pub(crate) found: Option<Found>,
}

/// Counts of all threads.
#[derive(Default)]
struct Sum {
    seeds: u64,
    tally: Tally,
    found: Option<Found>,
    violations: u64,
    told: Duration,
}

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// One in so many runs is made twice, to see that it is a function of its case.
const TWICE_EVERY: u64 = 50;

/// Runs until the limits are reached, or a promise is broken.
pub(crate) fn simulate(limits: &Limits, breaks: Breaks) -> Report {
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let over = AtomicBool::new(false);
    let sum = Mutex::new(Sum::default());
    std::thread::scope(|scope| {
        for _ in 0..limits.threads {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let Some(case) = nth_case(limits, next.fetch_add(1, Ordering::Relaxed)) else { break };
                    let ended = run_checked(&case, breaks);
                    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                    sum.add(case, ended, began.elapsed());
                    let enough = match limits.messages {
                        Some(messages) => sum.tally.messages >= messages,
                        None => began.elapsed() >= limits.time,
                    };
                    if (sum.found.is_some() && !limits.go_on) || enough {
                        over.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let Sum { seeds, tally, mut found, violations, .. } = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    let took = began.elapsed();
    if let Some(found) = &mut found {
        println!("looking for a smaller case");
        (found.smallest, found.violation) = shrink(&found.case, breaks, found.violation.clone());
    }
    Report { seeds, tally, took, found, violations }
}

/// The kept cases come first.
fn nth_case(limits: &Limits, number: u64) -> Option<Case> {
    if let Some(only) = &limits.only {
        return (number == 0).then(|| only.clone());
    }
    let kept = limits.kept.get(usize::try_from(number).unwrap_or(usize::MAX)).cloned();
    Some(kept.unwrap_or_else(|| Case::whole(limits.first_seed + number - limits.kept.len() as u64)))
}

fn run_checked(case: &Case, breaks: Breaks) -> Ended {
    let mut ended = run(case, breaks);
    if case.seed.is_multiple_of(TWICE_EVERY) && ended.violation.is_none() {
        let again = run(case, breaks);
        if again.trace != ended.trace {
            let what = format!("two runs differ: {:x} and {:x}", ended.trace, again.trace);
            ended.violation = Some(Violation { broken: Broken::Books, what });
        }
    }
    ended
}

impl Sum {
    fn add(&mut self, case: Case, ended: Ended, after: Duration) {
        self.seeds += 1;
        self.tally.add(&ended.tally);
        self.violations += u64::from(ended.violation.is_some());
        if let Some(violation) = ended.violation {
            println!("{case}: {:?}: {}", violation.broken, violation.brief());
            if self.found.is_some() {
                return;
            }
            let messages = self.tally.messages;
            self.found = Some(Found { smallest: case.clone(), case, violation, after, messages });
        }
        if after >= self.told + TELL_EVERY {
            self.told = after;
            let Tally { messages, crashes, power_losses, .. } = &self.tally;
            let (seeds, rate) = (self.seeds, *messages as f64 / after.as_secs_f64());
            println!(
                "{:>5.0} s: {seeds} seeds, {messages} messages ({rate:.0}/s), {crashes} crashes, {power_losses} power losses, {} violations",
                after.as_secs_f64(),
                self.violations
            );
        }
    }
}

impl Report {
    /// In one sentence, or with the case that failed.
    pub(crate) fn verdict(&self, broken: Option<&str>) -> String {
        match (&self.found, broken) {
            (None, None) => "verdict: every promise was kept".into(),
            (None, Some(name)) => format!("verdict: {name} was broken on purpose and NOT noticed"),
            (Some(found), _) => {
                let what = broken.map_or_else(|| "a promise was broken".into(), |name| format!("{name} was noticed"));
                let Found { case, smallest, violation, after, .. } = found;
                format!(
                    "{:?}: {}\nverdict: {what} after {:.1} s in {case}\nthe smallest case that fails in the same way, for tests/sim/kept.txt:\n{smallest}",
                    violation.broken,
                    violation.brief(),
                    after.as_secs_f64()
                )
            }
        }
    }

    /// One line.
    pub(crate) fn json(&self, broken: Option<&str>) -> Value {
        let tally = &self.tally;
        let seconds = self.took.as_secs_f64();
        let mut report = json!({
            "seeds": self.seeds,
            "messages": tally.messages,
            "published": tally.published,
            "attempts": tally.attempts,
            "parked": tally.parked,
            "released": tally.released,
            "events": tally.events,
            "commits": tally.commits,
            "crashes": tally.crashes,
            "power_losses": tally.power_losses,
            "io_errors": tally.io_errors,
            "commits_in_doubt": { "durable": tally.in_doubt.0, "lost": tally.in_doubt.1 },
            "faults": tally.faults,
            "violations": self.violations,
            "virtual_hours": tally.virtual_ms / 3_600_000,
            "seconds": (seconds * 10.0).round() / 10.0,
            "messages_per_second": (tally.messages as f64 / seconds.max(0.001)).round(),
        });
        if let (Some(report), Some(name)) = (report.as_object_mut(), broken) {
            report.insert("break".into(), name.into());
        }
        if let (Some(report), Some(found)) = (report.as_object_mut(), &self.found) {
            let kind = format!("{:?}", found.violation.broken);
            report.insert(
                "found".into(),
                json!({
                    "case": found.case.to_string(),
                    "smallest": found.smallest.to_string(),
                    "kind": kind,
                    "seconds": (found.after.as_secs_f64() * 10.0).round() / 10.0,
                    "messages": found.messages,
                }),
            );
        }
        report
    }
}
