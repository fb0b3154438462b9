//! The commands for a plug-in's author: what can be typed, and what it does.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::app::End;
use crate::author::{self, BadInput, Described, Given, NewOptions, TestOptions};

/// `pelton new`
#[derive(Args, Clone, Debug)]
pub(super) struct New {
    /// The plug-in's name, or the path of its directory, which must not exist yet.
    #[arg(value_name = "NAME")]
    directory: PathBuf,
    /// The language.
    #[arg(long = "lang", value_name = "LANGUAGE", default_value = "rust")]
    language: String,
    /// The directory of pelton-sdk. By default that of the sources that this program was built from, or else the published version.
    #[arg(long, value_name = "PATH")]
    sdk: Option<PathBuf>,
}

/// `pelton build`
#[derive(Args, Debug)]
pub(super) struct Build {
    /// The plug-in's directory.
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,
}

/// `pelton dev`
#[derive(Args, Debug)]
pub(super) struct Dev {
    /// The plug-in's directory.
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,
}

/// `pelton invoke`
///
/// The message is either a JSON object, {"subject": …, "headers": {…}, "json" or "payload" or "payload_base64": …, "id": …, "key": …, "sequence": …,
/// "published_at_ms": …}, of which only the subject is required, or raw bytes with --payload. Exit status 0: applied; 1: the handler failed; 2: it
/// was not called, because something given can't be used.
#[derive(Args, Debug)]
pub(super) struct Invoke {
    /// The component's file.
    component: PathBuf,
    /// The message, described as JSON; "-" is standard input.
    #[arg(long, value_name = "FILE|-", required_unless_present = "payload")]
    message: Option<PathBuf>,
    /// The payload as it is; "-" is standard input.
    #[arg(long, value_name = "FILE|-")]
    payload: Option<PathBuf>,
    /// The message's subject. This and the next four win over --message.
    #[arg(long, default_value = "", hide_default_value = true)]
    subject: String,
    /// A header of the message; may be given several times.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = pair)]
    headers: Vec<(String, String)>,
    /// The message's id, as Nats-Msg-Id has it.
    #[arg(long)]
    id: Option<String>,
    /// The ordering key. Without a key, and without --manifest, the state is that of the whole consumer.
    #[arg(long)]
    key: Option<String>,
    /// The message's sequence in its stream.
    #[arg(long, value_name = "N")]
    sequence: Option<u64>,
    /// The state that the plug-in finds: a JSON object of entries, as "state_after" has it.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// A business id that was marked before; may be given several times.
    #[arg(long = "mark", value_name = "ID")]
    marks: Vec<String>,
    /// A value of [config]; may be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    config: Vec<(String, String)>,
    /// A manifest whose grants, limits, configuration and rules for key and id count.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Without a manifest: a pattern of subjects that it may emit to; may be given several times. Without any, every subject.
    #[arg(long, value_name = "PATTERN", conflicts_with = "manifest")]
    emit: Vec<String>,
    /// The attempt's time: milliseconds since 1970, or like 2026-01-31T12:00:00Z. Now, if not given.
    #[arg(long, value_name = "TIME", value_parser = time)]
    now: Option<u64>,
    /// The attempt's number.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    attempt: u32,
    /// Seeds the randomness that the plug-in is given.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

/// `pelton test`
#[derive(Args, Debug)]
pub(super) struct Test {
    /// The plug-in's directory.
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// Only cases whose file or name holds this text.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Take the component as it is. By default what has changed is built first, where the directory holds a Cargo.toml.
    #[arg(long)]
    no_build: bool,
    /// JSON instead of text.
    #[arg(long)]
    json: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

fn time(text: &str) -> Result<u64, String> {
    if let Ok(ms) = text.parse() {
        return Ok(ms);
    }
    let at: jiff::Timestamp = text.parse().map_err(|error| format!("{error}; write like 2026-01-31T12:00:00Z"))?;
    u64::try_from(at.as_millisecond()).map_err(|_| "a time before 1970".to_owned())
}

pub(super) fn new(given: &New) -> anyhow::Result<ExitCode> {
    let New { directory, language, sdk } = given.clone();
    let created = author::create(&NewOptions { directory: directory.clone(), language, sdk })?;
    let mut out = io::stdout().lock();
    writeln!(out, "made {} with pelton-sdk {}", directory.display(), created.sdk)?;
    writeln!(out, "next: cd {} && pelton dev", directory.display())?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn build(given: &Build) -> anyhow::Result<ExitCode> {
    author::build(&given.directory, &mut io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn dev(given: &Dev) -> anyhow::Result<ExitCode> {
    Ok(match author::dev(&given.directory)? {
        End::Drained | End::CutOff => ExitCode::SUCCESS,
        End::AtOnce => ExitCode::FAILURE,
    })
}

pub(super) fn invoke(given: Invoke) -> anyhow::Result<ExitCode> {
    let Invoke { component, message, payload, subject, headers, id, key, sequence, state, marks, .. } = given;
    if message.as_deref() == Some("-".as_ref()) && payload.as_deref() == Some("-".as_ref()) {
        return Err(BadInput("--message and --payload can't both be standard input".into()).into());
    }
    let said = Described { subject, headers, id, key, sequence, ..Described::default() };
    let Invoke { config, manifest, emit, now: now_ms, attempt, seed, .. } = given;
    let given =
        Given { component, message, payload, said, state, marks, config, manifest, emit, now_ms, attempt, seed };
    let effects = author::invoke(&given)?;
    writeln!(io::stdout().lock(), "{}", serde_json::to_string_pretty(&effects)?)?;
    Ok(if effects.is_applied() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(super) fn test(options: &Test) -> anyhow::Result<ExitCode> {
    let Test { directory, filter, no_build, json } = options;
    let wanted = TestOptions { directory: directory.clone(), filter: filter.clone(), build: !no_build };
    let report = if *json {
        let report = author::test(&wanted, &mut io::sink())?;
        writeln!(io::stdout().lock(), "{}", serde_json::to_string_pretty(&report)?)?;
        report
    } else {
        author::test(&wanted, &mut io::stdout().lock())?
    };
    Ok(if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
