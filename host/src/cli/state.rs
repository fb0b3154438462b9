//! `pelton state`: what plug-ins keep, per consumer and ordering key.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::args::{Ask, Reach};
use super::commands::{Usage, client, reach, show};
use super::lists;
use super::many::{self, PAGE};
use crate::admin::{Client, StateChange, StateView};

/// Changes of one request of an import.
const STEP: usize = 500;

#[derive(Debug, Subcommand)]
pub(super) enum StateAction {
    /// Print one entry: its value as it is, or with --json all that is known of it.
    Get {
        #[command(flatten)]
        ask: Ask,
        #[command(flatten)]
        entry: Entry,
    },
    /// List entries, of all keys or of one.
    List {
        #[command(flatten)]
        ask: Ask,
        /// The consumer.
        consumer: String,
        /// Only those of this ordering key.
        #[arg(long)]
        key: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
    },
    /// Set one entry, between two attempts of its key.
    Set {
        #[command(flatten)]
        ask: Ask,
        #[command(flatten)]
        entry: Entry,
        /// The value; without it, it is read from --file or standard input.
        value: Option<String>,
        /// The file with the value; - is standard input.
        #[arg(long = "file", value_name = "FILE", conflicts_with = "value")]
        value_file: Option<PathBuf>,
        #[command(flatten)]
        only: Only,
    },
    /// Delete one entry, all of a key, or all.
    Delete {
        #[command(flatten)]
        ask: Ask,
        /// The consumer.
        consumer: String,
        /// The entry.
        #[arg(conflicts_with = "all")]
        entry: Option<String>,
        /// The ordering key that it belongs to; without it, what all keys share.
        #[arg(long)]
        key: Option<String>,
        /// All entries: of the key that is named, else of all keys.
        #[arg(long)]
        all: bool,
        /// Also if it is more than one.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        only: Only,
    },
    /// Write entries as JSON, one a line.
    Export {
        #[command(flatten)]
        reach: Reach,
        /// The consumer.
        consumer: String,
        /// Only those of this ordering key.
        #[arg(long)]
        key: Option<String>,
    },
    /// Set all entries of an export. Nothing is changed unless every line can be read; others' entries stay.
    Import {
        #[command(flatten)]
        ask: Ask,
        /// The consumer.
        consumer: String,
        /// The file; - is standard input.
        #[arg(value_name = "FILE")]
        source: PathBuf,
        /// Only entries that are not there yet.
        #[arg(long)]
        new_only: bool,
        /// Also if nobody can be asked.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Args, Debug)]
pub(super) struct Entry {
    /// The consumer.
    consumer: String,
    /// The entry.
    entry: String,
    /// The ordering key that it belongs to; without it, what all keys share.
    #[arg(long)]
    key: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct Only {
    /// Only if the entry holds this text now.
    #[arg(long, value_name = "TEXT", conflicts_with = "if_absent")]
    if_value: Option<String>,
    /// Only if there is no such entry.
    #[arg(long)]
    if_absent: bool,
}

/// One line of an export.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    entry: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
}

pub(super) fn run(action: StateAction) -> anyhow::Result<ExitCode> {
    match action {
        StateAction::Get { ask, entry } => get(&ask, &entry),
        StateAction::List { ask, consumer, key, limit } => list(&ask, &consumer, key.as_deref(), limit as usize),
        StateAction::Set { ask, entry, value, value_file, only } => {
            set(&ask, &entry, value, value_file.as_deref(), only)
        }
        StateAction::Delete { ask, consumer, entry: Some(entry), key, only, .. } => {
            delete(&ask, &Entry { consumer, entry, key }, only)
        }
        StateAction::Delete { ask, consumer, key, all: true, yes, .. } => delete_all(&ask, &consumer, key, yes),
        StateAction::Delete { .. } => Err(Usage("say which: an ENTRY, or --all".into()).into()),
        StateAction::Export { reach, consumer, key } => export(&reach, &consumer, key.as_deref()),
        StateAction::Import { ask, consumer, source, new_only, yes } => import(&ask, &consumer, &source, new_only, yes),
    }
}

fn get(ask: &Ask, Entry { consumer, entry, key }: &Entry) -> anyhow::Result<ExitCode> {
    let found = client(ask)?.state_entry(consumer, key.as_deref(), entry)?;
    if ask.json {
        return show(ask, &found, String::new);
    }
    let bytes = match (&found.value, &found.value_base64) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(base64)) => BASE64.decode(base64).context("the host's answer")?,
        (None, None) => Vec::new(),
    };
    let mut output = io::stdout().lock();
    output.write_all(&bytes)?;
    if output.is_terminal() {
        output.write_all(b"\n")?;
    }
    output.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn list(ask: &Ask, consumer: &str, key: Option<&str>, limit: usize) -> anyhow::Result<ExitCode> {
    let client = client(ask)?;
    let entries = many::listed(ask, client.state(consumer, key, PAGE.min(limit + 1)), limit)?;
    show(ask, &entries, || lists::state(&entries))
}

fn set(
    ask: &Ask,
    Entry { consumer, entry, key }: &Entry,
    value: Option<String>,
    file: Option<&Path>,
    only: Only,
) -> anyhow::Result<ExitCode> {
    let bytes = match (value, file) {
        (Some(value), _) => value.into_bytes(),
        (None, Some(file)) => many::read_payload(file)?,
        (None, None) if io::stdin().is_terminal() => {
            return Err(Usage("say what: a VALUE, or --file FILE".into()).into());
        }
        (None, None) => many::read_payload(Path::new("-"))?,
    };
    let length = bytes.len();
    let (value, value_base64) = match String::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(BASE64.encode(error.as_bytes()))),
    };
    let change = StateChange { value, value_base64, ..changed(entry, key.clone(), only) };
    let done = client(ask)?.change_state(consumer, &[change])?;
    show(ask, &done, || format!("entry {entry:?} of consumer {consumer} has {length} bytes now"))
}

