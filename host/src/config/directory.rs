//! All manifests of a directory, and what they say against each other.

use std::path::{Path, PathBuf};

use pelton_core::grants::subject_matches;

use super::manifest::{self, Loaded, Manifest, Retention, Start, StreamSpec};
use super::report::{Code, Place, Problem, Report};
use super::values::patterns_overlap;

/// More manifests than this are refused: each of them costs memory and a broker's consumer for as long as the host runs.
const MANIFESTS_MAX: usize = 1_000;

/// Reads and checks all manifests of a directory (`*.toml`; hidden files and what lies deeper are left alone), in the order of their
/// names.
///
/// Those that are right come back, whatever is wrong with others. Where two contradict each other the later one, by name, is wrong.
/// If the report has [`Code::DirectoryUnreadable`], nothing is known about any manifest: nobody removed them.
#[must_use]
pub fn load_directory(directory: &Path) -> (Vec<Manifest>, Report) {
    let files = match manifest_files(directory) {
        Ok(files) => files,
        Err(message) => {
            let problem = Problem {
                code: Code::DirectoryUnreadable,
                file: directory.into(),
                place: None,
                message,
                help: "create the directory, or name another one as consumers.directory in the host's configuration"
                    .into(),
            };
            return (Vec::new(), Report::from(vec![problem]));
        }
    };
    let mut loaded = Vec::new();
    let mut report = Report::default();
    for file in files {
        match manifest::load_placed(&file) {
            Ok(one) => loaded.push(one),
            Err(mistakes) => report.merge(mistakes),
        }
    }
    report.merge(cross_check(&mut loaded));
    (loaded.into_iter().map(|loaded| loaded.manifest).collect(), report)
}

fn manifest_files(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let unreadable = |error: std::io::Error| format!("the directory of the manifests can't be read: {error}");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let hidden = name.to_string_lossy().starts_with('.');
        let file = directory.join(name);
        if !hidden && file.extension().is_some_and(|extension| extension == "toml") && !file.is_dir() {
            files.push(file);
        }
    }
    if files.len() > MANIFESTS_MAX {
        return Err(format!("there are {} manifests; {MANIFESTS_MAX} are the most", files.len()));
    }
    files.sort();
    Ok(files)
}

/// Compares manifests, each with itself and with those before it, and drops those that contradict.
pub(super) fn cross_check(loaded: &mut Vec<Loaded>) -> Report {
    let streams = declared_streams(loaded);
    let mut problems = Vec::new();
    let mut sound = Vec::new();
    for (index, one) in loaded.iter().enumerate() {
        let known = problems.len();
        problems.extend(stream_problems(one, &streams));
        problems.extend(subscription_problems(one, &streams));
        problems.extend(dead_letter_problems(one, &streams));
        problems.extend(work_queue_problems(one, loaded.get(..index).unwrap_or_default(), &streams));
        sound.push(problems.len() == known);
    }
    drop(streams);
    let mut sound = sound.into_iter();
    loaded.retain(|_| sound.next().unwrap_or(true));
    Report::from(problems)
}

/// The declaration of a stream that counts, and who made it.
#[derive(Clone)]
struct Declared {
    spec: StreamSpec,
    file: PathBuf,
}

/// Of each stream the first declaration, in the order of the files.
fn declared_streams(loaded: &[Loaded]) -> Vec<Declared> {
    let mut declared: Vec<Declared> = Vec::new();
    for manifest in loaded.iter().map(|loaded| &loaded.manifest) {
        for spec in &manifest.streams {
            if declared.iter().all(|known| known.spec.name != spec.name) {
                declared.push(Declared { spec: spec.clone(), file: manifest.file.clone() });
            }
        }
    }
    declared
}

fn find<'a>(streams: &'a [Declared], name: &str) -> Option<&'a Declared> {
    streams.iter().find(|declared| declared.spec.name == name)
}

fn problem(code: Code, file: &Path, place: Option<Place>, message: String, help: &str) -> Problem {
    Problem { code, file: file.into(), place, message, help: help.into() }
}

/// What one manifest's streams say against what was declared before.
fn stream_problems(one: &Loaded, streams: &[Declared]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, spec) in one.manifest.streams.iter().enumerate() {
        let place = one.places.streams.get(index).copied();
        for declared in streams {
            if declared.spec.name == spec.name {
                if declared.spec != *spec {
                    let fields = differences(&declared.spec, spec).join(", ");
                    let message = format!(
                        "stream {:?} is declared otherwise in {}: {fields}",
                        spec.name,
                        declared.file.display()
                    );
                    let help =
                        "make the two sections equal, or keep one: a consumer can read a stream that another declares";
                    problems.push(problem(Code::StreamDeclaredTwice, &one.manifest.file, place, message, help));
                }
                // Those declared later look for overlaps themselves.
                break;
            }
            if let Some((mine, theirs)) = overlap(&spec.subjects, &declared.spec.subjects) {
                let message = format!(
                    "{mine:?} of stream {:?} overlaps {theirs:?} of stream {:?} in {}, and the broker stores a subject in one stream only",
                    spec.name,
                    declared.spec.name,
                    declared.file.display()
                );
                let help = "narrow the subjects of one of the two streams";
                problems.push(problem(Code::SubjectsOverlap, &one.manifest.file, place, message, help));
            }
        }
    }
    problems
}

