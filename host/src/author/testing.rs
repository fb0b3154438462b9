//! `pelton test`: runs the cases of a plug-in, each by an attempt of its own, and says which came out as expected.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use super::BadInput;
use super::bench::{Bench, Terms};
use super::build::compile;
use super::cases::{Case, CaseFile};
use super::effects::Effects;
use super::expect::Difference;
use super::project::{Project, component_file, read_component};
use crate::config::Manifest;
use crate::wasm::Plugin;

/// What is run.
#[derive(Clone, Debug)]
pub struct TestOptions {
    /// The plug-in's directory.
    pub directory: PathBuf,
    /// Only cases whose file or name holds this text.
    pub filter: Option<String>,
    /// Whether the plug-in is built first, if the directory holds what is built.
    pub build: bool,
}

/// How it went.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TestReport {
    /// Cases that came out as expected.
    pub passed: usize,
    /// Cases that did not.
    pub failed: usize,
    /// Cases that the filter left out.
    pub filtered_out: usize,
    /// Each case that was run, in order.
    pub cases: Vec<CaseResult>,
}

/// How one case went.
#[derive(Clone, Debug, Serialize)]
pub struct CaseResult {
    /// The file that it is in.
    pub file: PathBuf,
    /// Its name.
    pub name: String,
    /// The consumer whose plug-in was run.
    pub consumer: String,
    /// Whether it came out as expected.
    pub passed: bool,
    /// What did not.
    pub differences: Vec<Difference>,
    /// From before the instance was made until the handler's end, in microseconds.
    pub time_us: u64,
}

/// A file's cases with the consumer that they are for.
struct Batch<'p> {
    file: PathBuf,
    manifest: &'p Manifest,
    cases: Vec<Case>,
}

/// Runs the cases of a directory, and tells of each in `out` as it ends.
///
/// # Errors
/// [`BadInput`] or a [`crate::config::Report`] if manifests or cases can't be used; or a component can't be loaded.
pub fn test(options: &TestOptions, out: &mut dyn Write) -> anyhow::Result<TestReport> {
    let project = Project::open(&options.directory)?;
    let batches = read(&project)?;
    if options.build {
        compile(&options.directory)?;
    }
    let bench = Bench::new(project.component_bytes_max)?;
    let mut plugins: BTreeMap<&str, Plugin> = BTreeMap::new();
    let mut report = TestReport::default();
    for batch in &batches {
        let wanted = |case: &Case| options.filter.as_deref().is_none_or(|text| holds(&batch.file, case, text));
        let cases: Vec<&Case> = batch.cases.iter().filter(|case| wanted(case)).collect();
        report.filtered_out += batch.cases.len() - cases.len();
        let manifest = batch.manifest;
        if cases.is_empty() {
            continue;
        }
        if !plugins.contains_key(manifest.name.as_str()) {
            plugins.insert(&manifest.name, load(&bench, manifest, project.component_bytes_max)?);
        }
        let Some(plugin) = plugins.get(manifest.name.as_str()) else { continue };
        let version = plugin.version().short();
        writeln!(out, "\n{}: {} with {version}", batch.file.display(), counted(cases.len()))?;
        for case in cases {
            write!(out, "case {} ... ", case.name)?;
            out.flush()?;
            let result = run(&bench, plugin, batch, case)?;
            writeln!(out, "{}", if result.passed { "ok" } else { "FAILED" })?;
            *if result.passed { &mut report.passed } else { &mut report.failed } += 1;
            report.cases.push(result);
        }
    }
    conclude(&report, out)?;
    Ok(report)
}

/// Reads everything before anything is run.
fn read(project: &Project) -> anyhow::Result<Vec<Batch<'_>>> {
    let mut batches = Vec::new();
    let mut problems = Vec::new();
    for file in project.case_files()? {
        let CaseFile { consumer, cases } = match CaseFile::read(&file) {
            Ok(read) => read,
            Err(BadInput(text)) => {
                problems.push(text);
                continue;
            }
        };
        match project.manifest(consumer.as_deref()) {
            Ok(manifest) => batches.push(Batch { file, manifest, cases }),
            Err(problem) => problems.push(format!("{}: consumer: {problem}", file.display())),
        }
    }
    if problems.is_empty() { Ok(batches) } else { Err(BadInput(problems.join("\n")).into()) }
}

fn holds(file: &Path, case: &Case, text: &str) -> bool {
    case.name.contains(text) || file.to_string_lossy().contains(text)
}

fn load(bench: &Bench, manifest: &Manifest, bytes_max: usize) -> anyhow::Result<Plugin> {
    let file = component_file(manifest)?;
    let bytes = read_component(file, bytes_max)?;
    let loaded = bench.load(&bytes, &Terms::Manifest(Box::new(manifest.clone())));
    loaded.with_context(|| format!("consumer {}: component {}", manifest.name, file.display()))
}

fn run(bench: &Bench, plugin: &Plugin, batch: &Batch<'_>, case: &Case) -> anyhow::Result<CaseResult> {
    let mut manifest = batch.manifest.clone();
    manifest.config.extend(case.config.iter().cloned());
    let made = case.message.make(Some(&manifest), case.conditions.now_ms).map_err(|(field, problem)| {
        BadInput(format!("{}: case \"{}\".message.{field}: {problem}", batch.file.display(), case.name))
    })?;
    let Case { memory, conditions, .. } = case;
    let message = made.message;
    let effects = if let Some(why) = made.unreadable {
        Effects::unreadable(&message, &why, memory, conditions)
    } else {
        let terms = Terms::Manifest(Box::new(manifest));
        let attempted = bench.run(plugin, &terms, message.clone(), memory, conditions)?;
        Effects::of(&message, plugin.version(), memory, conditions, attempted)
    };
    let differences = case.expect.differences(&effects);
    Ok(CaseResult {
        file: batch.file.clone(),
        name: case.name.clone(),
        consumer: batch.manifest.name.clone(),
        passed: differences.is_empty(),
        differences,
        time_us: effects.time_us,
    })
}

fn counted(cases: usize) -> String {
    if cases == 1 { "1 case".to_owned() } else { format!("{cases} cases") }
}

fn conclude(report: &TestReport, out: &mut dyn Write) -> io::Result<()> {
    for case in report.cases.iter().filter(|case| !case.passed) {
        writeln!(out, "\n---- {}: {} ----", case.file.display(), case.name)?;
        for difference in &case.differences {
            writeln!(out, "{} (- expected, + came):", difference.what)?;
            for line in difference.text().lines() {
                writeln!(out, "    {line}")?;
            }
        }
    }
    let TestReport { passed, failed, filtered_out, .. } = report;
    let verdict = if *failed == 0 { "ok" } else { "FAILED" };
    let rest = if *filtered_out == 0 { String::new() } else { format!(", {filtered_out} filtered out") };
    writeln!(out, "\nresult: {verdict}. {passed} passed, {failed} failed{rest}")
}
