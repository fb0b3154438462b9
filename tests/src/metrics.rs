//! What `/metrics` tells, read as Prometheus would, and the list of metrics as `host/METRICS.md` has it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, bail};

use crate::host::Host;
use crate::tools;

/// A line with a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its name, with what its kind adds.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// One scrape.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    /// Family → its kind.
    pub kinds: BTreeMap<String, String>,
    /// Family → what it tells.
    pub helps: BTreeMap<String, String>,
    /// All lines with values.
    pub samples: Vec<Sample>,
}

impl Scrape {
    /// Scrapes a host.
    ///
    /// # Errors
    /// It does not answer, or with what is no OpenMetrics text.
    pub async fn of(host: &Host) -> Result<Self> {
        let answer = host.get("/metrics").await?;
        if answer.status != 200 {
            bail!("/metrics answered {}: {}", answer.status, answer.body);
        }
        Self::parse(&answer.body)
    }

    /// Reads OpenMetrics text.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self> {
        let mut scrape = Self::default();
        let Some(told) = text.strip_suffix("# EOF\n") else { bail!("the end is missing:\n{text}") };
        for line in told.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').with_context(|| format!("no kind: {line}"))?;
                if scrape.kinds.insert(name.into(), kind.into()).is_some() {
                    bail!("{name} is told twice");
                }
            } else if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').with_context(|| format!("no help: {line}"))?;
                scrape.helps.insert(name.into(), help.into());
            } else if !line.starts_with("# UNIT ") {
                scrape.samples.push(sample(line).with_context(|| format!("can't read {line:?}"))?);
            }
        }
        Ok(scrape)
    }

    /// The value of the sample of this name with these labels among its own.
    ///
    /// # Errors
    /// There is not exactly one.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let is_it = |sample: &&Sample| {
            let has = |(label, value): &(&str, &str)| sample.labels.get(*label).is_some_and(|told| told == value);
            sample.name == name && labels.iter().all(has)
        };
        let found: Vec<&Sample> = self.samples.iter().filter(is_it).collect();
        let [only] = found.as_slice() else { bail!("{} samples of {name}{labels:?}: {found:?}", found.len()) };
        Ok(only.value)
    }
}

fn sample(line: &str) -> Option<Sample> {
    // What stands behind `#` is an exemplar.
    let line = line.split(" # ").next()?;
    let (name, value) = line.rsplit_once(' ')?;
    let (name, labels) = match name.split_once('{') {
        None => (name, BTreeMap::new()),
        Some((name, labels)) => {
            let pairs = labels.strip_suffix('}')?.split("\",");
            let pair = |pair: &str| {
                let (label, value) = pair.split_once("=\"")?;
                Some((label.to_owned(), value.trim_end_matches('"').to_owned()))
            };
            (name, pairs.map(pair).collect::<Option<_>>()?)
        }
    };
    Some(Sample { name: name.into(), labels, value: value.parse().ok()? })
}

/// One line of `host/METRICS.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The name that queries use.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// The names of its labels.
    pub labels: BTreeSet<String>,
    /// What it tells.
    pub help: String,
}

impl Listed {
    /// The names of the samples that it comes out as.
    #[must_use]
    pub fn samples(&self) -> Vec<String> {
        match self.kind.as_str() {
            "histogram" => ["_bucket", "_sum", "_count"].iter().map(|part| format!("{}{part}", self.name)).collect(),
            _ => vec![self.name.clone()],
        }
    }

    /// The name of its family.
    #[must_use]
    pub fn family(&self) -> &str {
        let ending = match self.kind.as_str() {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        self.name.strip_suffix(ending).unwrap_or(&self.name)
    }
}

/// The list of metrics.
///
/// # Errors
/// `host/METRICS.md` can't be read.
pub fn listed() -> Result<Vec<Listed>> {
    let text = fs::read_to_string(tools::root().join("host/METRICS.md")).context("reading host/METRICS.md")?;
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, kind, labels, help] = cells.as_slice() else { bail!("four cells, but: {line}") };
        let labels = labels.split(", ").filter(|label| *label != "–").map(|label| label.trim_matches('`').to_owned());
        let name = name.trim_matches('`').to_owned();
        Ok(Listed { name, kind: (*kind).to_owned(), labels: labels.collect(), help: (*help).to_owned() })
    };
    rows.map(row).collect()
}
