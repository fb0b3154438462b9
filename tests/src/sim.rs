//! `cargo xtask sim`: builds the simulation, which is a program of its own (`tests/sim/`), and runs it.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::tools;

/// What to simulate.
#[derive(Clone, Debug, Default)]
pub struct SimOptions {
    /// How long, in seconds.
    pub seconds: u64,
    /// The first seed.
    pub seed: u64,
    /// End after so many messages, in place of the time.
    pub messages: Option<u64>,
    /// The guarantee that is broken on purpose.
    pub broken: Option<String>,
    /// Only this case, as a failing run printed it.
    pub case: Option<String>,
}

/// Runs the simulation; its output passes through, and its last line is one JSON object. False: a promise was broken.
///
/// # Errors
/// It can't be built or started, or refuses what it is asked for.
pub fn run(options: &SimOptions) -> Result<bool> {
    let program = tools::simulation()?;
    let mut command = Command::new(&program);
    command.args(["--seconds", &options.seconds.to_string(), "--seed", &options.seed.to_string()]);
    if let Some(messages) = options.messages {
        command.args(["--messages", &messages.to_string()]);
    }
    if let Some(name) = &options.broken {
        command.args(["--break", name]);
    }
    if let Some(case) = &options.case {
        command.args(["--case", case]);
    }
    let status = command.status().with_context(|| format!("can't start {}", program.display()))?;
    match status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => bail!("the simulation ended with {status}"),
    }
}
