//! What each command does.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;

use super::args::{Cli, Command};
use super::tables;
use crate::admin::Client;
use crate::app::{self, End};
use crate::config::{HostConfig, Report, load_directory};
use crate::telemetry;
use crate::wasm::EXECUTOR_STACK_BYTES;

/// Usage, or an invalid configuration.
const INVALID: u8 = 2;

/// Parses the command line, does what it says, and gives back the exit status.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(config) => run(&config.file),
        Command::Check(config) => check(&config.file),
        Command::Status { config, json } => status(&config.file, json),
        Command::DeadLetters { config, consumer, sequence, limit, json } => match (consumer, sequence) {
            (Some(consumer), Some(sequence)) => dead_letter(&config.file, &consumer, sequence, json),
            (consumer, _) => dead_letters(&config.file, consumer.as_deref(), usize::from(limit), json),
        },
    };
    match result {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => match error.downcast::<Report>() {
            Ok(report) => {
                eprint!("{report}");
                ExitCode::from(INVALID)
            }
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

/// `pelton status | head` is no failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn run(file: &Path) -> anyhow::Result<ExitCode> {
    let config = HostConfig::load(file)?;
    telemetry::init(&config.log.filter, config.log.format)?;
    // Components are tried out on the runtime's threads for blocking work.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("io")
        .thread_stack_size(EXECUTOR_STACK_BYTES)
        .build()?;
    let end = runtime.block_on(app::run(config));
    // A compile that is under way is not waited for.
    runtime.shutdown_background();
    Ok(match end {
        Ok(End::Drained | End::CutOff) => ExitCode::SUCCESS,
        Ok(End::AtOnce) => ExitCode::FAILURE,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the host can't go on");
            ExitCode::FAILURE
        }
    })
}

fn check(file: &Path) -> anyhow::Result<ExitCode> {
    let (config, mut report) = match HostConfig::load(file) {
        Ok(config) => (Some(config), Report::default()),
        Err(report) => (None, report),
    };
    let mut consumers = 0;
    // A configuration with mistakes may not say where the manifests are; if they are in the usual place, theirs are reported, too.
    let usual = file.with_file_name("consumers");
    if let Some(directory) = config.map(|config| config.consumers).or_else(|| usual.is_dir().then_some(usual)) {
        let (manifests, problems) = load_directory(&directory);
        report.merge(problems);
        consumers = manifests.len();
        for manifest in &manifests {
            report.merge(manifest.check_files());
        }
    }
    if !report.is_empty() {
        return Err(report.into());
    }
    println!("{}: ok, {consumers} {}", file.display(), if consumers == 1 { "consumer" } else { "consumers" });
    Ok(ExitCode::SUCCESS)
}

fn status(file: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let status = Client::new(&HostConfig::load(file)?)?.status()?;
    if json { print_json(&status) } else { print(&tables::status(&status)) }
}

fn dead_letters(file: &Path, consumer: Option<&str>, limit: usize, json: bool) -> anyhow::Result<ExitCode> {
    let letters = Client::new(&HostConfig::load(file)?)?.dead_letters(consumer, limit)?;
    if json { print_json(&letters) } else { print(&tables::dead_letters(&letters)) }
}

fn dead_letter(file: &Path, consumer: &str, sequence: u64, json: bool) -> anyhow::Result<ExitCode> {
    let letter = Client::new(&HostConfig::load(file)?)?.dead_letter(consumer, sequence)?;
    if json { print_json(&letter) } else { print(&tables::dead_letter(&letter)) }
}

fn print_json(value: &impl Serialize) -> anyhow::Result<ExitCode> {
    print(&serde_json::to_string_pretty(value)?)
}

fn print(text: &str) -> anyhow::Result<ExitCode> {
    writeln!(io::stdout().lock(), "{text}")?;
    Ok(ExitCode::SUCCESS)
}
