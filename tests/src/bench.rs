//! `cargo xtask bench`: every figure that the project promises something about, against a real nats-server with file storage on this machine.
//!
//! Each bench is a line of [`BENCHES`]; it gives cases, and a case has figures by name. Whatever is measured is checked as well: a bench fails if a message was
//! lost, doubled or reordered, so that a fast wrong answer is no result. Goals are looked up in the cases afterwards (`goals`), and a goal whose figure is not there
//! is missed.

mod attempt;
mod bounds;
mod compare;
mod consumers;
mod contestants;
mod figures;
mod goals;
mod idle;
mod ids;
mod keys;
mod latency;
mod markdown;
mod meter;
mod pelton;
mod plot;
mod poisoned;
mod program;
mod recovery;
mod report;
mod scale;
mod shapes;
mod stage;
mod swap;
mod work;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use anyhow::{Context, Result, ensure};

pub use contestants::perform;
pub use figures::{Case, Figure};
pub use goals::Goal;
pub use report::{Machine, Report};
pub use scale::Scale;

use crate::progress::say;
use crate::tools;

type Running = Pin<Box<dyn Future<Output = Result<Vec<Case>>>>>;

/// Something that can be measured alone.
#[derive(Clone, Copy)]
pub struct Bench {
    /// Its name on the command line and in the cases.
    pub name: &'static str,
    /// What it measures, in a line.
    pub about: &'static str,
    run: fn(Scale) -> Running,
}

/// All benches, in the order in which they run.
pub const BENCHES: &[Bench] = &[
    Bench {
        name: compare::BENCH,
        about: "the work order-counter through Pelton and what it is compared with; skewed keys; one key",
        run: |scale| Box::pin(compare::run(scale)),
    },
    Bench {
        name: latency::BENCH,
        about: "from the publish to the event, at 2,000 messages a second",
        run: |scale| Box::pin(latency::run(scale)),
    },
    Bench {
        name: consumers::BENCH,
        about: "the same work over 1, 10 and 100 consumers",
        run: |scale| Box::pin(consumers::run(scale)),
    },
    Bench {
        name: keys::BENCH,
        about: "1,000 to 1,000,000 keys with state; starts with so many; memory when idle",
        run: |scale| Box::pin(keys::run(scale)),
    },
    Bench {
        name: shapes::VALUES,
        about: "100 bytes to 64 KiB of state a key",
        run: |scale| Box::pin(shapes::values(scale)),
    },
    Bench {
        name: shapes::THREADS,
        about: "one executor thread and two, on the whole main path",
        run: |scale| Box::pin(shapes::threads(scale)),
    },
    Bench {
        name: attempt::BENCH,
        about: "attempts in the sandbox alone, on one thread and on two",
        run: |scale| Box::pin(attempt::run(scale)),
    },
    Bench {
        name: ids::BENCH,
        about: "ids of processed messages in the store alone, one million to fifty",
        run: |scale| Box::pin(ids::run(scale)),
    },
    Bench {
        name: recovery::BENCH,
        about: "a start after a kill with everything in the commit log",
        run: |scale| Box::pin(recovery::run(scale)),
    },
    Bench {
        name: idle::BENCH,
        about: "memory of consumers that have nothing to do",
        run: |scale| Box::pin(idle::run(scale)),
    },
    Bench {
        name: poisoned::BENCH,
        about: "a key in trouble in the middle of ten times as many messages of others",
        run: |scale| Box::pin(poisoned::run(scale)),
    },
    Bench {
        name: swap::BENCH,
        about: "the longest pause of any lane while new versions take over under load, beside the same load without",
        run: |scale| Box::pin(swap::run(scale)),
    },
];

/// Runs the benches of these names, or all if there are none, and judges the goals. `command` is what the report says that it was made with.
///
/// # Errors
/// There is no bench of a name, or one does not come up, does not finish, or finds something done wrongly.
pub async fn run(names: &[String], scale: Scale, command: &str) -> Result<Report> {
    let known = |name: &String| BENCHES.iter().find(|bench| bench.name == *name);
    let all: Vec<&str> = BENCHES.iter().map(|bench| bench.name).collect();
    let mut chosen = Vec::new();
    for name in names {
        chosen.push(known(name).with_context(|| format!("there is no bench {name}; there are {}", all.join(", ")))?);
    }
    if chosen.is_empty() {
        chosen.extend(BENCHES);
    }
    let mut report = Report::begin(scale, command)?;
    for bench in &chosen {
        say(&format!("==> {}: {}", bench.name, bench.about));
        let cases = (bench.run)(scale).await.with_context(|| format!("the bench {} failed", bench.name))?;
        report.cases.extend(cases);
    }
    report.goals = goals::judge(&report.cases, chosen.len() == BENCHES.len());
    Ok(report)
}

/// Leaves a report as JSON, with its pictures beside it, below the workspace's target directory. Gives that folder.
///
/// # Errors
/// Of the file system.
pub fn save(report: &Report) -> Result<PathBuf> {
    let folder = tools::target().join("bench");
    std::fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    let files = [
        ("bench.json", serde_json::to_string_pretty(report)?),
        ("throughput.svg", plot::throughput(report)),
        ("latency.svg", plot::latency(report)),
    ];
    for (name, text) in files {
        std::fs::write(folder.join(name), text).with_context(|| format!("can't write {name}"))?;
    }
    Ok(folder)
}

/// Writes a report of everything to `BENCHMARKS.md`.
///
/// # Errors
/// It is not of everything, or not large enough for its figures to mean something; or of the file system.
pub fn write(report: &Report) -> Result<()> {
    ensure!(report.full, "BENCHMARKS.md takes full runs only: at least 3 runs, and all of the messages");
    let measured = report.benches();
    let missing: Vec<&str> = BENCHES.iter().map(|bench| bench.name).filter(|name| !measured.contains(name)).collect();
    ensure!(missing.is_empty(), "BENCHMARKS.md takes runs of all benches; not measured: {}", missing.join(", "));
    let (path, text) = (tools::root().join("BENCHMARKS.md"), markdown::text(report)?);
    ensure!(markdown::figures(&text)? == *report, "BENCHMARKS.md would not hold the figures that it was made from");
    std::fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))
}
