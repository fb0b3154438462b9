//! `cargo xtask test`: everything that must hold before a change is done, step by step, with how long each step took.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::tools::{self, HostBuild, PluginSet};

/// How often tests passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Passed.
    pub passed: u64,
    /// Failed.
    pub failed: u64,
}

impl Count {
    /// Adds what a line of `cargo test` says, if it is the summary of one test binary.
    pub(crate) fn add_line(&mut self, line: &str) {
        if !line.starts_with("test result:") {
            return;
        }
        let number_before = |word: &str| {
            let before = line.split(word).next()?;
            before.split_whitespace().last()?.parse::<u64>().ok()
        };
        self.passed += number_before(" passed").unwrap_or(0);
        self.failed += number_before(" failed").unwrap_or(0);
    }
}

/// Runs all steps and says how they went. Ends at the first step that fails.
///
/// # Errors
/// What failed.
pub fn test() -> Result<Count> {
    let began = Instant::now();
    let mut count = Count::default();
    let server = step("prerequisites: the Wasm target, nats-server", || {
        tools::wasm_target()?;
        let server = tools::nats_server()?;
        println!("  nats-server: {}", server.display());
        Ok(server)
    })?;
    step("plug-ins of the tests (guests/)", || PluginSet::Guests.build())?;
    step("plug-ins of the examples (examples/)", || PluginSet::Examples.build())?;
    step("the host, as users run it", || tools::host(HostBuild::Normal).map(|_| ()))?;
    step("unit, property and end-to-end tests", || {
        cargo_test(&server, &["--workspace", "--lib", "--bins", "--tests"], &mut count)
    })?;
    step("the core's simulation notices each guarantee that is broken on purpose", || {
        cargo_test(&server, &["-p", "pelton-core", "--features", "fault-injection"], &mut count)
    })?;
    step("the simulation: cases that once failed, some seeds, and each guarantee broken on purpose", || {
        let simulation = ["-p", "pelton", "--features", "fault-injection", "--bin", "pelton-sim"];
        cargo_test(&server, &simulation, &mut count)
    })?;
    step("the examples' own tests, over the sdk's in-memory host", || examples_test(&mut count))?;
    step("examples in the documentation", || cargo_test(&server, &["--workspace", "--doc"], &mut count))?;
    println!("{} passed, {} failed in {}", count.passed, count.failed, seconds(began.elapsed()));
    Ok(count)
}

fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("==> {what}");
    let began = Instant::now();
    let outcome = work();
    let word = if outcome.is_ok() { "done" } else { "FAILED" };
    println!("    {word} after {}: {what}", seconds(began.elapsed()));
    outcome.with_context(|| format!("step failed: {what}"))
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f32())
}

/// Tests find the server by the same variable as the host does.
fn cargo_test(server: &Path, arguments: &[&str], count: &mut Count) -> Result<()> {
    let mut command = tools::cargo();
    command.current_dir(tools::root()).args(["test", "--release", "--no-fail-fast"]).args(arguments);
    command.env("PELTON_NATS_SERVER", server);
    let before = count.failed;
    let succeeded = run_counting(command, count)?;
    ensure!(succeeded, "{} tests failed, see above", count.failed - before);
    Ok(())
}

/// The examples are a workspace of their own; here they are built for this machine.
fn examples_test(count: &mut Count) -> Result<()> {
    let mut command = tools::cargo();
    command.current_dir(PluginSet::Examples.directory()).args(["test", "--quiet", "--no-fail-fast"]);
    command.env("CARGO_TARGET_DIR", tools::plugin_target());
    let before = count.failed;
    let succeeded = run_counting(command, count)?;
    ensure!(succeeded, "{} tests failed, see above", count.failed - before);
    Ok(())
}

/// Runs a command whose output passes through, and counts what it says about tests.
fn run_counting(mut command: Command, count: &mut Count) -> Result<bool> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("can't start cargo")?;
    let output = child.stdout.take().context("the output is piped")?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        count.add_line(&line);
        println!("{line}");
    }
    Ok(child.wait()?.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_test_binaries_are_added_up() {
        let mut count = Count::default();
        count
            .add_line("test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s");
        count.add_line(
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.01s",
        );
        count.add_line("test load::keeps_order ... ok");
        assert_eq!(count, Count { passed: 15, failed: 2 });
    }
}