fn changed(entry: &str, key: Option<String>, Only { if_value, if_absent }: Only) -> StateChange {
    StateChange { key, entry: entry.to_owned(), if_value, if_absent, ..StateChange::default() }
}

fn delete(ask: &Ask, Entry { consumer, entry, key }: &Entry, only: Only) -> anyhow::Result<ExitCode> {
    let client = client(ask)?;
    // A name that was mistyped is no success.
    client.state_entry(consumer, key.as_deref(), entry)?;
    let done = client.change_state(consumer, &[changed(entry, key.clone(), only)])?;
    show(ask, &done, || format!("entry {entry:?} of consumer {consumer} is deleted"))
}

fn delete_all(ask: &Ask, consumer: &str, key: Option<String>, yes: bool) -> anyhow::Result<ExitCode> {
    let client = client(ask)?;
    many::confirm(client.state(consumer, key.as_deref(), 2), yes)?;
    let mut total = crate::admin::DoneView::default();
    loop {
        // What was deleted is listed no more, so each step begins at the front.
        let found: Vec<StateView> = many::first(client.state(consumer, key.as_deref(), STEP), STEP)?;
        if found.is_empty() {
            break;
        }
        let changes =
            found.into_iter().map(|found| changed(&found.entry, found.key, Only { if_value: None, if_absent: false }));
        total.count += client.change_state(consumer, &changes.collect::<Vec<_>>())?.count;
    }
    show(ask, &total, || format!("deleted: {} entries of consumer {consumer}", total.count))
}

