//! `versions`, `rollback` and `deploy`.

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use super::args::Ask;
use super::commands::{Usage, client, show};
use super::tables;
use crate::admin::{DeployWhat, StepView};
use crate::config::HostConfig;

/// `pelton versions`
#[derive(Args, Debug)]
pub(super) struct Versions {
    #[command(flatten)]
    ask: Ask,
    /// The consumer.
    consumer: String,
}

/// `pelton rollback`
#[derive(Args, Debug)]
pub(super) struct Rollback {
    #[command(flatten)]
    ask: Ask,
    /// The consumer.
    consumer: String,
    /// The first digits of the version to go back to; without, it is the one before.
    version: Option<String>,
}

/// `pelton deploy`
#[derive(Args, Debug)]
pub(super) struct Deploy {
    #[command(flatten)]
    ask: Ask,
    /// Only say what would be done, and why what can't be done can't.
    #[arg(long)]
    plan: bool,
    /// Only these consumers, by name or by manifest; without, all.
    #[arg(value_name = "CONSUMER|FILE")]
    consumers: Vec<String>,
}

pub(super) fn versions(Versions { ask, consumer }: &Versions) -> anyhow::Result<ExitCode> {
    let versions = client(ask)?.versions(consumer)?;
    show(ask, &versions, || tables::versions(&versions))
}

pub(super) fn roll_back(Rollback { ask, consumer, version }: &Rollback) -> anyhow::Result<ExitCode> {
    let done = client(ask)?.roll_back(consumer, version.as_deref())?;
    let short = tables::short_version;
    let code = show(ask, &done, || {
        let (from, to) = (short(&done.from), short(&done.to));
        format!(
            "consumer {consumer}: {from} is taken back, and {to} serves until the component or the manifest changes"
        )
    })?;
    if !done.durable {
        eprintln!(
            "warning: this could not be written down: after a restart the version that was taken back will serve; see the host's log"
        );
    }
    Ok(code)
}

pub(super) fn deploy(Deploy { ask, plan, consumers }: &Deploy) -> anyhow::Result<ExitCode> {
    let directory = HostConfig::load(&ask.reach.config.file)?.consumers;
    let names = consumers.iter().map(|given| name_of(given, &directory)).collect::<Result<_, _>>()?;
    let done = client(ask)?.deploy(&DeployWhat { consumers: names, plan: *plan })?;
    show(ask, &done, || tables::deployed(&done))?;
    Ok(if done.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The consumer that is meant: a manifest stands for its own.
fn name_of(given: &str, directory: &Path) -> Result<String, Usage> {
    let file = Path::new(given);
    if file.extension() != Some(OsStr::new("toml")) {
        return Ok(given.to_owned());
    }
    let there = |path: &Path| path.canonicalize().ok();
    let parent = file.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
    if parent.and_then(there).is_none_or(|parent| Some(parent) != there(directory)) {
        let directory = directory.display();
        return Err(Usage(format!(
            "{given} is not in the consumer directory {directory}: copy it there, with its component, or name a consumer"
        )));
    }
    Ok(file.file_stem().unwrap_or_default().to_string_lossy().into_owned())
}

/// One line about a step.
pub(super) fn line(step: &StepView) -> Vec<String> {
    let version = |version: &Option<String>| version.as_deref().map_or_else(|| "-".into(), tables::short_version);
    vec![
        step.consumer.clone(),
        step.step.clone().unwrap_or_else(|| "-".into()),
        version(&step.from),
        version(&step.to),
        step.result.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_of_the_directory_stands_for_its_consumer_and_another_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("consumers");
        std::fs::create_dir(&directory).unwrap();
        let given = directory.join("orders.toml").display().to_string();
        assert_eq!(name_of(&given, &directory).unwrap(), "orders");
        assert_eq!(name_of("orders", &directory).unwrap(), "orders");
        let elsewhere = root.path().join("orders.toml").display().to_string();
        assert!(name_of(&elsewhere, &directory).unwrap_err().0.contains("copy it there"));
    }
}
