//! `pelton invoke`: one message, one attempt, no broker.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pelton_core::grants::{self, Grants};
use serde_json::Value;
use serde_json::value::RawValue;

use super::BadInput;
use super::bench::{Bench, Conditions, Terms};
use super::effects::Effects;
use super::entries;
use super::fields::{Fields, Problems, read_text};
use super::memory::Memory;
use super::message::Described;
use super::project::read_component;
use crate::clock::Clock;
use crate::config::Manifest;
use crate::wasm::{Identity, Settings};

/// What is invoked, and with what.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// The component's file.
    pub component: PathBuf,
    /// The message as JSON; `-` is standard input.
    pub message: Option<PathBuf>,
    /// Its payload as it is; `-` is standard input.
    pub payload: Option<PathBuf>,
    /// What is known of it besides, which wins over the file: empty and none is nothing.
    pub said: Described,
    /// State entries, as JSON.
    pub state: Option<PathBuf>,
    /// Business ids that were marked before.
    pub marks: Vec<String>,
    /// Values of `[config]`, which win over the manifest's.
    pub config: Vec<(String, String)>,
    /// The manifest whose grants, limits, configuration and rules count.
    pub manifest: Option<PathBuf>,
    /// Without a manifest: patterns of the subjects that it may emit to; none is every subject.
    pub emit: Vec<String>,
    /// The attempt's time, in milliseconds since 1970-01-01 UTC; none: now.
    pub now_ms: Option<u64>,
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// Seeds the randomness that the plug-in is given.
    pub seed: u64,
}

/// Makes the attempt.
///
/// # Errors
/// [`BadInput`] if something given can't be used; or the component can't be loaded.
pub fn invoke(given: &Given) -> anyhow::Result<Effects> {
    let terms = terms(given)?;
    let described = described(given)?;
    let mut memory = match &given.state {
        Some(file) => state(file)?,
        None => Memory::default(),
    };
    given.marks.iter().for_each(|id| memory.mark(id));
    let now_ms = given.now_ms.unwrap_or_else(|| Clock::start().now().wall_ms);
    let conditions = Conditions { now_ms, attempt: given.attempt, seed: given.seed };
    let manifest = if let Terms::Manifest(manifest) = &terms { Some(&**manifest) } else { None };
    let made = described
        .make(manifest, now_ms)
        .map_err(|(field, problem)| BadInput(format!("the message's {field}: {problem}")))?;
    let component_bytes_max = Settings::default().component_bytes_max;
    let bytes = read_component(&given.component, component_bytes_max)?;
    let bench = Bench::new(component_bytes_max)?;
    let plugin = bench.load(&bytes, &terms).map_err(|error| {
        let loaded = anyhow::Error::new(BadInput(format!("component {}: {error:#}", given.component.display())));
        if error.is::<crate::wasm::LoadError>() { loaded } else { error }
    })?;
    if let Some(why) = made.unreadable {
        return Ok(Effects::unreadable(&made.message, &why, &memory, &conditions));
    }
    let message = made.message;
    let attempted = bench.run(&plugin, &terms, message.clone(), &memory, &conditions)?;
    Ok(Effects::of(&message, plugin.version(), &memory, &conditions, attempted))
}

fn terms(given: &Given) -> anyhow::Result<Terms> {
    if let Some(file) = &given.manifest {
        let mut manifest = Manifest::load(file)?;
        manifest.config.extend(given.config.iter().cloned());
        return Ok(Terms::Manifest(Box::new(manifest)));
    }
    if let Some(wrong) = given.emit.iter().find(|pattern| !grants::is_subject_pattern(pattern)) {
        return Err(
            BadInput(format!("--emit {wrong}: not a subject pattern (tokens with dots between; * and >)")).into()
        );
    }
    let everything = || vec![">".into()];
    let named: Vec<Box<str>> = given.emit.iter().map(|pattern| pattern.as_str().into()).collect();
    let stem = given.component.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let config: BTreeMap<String, String> = given.config.iter().cloned().collect();
    let identity = Arc::new(Identity { consumer: stem.replace('_', "-").into(), config, ..Identity::default() });
    let emit = if named.is_empty() { everything() } else { named };
    Ok(Terms::Free { identity, grants: Grants { emit } })
}

/// The message of the file and of what was said besides.
fn described(given: &Given) -> Result<Described, BadInput> {
    let mut described = Described::default();
    if let Some(file) = &given.message {
        let bytes = read_bytes(file, "--message")?;
        let name = shown_name(file);
        let advice = "describe the message as JSON, or give its bytes with --payload and its subject with --subject";
        let value: Value = serde_json::from_slice(&bytes)
            .map_err(|error| BadInput(format!("{name} is not JSON: {error}; {advice}")))?;
        let problems = Problems::default();
        let said = Some(given.said.subject.as_str()).filter(|said| !said.is_empty());
        let read = Fields::of(&problems, "", &value).and_then(|fields| Described::read(fields, said));
        problems.conclude(&name)?;
        described = read.unwrap_or_default();
    }
    if let Some(file) = &given.payload {
        described.payload = read_bytes(file, "--payload")?;
    }
    let Described { subject, headers, payload: _, id, key, sequence, published_at_ms } = given.said.clone();
    if !subject.is_empty() {
        described.subject = subject;
    }
    if described.subject.is_empty() {
        return Err(BadInput("the message has no subject: add --subject SUBJECT".into()));
    }
    described.headers.retain(|(name, _)| headers.iter().all(|(said, _)| !said.eq_ignore_ascii_case(name)));
    described.headers.extend(headers);
    described.id = id.or(described.id);
    described.key = key.or(described.key);
    described.sequence = sequence.or(described.sequence);
    described.published_at_ms = published_at_ms.or(described.published_at_ms);
    Ok(described)
}

fn state(file: &Path) -> Result<Memory, BadInput> {
    let text = read_text(file)?;
    let flaw = |problem: String| BadInput(format!("{}: {problem}", file.display()));
    let members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(&text)
        .map_err(|error| flaw(format!("not a JSON object of state entries, {{\"KEY\": VALUE, …}}: {error}")))?;
    let mut memory = Memory::default();
    for (key, json) in members {
        memory.set(&key, entries::read(json.get()).map_err(|problem| flaw(format!("{key}: {problem}")))?);
    }
    Ok(memory)
}

fn shown_name(file: &Path) -> String {
    if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() }
}

fn read_bytes(file: &Path, flag: &str) -> Result<Vec<u8>, BadInput> {
    let mut bytes = Vec::new();
    let read = if file == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut bytes).map(drop)
    } else {
        std::fs::read(file).map(|read| bytes = read)
    };
    read.map_err(|error| BadInput(format!("{flag}: {} can't be read: {error}", shown_name(file))))?;
    Ok(bytes)
}