fn export(wanted: &Reach, consumer: &str, key: Option<&str>) -> anyhow::Result<ExitCode> {
    let client = reach(wanted)?;
    let mut pages = client.state(consumer, key, PAGE);
    let mut output = io::BufWriter::new(io::stdout().lock());
    while let Some(page) = pages.next_page()? {
        for StateView { key, entry, value, value_base64, expires_at } in page {
            serde_json::to_writer(&mut output, &Line { key, entry, value, value_base64, expires_at })?;
            output.write_all(b"\n")?;
        }
    }
    output.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn import(ask: &Ask, consumer: &str, file: &Path, new_only: bool, yes: bool) -> anyhow::Result<ExitCode> {
    let changes = read_lines(file, new_only)?;
    let client = client(ask)?;
    if !yes && !agreed(&client, consumer, changes.len())? {
        return Err(Usage(format!("this sets {} entries of consumer {consumer}: add --yes", changes.len())).into());
    }
    let mut total = crate::admin::DoneView::default();
    for step in changes.chunks(STEP) {
        let done = client.change_state(consumer, step);
        total.count += done.with_context(|| format!("{} entries were set before", total.count))?.count;
    }
    show(ask, &total, || format!("set: {} entries of consumer {consumer}", total.count))
}

/// Asks whoever sits at the terminal. False: nobody does, or they said no.
fn agreed(client: &Client, consumer: &str, count: usize) -> anyhow::Result<bool> {
    // A consumer that is not there is told before anybody is asked.
    client.consumer(consumer)?;
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(false);
    }
    eprint!("set {count} entries of consumer {consumer}? [y/N] ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

/// All lines of an import, or everything that is wrong with them.
fn read_lines(file: &Path, new_only: bool) -> anyhow::Result<Vec<StateChange>> {
    let mut text = String::new();
    if file == Path::new("-") {
        io::stdin().lock().read_to_string(&mut text).context("reading standard input")?;
    } else {
        text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    }
    parse(&text, new_only).map_err(|wrong| {
        let shown = wrong.iter().take(20).map(|wrong| format!("\n  {}:{wrong}", file.display())).collect::<String>();
        anyhow::anyhow!("nothing was changed: {} lines can't be taken{shown}", wrong.len())
    })
}

fn parse(text: &str, new_only: bool) -> Result<Vec<StateChange>, Vec<String>> {
    let (mut changes, mut wrong) = (Vec::new(), Vec::new());
    let mut seen = std::collections::BTreeMap::new();
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
        if line.trim().is_empty() {
            continue;
        }
        let line: Line = match serde_json::from_str(line) {
            Ok(line) => line,
            Err(error) => {
                wrong.push(format!("{number}: {error}"));
                continue;
            }
        };
        wrong.extend(flaw(&line).map(|flaw| format!("{number}: {flaw}")));
        if let Some(first) = seen.insert((line.key.clone(), line.entry.clone()), number) {
            wrong.push(format!("{number}: entry {:?} of the same key is in line {first} already", line.entry));
        }
        let Line { key, entry, value, value_base64, expires_at } = line;
        changes.push(StateChange {
            key,
            entry,
            value,
            value_base64,
            expires_at,
            if_absent: new_only,
            ..StateChange::default()
        });
    }
    if wrong.is_empty() { Ok(changes) } else { Err(wrong) }
}

fn flaw(line: &Line) -> Option<String> {
    match (&line.value, &line.value_base64) {
        (Some(_), Some(_)) => return Some("value and value_base64 exclude each other".into()),
        (None, None) => return Some("there is neither value nor value_base64".into()),
        (None, Some(base64)) => {
            if let Err(error) = BASE64.decode(base64) {
                return Some(format!("value_base64: {error}"));
            }
        }
        (Some(_), None) => {}
    }
    let at = line.expires_at.as_ref()?;
    at.parse::<jiff::Timestamp>().err().map(|error| format!("expires_at: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_is_read_as_a_whole_or_not_at_all() {
        let good = "{\"key\":\"a\",\"entry\":\"n\",\"value\":\"1\"}\n\n{\"entry\":\"n\",\"value_base64\":\"AAE=\",\"expires_at\":\"2030-01-01T00:00:00Z\"}\n";
        let changes = parse(good, true).unwrap();
        assert_eq!(changes.len(), 2);
        assert!(changes.iter().all(|change| change.if_absent));
        let bad = "{\"entry\":\"a\",\"value\":\"1\"}\nnonsense\n{\"entry\":\"b\"}\n{\"entry\":\"c\",\"value_base64\":\"*\"}\n{\"entry\":\"a\",\"value\":\"2\"}\n\
                   {\"entry\":\"d\",\"value\":\"\",\"expires_at\":\"soon\"}\n{\"entry\":\"e\",\"value\":\"\",\"valeu\":\"\"}\n";
        let wrong = parse(bad, false).unwrap_err();
        let lines: Vec<&str> = wrong.iter().filter_map(|wrong| wrong.split(':').next()).collect();
        assert_eq!(lines, ["2", "3", "4", "5", "6", "7"], "{wrong:?}");
    }
}
