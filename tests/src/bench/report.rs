//! The report of a run: what was measured on which machine, and how it is shown.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::figures::Case;
use super::goals::{Goal, Wanted};
use super::scale::Scale;
use crate::tools;

/// Where and with what it was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name for itself.
    pub processor: String,
    /// Its cores.
    pub cores: usize,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// The kernel's release.
    pub kernel: String,
    /// The commit that was measured, with a mark if files were changed.
    pub commit: String,
    /// What nats-server says of itself.
    pub nats_server: String,
    /// What the compiler says of itself.
    pub rustc: String,
}

impl Machine {
    /// This one.
    ///
    /// # Errors
    /// There is no nats-server.
    pub fn this() -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let said = |program: &mut Command| {
            let output = program.output().ok().filter(|output| output.status.success());
            output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
        };
        let kilobytes = field(&read("/proc/meminfo"), "MemTotal");
        let kilobytes: u64 = kilobytes.trim_end_matches(" kB").parse().unwrap_or(0);
        let mut git = Command::new("git");
        git.current_dir(tools::root()).args(["describe", "--always", "--dirty", "--abbrev=12"]);
        Ok(Self {
            processor: field(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kilobytes * 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            commit: said(&mut git),
            nats_server: said(Command::new(tools::nats_server()?).arg("--version")),
            rustc: said(Command::new("rustc").arg("--version")),
        })
    }
}

/// Everything that a run found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The command that made it.
    pub command: String,
    /// When it began: seconds since 1970-01-01 UTC.
    pub began_at: u64,
    /// Whether it is large enough for its figures to mean something.
    pub full: bool,
    /// How often each case was measured.
    pub runs: usize,
    /// Messages of the main work.
    pub messages: u64,
    /// Where.
    pub machine: Machine,
    /// What was measured.
    pub cases: Vec<Case>,
    /// What was hoped for.
    pub goals: Vec<Goal>,
}

impl Report {
    pub(crate) fn begin(scale: Scale, command: &str) -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            command: command.to_owned(),
            began_at: now.as_secs(),
            full: scale.is_full(),
            runs: scale.runs,
            messages: scale.messages(),
            machine: Machine::this()?,
            cases: Vec::new(),
            goals: Vec::new(),
        })
    }

    /// The benches that have cases, in their order.
    pub(crate) fn benches(&self) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        let benches = self.cases.iter().map(|case| case.bench.as_str());
        benches.filter(|bench| seen.insert(*bench)).collect()
    }

    /// Tables for a reader at a terminal.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        for bench in self.benches() {
            text.push_str(&format!(
                "{bench}\n{}\n\n",
                cases_table(self.cases.iter().filter(|case| case.bench == bench))
            ));
        }
        text.push_str(&goals_table(&self.goals));
        if !self.full {
            text.push_str("\nToo small a run for its figures to mean anything.");
        }
        text
    }
}

fn empty_table() -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED);
    table
}

fn cases_table<'a>(cases: impl Iterator<Item = &'a Case>) -> String {
    let mut table = empty_table();
    table.set_header(["case", "figure", "median", "from", "to"]);
    for case in cases {
        if let Some(reason) = &case.not_available {
            table.add_row([case.name.as_str(), "not available", reason, "", ""]);
        }
        for (place, (name, figure)) in case.figures.iter().enumerate() {
            let case = if place == 0 { case.name.as_str() } else { "" };
            table.add_row([case, name, &number(figure.median), &number(figure.min), &number(figure.max)]);
        }
    }
    table.to_string()
}

fn goals_table(goals: &[Goal]) -> String {
    let mut table = empty_table();
    table.set_header(["goal", "wanted", "reached", ""]);
    for goal in goals {
        table.add_row([goal.name.clone(), wanted(goal.wanted), reached(goal.figure), verdict(goal).to_owned()]);
    }
    table.to_string()
}

/// What a goal wants, in words.
pub(crate) fn wanted(wanted: Wanted) -> String {
    match wanted {
        Wanted::AtLeast(least) => format!("at least {}", number(least)),
        Wanted::AtMost(most) => format!("at most {}", number(most)),
    }
}

/// What was reached, in words.
pub(crate) fn reached(figure: Option<f64>) -> String {
    figure.map_or_else(|| "not available".to_owned(), number)
}

/// Met or missed.
pub(crate) fn verdict(goal: &Goal) -> &'static str {
    if goal.met { "met" } else { "missed" }
}

/// A number with as many digits as say something.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || size == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_say_something() {
        let texts = [123_456.7, 12.34, 1.234, 0.004_56, 0.0].map(number);
        assert_eq!(texts, ["123457", "12.3", "1.23", "0.0046", "0"]);
    }

    #[test]
    fn the_machine_names_its_parts() {
        let machine = Machine::this().unwrap();
        assert!(machine.cores > 0 && machine.memory_bytes > 0, "{machine:?}");
        assert!(machine.nats_server.contains("nats-server") && machine.rustc.starts_with("rustc"), "{machine:?}");
    }
}
