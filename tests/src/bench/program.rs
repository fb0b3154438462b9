//! Benchmarks of the host's own (`host/benches`) that are run as programs: each prints its figures as a line of JSON.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::figures::Reading;
use crate::tools;

/// What the program says, run with these arguments.
///
/// # Errors
/// It can't be built, fails, or says nothing.
pub(crate) async fn figures(name: &'static str, arguments: Vec<String>) -> Result<Reading> {
    tokio::task::spawn_blocking(move || run(name, &arguments)).await.context("it was cancelled")?
}

fn run(name: &str, arguments: &[String]) -> Result<Reading> {
    let mut cargo = tools::cargo();
    cargo.current_dir(tools::root()).args(["bench", "--quiet", "--package", "pelton", "--bench", name, "--"]);
    let said = tools::run(&format!("the benchmark {name}"), cargo.args(arguments))?;
    let line = said.lines().find(|line| line.starts_with('{'));
    let line = line.with_context(|| format!("the benchmark {name} said nothing"))?;
    let figures: BTreeMap<String, f64> =
        serde_json::from_str(line).with_context(|| format!("what the benchmark {name} said"))?;
    Ok(figures)
}
