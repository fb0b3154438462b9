//! What each command does.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use serde::Serialize;

use super::args::{Ask, Cli, Command, ConsumersAction, Reach};
use super::{author, dead_letters, doctor, lists, parked, rewind, settings, state, tables, top, versions};
use crate::admin::{Client, Secret};
use crate::app::{self, End};
use crate::author::BadInput;
use crate::config::{HostConfig, Report, load_directory};
use crate::scheduling;
use crate::telemetry;
use crate::wasm::EXECUTOR_STACK_BYTES;

/// Usage, or an invalid configuration.
const INVALID: u8 = 2;

/// The command line doesn't say enough.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(pub(super) String);

/// Parses the command line, does what it says, and gives back the exit status.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(config) => run(&config.file),
        Command::Check(config) => check(&config.file),
        Command::Status(ask) => status(&ask),
        Command::Top(wanted) => top::run(&wanted),
        Command::Consumers(command) => match command.action {
            None => consumers(&command.list),
            Some(ConsumersAction::List(ask)) => consumers(&ask),
            Some(ConsumersAction::Show { ask, name }) => consumer(&ask, &name),
            Some(ConsumersAction::Rewind(wanted)) => rewind::rewind(&wanted),
            Some(ConsumersAction::Purge { ask, name, yes }) => rewind::purge(&ask, &name, yes),
            Some(ConsumersAction::Pause { ask, name, reason }) => pause(&ask, &name, &reason),
            Some(ConsumersAction::Resume { ask, name }) => resume(&ask, &name),
        },
        Command::State { action } => state::run(action),
        Command::Outbox(wanted) => rewind::outbox(&wanted),
        Command::Doctor(wanted) => doctor::run(&wanted),
        Command::Config(wanted) => settings::run(&wanted),
        Command::Completions { shell } => completions(shell),
        Command::Explain { ask, consumer, key } => explain(&ask, &consumer, &key),
        Command::Deploy(command) => versions::deploy(&command),
        Command::Versions(command) => versions::versions(&command),
        Command::Rollback(command) => versions::roll_back(&command),
        Command::New(command) => author::new(&command),
        Command::Build(command) => author::build(&command),
        Command::Dev(command) => author::dev(&command),
        Command::Invoke(command) => author::invoke(command),
        Command::Test(command) => author::test(&command),
        Command::Parked(command) => parked::run(command),
        Command::DeadLetters(command) => dead_letters::run(command),
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
                if error.is::<Usage>() || error.is::<BadInput>() { ExitCode::from(INVALID) } else { ExitCode::FAILURE }
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
    // Before there are other threads.
    scheduling::never_preempt();
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
    let admin = config.as_ref().and_then(|config| config.admin.clone());
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
    if let Some(admin) = &admin {
        Secret::of(admin).map_err(|error| Usage(format!("{error:#}")))?;
    }
    println!("{}: ok, {consumers} {}", file.display(), if consumers == 1 { "consumer" } else { "consumers" });
    Ok(ExitCode::SUCCESS)
}

fn completions(shell: clap_complete::Shell) -> anyhow::Result<ExitCode> {
    // The generator panics if its output is closed, so it writes to memory.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pelton", &mut script);
    io::stdout().lock().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

fn status(ask: &Ask) -> anyhow::Result<ExitCode> {
    let status = client(ask)?.status()?;
    show(ask, &status, || tables::status(&status))
}

fn consumers(ask: &Ask) -> anyhow::Result<ExitCode> {
    let consumers = client(ask)?.consumers()?;
    show(ask, &consumers, || tables::consumers(&consumers))
}

fn consumer(ask: &Ask, name: &str) -> anyhow::Result<ExitCode> {
    let consumer = client(ask)?.consumer(name)?;
    show(ask, &consumer, || lists::consumer(&consumer))
}

fn pause(ask: &Ask, name: &str, reason: &str) -> anyhow::Result<ExitCode> {
    let done = client(ask)?.pause(name, reason)?;
    show(ask, &done, || format!("consumer {name} is paused until `pelton consumers resume {name}`"))
}

fn resume(ask: &Ask, name: &str) -> anyhow::Result<ExitCode> {
    let resumed = client(ask)?.resume(name)?;
    show(ask, &resumed, || match (&resumed.halted, resumed.holds.is_empty()) {
        (None, true) => format!("consumer {name} was neither paused nor halted"),
        _ => format!("consumer {name} goes on"),
    })
}

fn explain(ask: &Ask, consumer: &str, key: &str) -> anyhow::Result<ExitCode> {
    let explained = client(ask)?.explain(consumer, key)?;
    show(ask, &explained, || explained.text.join("\n"))
}

/// A client for the host that was named.
pub(super) fn client(ask: &Ask) -> anyhow::Result<Client> {
    reach(&ask.reach)
}

/// The same, for a command that prints in one form only.
pub(super) fn reach(reach: &Reach) -> anyhow::Result<Client> {
    let token = match &reach.token_file {
        Some(file) => Some(Secret::read(file)?),
        None => Secret::of_environment()?,
    };
    Ok(match &reach.address {
        Some(address) => Client::at(address, token.as_ref()),
        None => Client::new(&HostConfig::load(&reach.config.file)?, token)?,
    })
}

/// Prints a value as JSON or as text, as it was asked for.
pub(super) fn show(ask: &Ask, value: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<ExitCode> {
    print_as(ask.json, value, text)
}

/// The same, for commands that ask nobody.
pub(super) fn print_as(json: bool, value: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<ExitCode> {
    if json { print(&serde_json::to_string_pretty(value)?) } else { print(&text()) }
}

fn print(text: &str) -> anyhow::Result<ExitCode> {
    writeln!(io::stdout().lock(), "{text}")?;
    Ok(ExitCode::SUCCESS)
}