/// The names of the fields in which two declarations differ.
fn differences(a: &StreamSpec, b: &StreamSpec) -> Vec<&'static str> {
    [
        ("subjects", a.subjects != b.subjects),
        ("retention", a.retention != b.retention),
        ("max_age_hours", a.max_age_hours != b.max_age_hours),
        ("max_bytes", a.max_bytes != b.max_bytes),
        ("duplicate_window_ms", a.duplicate_window_ms != b.duplicate_window_ms),
        ("replicas", a.replicas != b.replicas),
    ]
    .into_iter()
    .filter_map(|(name, differs)| differs.then_some(name))
    .collect()
}

/// A pattern of the one and a pattern of the other that overlap.
fn overlap<'a>(mine: &'a [String], theirs: &'a [String]) -> Option<(&'a str, &'a str)> {
    mine.iter().find_map(|a| theirs.iter().find(|b| patterns_overlap(a, b)).map(|b| (a.as_str(), b.as_str())))
}

/// What a subscription says against the stream that it is for, if that is declared anywhere.
fn subscription_problems(one: &Loaded, streams: &[Declared]) -> Vec<Problem> {
    let Manifest { subscription, file, .. } = &one.manifest;
    let Some(Declared { spec, file: declared_in }) = find(streams, &subscription.stream) else { return Vec::new() };
    let mut problems = Vec::new();
    for (index, subject) in subscription.subjects.iter().enumerate() {
        if spec.subjects.iter().any(|kept| patterns_overlap(kept, subject)) {
            continue;
        }
        let message = format!(
            "stream {:?} keeps nothing that {subject:?} matches: it is declared in {} with {:?}",
            spec.name,
            declared_in.display(),
            spec.subjects
        );
        let help = "correct the subscription's subjects, or add the subject to the stream";
        problems.push(problem(
            Code::SubjectOutsideStream,
            file,
            one.places.subjects.get(index).copied(),
            message,
            help,
        ));
    }
    if spec.retention == Retention::WorkQueue && subscription.start == Start::New {
        let message = format!(
            "start = \"new\" can't be: {:?} is a work-queue stream ({}), whose consumers begin with its first message",
            spec.name,
            declared_in.display()
        );
        problems.push(problem(
            Code::Conflict,
            file,
            one.places.start,
            message,
            "remove the line, or write start = \"all\"",
        ));
    }
    problems
}

/// A dead letter that is published to what the consumer itself reads comes back as a message, which may become a dead letter again.
fn dead_letter_problems(one: &Loaded, streams: &[Declared]) -> Option<Problem> {
    let Manifest { subscription, policy, file, .. } = &one.manifest;
    let subject = policy.dead_letter_subject.as_deref()?;
    let pattern = subscription.subjects.iter().find(|pattern| subject_matches(pattern, subject))?;
    let kept = |declared: &Declared| declared.spec.subjects.iter().any(|kept| subject_matches(kept, subject));
    // Of a stream that no manifest declares it is not known what else it keeps.
    if !find(streams, &subscription.stream).is_none_or(kept) {
        return None;
    }
    let message = format!(
        "{subject:?} of \"subject\" in [dead_letters] is among what this consumer reads itself, as {pattern:?}: its dead letters would come \
         back to it"
    );
    let help = "name a subject of another stream, or narrow the subscription's subjects";
    Some(problem(Code::SubjectsOverlap, file, one.places.dead_letters, message, help))
}

/// A work-queue stream gives each message to one consumer only, so no two may want the same.
fn work_queue_problems(one: &Loaded, earlier: &[Loaded], streams: &[Declared]) -> Vec<Problem> {
    let Manifest { subscription, file, .. } = &one.manifest;
    let work_queue =
        find(streams, &subscription.stream).is_some_and(|declared| declared.spec.retention == Retention::WorkQueue);
    if !work_queue {
        return Vec::new();
    }
    let rivals = earlier.iter().filter(|other| other.manifest.subscription.stream == subscription.stream);
    rivals
        .filter_map(|other| {
            let (mine, theirs) = overlap(&subscription.subjects, &other.manifest.subscription.subjects)?;
            let index = subscription.subjects.iter().position(|subject| subject == mine)?;
            let message = format!(
                "{mine:?} overlaps {theirs:?} of consumer {:?} ({}), and work-queue stream {:?} gives each message to one consumer only",
                other.manifest.name,
                other.manifest.file.display(),
                subscription.stream
            );
            let help = "narrow the subjects of one of the two, or declare the stream with retention = \"interest\"";
            Some(problem(Code::WorkQueueShared, file, one.places.subjects.get(index).copied(), message, help))
        })
        .collect()
}
