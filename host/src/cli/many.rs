//! What commands about parked and dead messages have in common: lists fetched in pages, and actions on many messages, step by step.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::ValueEnum;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::commands::{Usage, show};
use super::messages::{Many, Selection, Show};
use crate::admin::{Client, ClientError, DoneView, Filter, PAYLOAD_BYTES_MAX, Pages, Which};

/// Messages of one page.
pub(super) const PAGE: usize = 500;

/// Which messages a selection is about.
pub(super) fn filter<C: ValueEnum + Send + Sync>(selection: &Selection<C>, brief: bool) -> Filter {
    Filter {
        consumer: selection.consumer.clone(),
        key: selection.key.clone(),
        cause: selection.narrow.reason.as_ref().map(word),
        older_than_ms: selection.narrow.older_than,
        brief,
    }
}

/// Which messages an action is for.
///
/// # Errors
/// [`Usage`] if it does not say.
pub(super) fn which<C: ValueEnum + Send + Sync>(many: &Many<C>, one: &str) -> Result<Which, Usage> {
    if many.key.is_none() && !many.all {
        return Err(Usage(format!("say which messages: {one}, --key KEY or --all")));
    }
    Ok(Which {
        key: many.key.clone(),
        all: many.all,
        cause: many.narrow.reason.as_ref().map(word),
        older_than_ms: many.narrow.older_than,
        after: None,
    })
}

/// Refuses what only makes sense for many.
///
/// # Errors
/// [`Usage`] if one is named and narrowed down as well.
pub(super) fn only_one<C: ValueEnum + Send + Sync>(many: &Many<C>) -> Result<(), Usage> {
    match (&many.narrow.reason, many.narrow.older_than) {
        (None, None) => Ok(()),
        _ => Err(Usage("--reason and --older-than go with --key or --all".into())),
    }
}

fn word<C: ValueEnum>(value: &C) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// The first `limit` items of a list.
///
/// # Errors
/// If the host can't be asked.
pub(super) fn first<T: DeserializeOwned>(mut pages: Pages<'_, T>, limit: usize) -> Result<Vec<T>, ClientError> {
    let mut found = Vec::new();
    while found.len() < limit
        && let Some(page) = pages.next_page()?
    {
        found.extend(page);
    }
    found.truncate(limit);
    Ok(found)
}

/// The first `limit` items of a list, for a reader: who sees a list that was cut is told so.
///
/// # Errors
/// If the host can't be asked.
pub(super) fn listed<T: DeserializeOwned>(
    ask: &super::args::Ask,
    pages: Pages<'_, T>,
    limit: usize,
) -> Result<Vec<T>, ClientError> {
    let mut found = first(pages, limit.saturating_add(1))?;
    if found.len() > limit {
        found.truncate(limit);
        if !ask.json {
            eprintln!("these are the first {limit}; --limit shows more, and `export` all of them");
        }
    }
    Ok(found)
}

/// Writes a list as JSON, one item a line; holds no more than a page of it.
///
/// # Errors
/// If the host can't be asked, or the output is closed.
pub(super) fn export<T: DeserializeOwned + Serialize>(
    mut pages: Pages<'_, T>,
    limit: usize,
) -> anyhow::Result<ExitCode> {
    let mut output = io::BufWriter::new(io::stdout().lock());
    let mut left = limit;
    while left > 0
        && let Some(page) = pages.next_page()?
    {
        for item in page.into_iter().take(left) {
            let mut line = serde_json::to_vec(&item)?;
            line.push(b'\n');
            output.write_all(&line)?;
            left -= 1;
        }
        output.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Does the steps of an action one after the other.
///
/// # Errors
/// If a step fails; those before it are done.
pub(super) fn all_steps(
    which: Which,
    step: impl Fn(&Which) -> Result<DoneView, ClientError>,
) -> anyhow::Result<DoneView> {
    let (mut which, mut all) = (which, DoneView::default());
    loop {
        let done = step(&which).with_context(|| match all.count {
            0 => "nothing was done".to_owned(),
            count => format!("{count} were done before"),
        })?;
        all.count += done.count;
        all.busy += done.busy;
        all.unreadable += done.unreadable;
        if done.next.is_none() {
            return Ok(all);
        }
        which.after = done.next;
    }
}

/// Prints what an action came to. Fails if messages were left.
///
/// # Errors
/// If the output is closed.
pub(super) fn tell(ask: &super::args::Ask, done: &DoneView, text: impl FnOnce() -> String) -> anyhow::Result<ExitCode> {
    show(ask, done, text)?;
    if done.busy > 0 {
        eprintln!("error: {} are being handled at this moment and were left; try again", done.busy);
    }
    if done.unreadable > 0 {
        let count = done.unreadable;
        eprintln!("error: {count} can't be read and were left; replay each with --payload FILE, or drop it");
    }
    Ok(if done.busy + done.unreadable == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Stops an action on more than one message that nobody said yes to.
///
/// # Errors
/// [`Usage`] if it is for more than one; [`ClientError`] if the host can't be asked.
pub(super) fn confirm<T: DeserializeOwned>(pages: Pages<'_, T>, yes: bool) -> anyhow::Result<()> {
    if !yes && first(pages, 2)?.len() > 1 {
        return Err(Usage("this is for more than one message, for good: add --yes".into()).into());
    }
    Ok(())
}

/// A payload from a file, or from standard input.
///
/// # Errors
/// If it can't be read, or is too large.
pub(super) fn read_payload(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = PAYLOAD_BYTES_MAX as u64 + 1;
    if file == Path::new("-") {
        io::stdin().lock().take(most).read_to_end(&mut bytes).context("reading standard input")?;
    } else {
        let opened = std::fs::File::open(file).with_context(|| format!("opening {}", file.display()))?;
        opened.take(most).read_to_end(&mut bytes).with_context(|| format!("reading {}", file.display()))?;
    }
    if bytes.len() > PAYLOAD_BYTES_MAX {
        anyhow::bail!(
            "{} holds more than {PAYLOAD_BYTES_MAX} bytes, the largest payload that is taken",
            file.display()
        );
    }
    Ok(bytes)
}

/// Writes only the payload.
///
/// # Errors
/// If the host can't be asked, or the output is closed.
pub(super) fn raw(client: &Client, list: &str, wanted: &Show) -> anyhow::Result<ExitCode> {
    let payload = client.payload(list, &wanted.consumer, wanted.number)?;
    let mut output = io::stdout().lock();
    output.write_all(&payload)?;
    output.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// So many messages.
pub(super) fn messages(count: u64) -> String {
    if count == 1 { "1 message".into() } else { format!("{count} messages") }
}
