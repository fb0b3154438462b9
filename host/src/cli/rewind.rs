//! `pelton consumers rewind` and `purge`, and `pelton outbox`.

use std::io::{self, BufRead, IsTerminal};
use std::process::ExitCode;

use clap::{ArgGroup, Args};

use super::args::Ask;
use super::commands::{Usage, client, show};
use super::lists;
use super::many::{self, PAGE};
use crate::admin::RewindView;

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("place").required(true).args(["to_sequence", "to_time"]))]
pub(super) struct Rewind {
    #[command(flatten)]
    ask: Ask,
    /// The consumer.
    consumer: String,
    /// The first message that is handled again.
    #[arg(long, value_name = "N")]
    to_sequence: Option<u64>,
    /// The same by the time at which the stream stored it: RFC 3339, for example 2026-11-26T08:00:00Z.
    #[arg(long, value_name = "TIME")]
    to_time: Option<String>,
    /// Forward: what lies between the cursor and that place is never handled.
    #[arg(long)]
    skip: bool,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Also if nobody can be asked.
    #[arg(long)]
    yes: bool,
}

#[derive(Args, Debug)]
pub(super) struct Outbox {
    #[command(flatten)]
    ask: Ask,
    /// Only events of this consumer.
    consumer: Option<String>,
    /// At most so many, oldest first.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

pub(super) fn rewind(wanted: &Rewind) -> anyhow::Result<ExitCode> {
    let Rewind { ask, consumer, to_sequence, to_time, skip, dry_run, yes } = wanted;
    let client = client(ask)?;
    let ask_host = |dry_run| client.rewind(consumer, (*to_sequence, to_time.as_deref()), *skip, dry_run);
    let planned = ask_host(true)?;
    if *dry_run {
        return show(ask, &planned, || words(&planned, *skip));
    }
    if !yes && !agreed(&words(&planned, *skip))? {
        return Err(Usage(format!("{}\nadd --yes to have that done", words(&planned, *skip))).into());
    }
    let done = ask_host(false)?;
    show(ask, &done, || words(&done, *skip))
}

pub(super) fn purge(ask: &Ask, consumer: &str, yes: bool) -> anyhow::Result<ExitCode> {
    let client = client(ask)?;
    let known = client.consumer(consumer)?;
    let what = format!(
        "consumer {consumer}: its cursor (at {}), state, processed ids, {} parked messages and all dead letters are forgotten, for good",
        known.consumer.floor, known.consumer.parked_rows
    );
    if !yes && !agreed(&what)? {
        return Err(Usage(format!("{what}\nadd --yes to have that done")).into());
    }
    let done = client.purge(consumer)?;
    show(ask, &done, || format!("nothing is left of consumer {consumer} but the events that it committed"))
}

pub(super) fn outbox(Outbox { ask, consumer, limit }: &Outbox) -> anyhow::Result<ExitCode> {
    let (client, limit) = (client(ask)?, *limit as usize);
    let rows = many::listed(ask, client.outbox(consumer.as_deref(), PAGE.min(limit + 1)), limit)?;
    show(ask, &rows, || lists::outbox(&rows))
}

/// Asks whoever sits at the terminal. False: nobody does, or they said no.
fn agreed(what: &str) -> io::Result<bool> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(false);
    }
    eprint!("{what}\ndo that? [y/N] ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

fn words(view: &RewindView, skip: bool) -> String {
    let RewindView { consumer, stream, floor_before, floor, messages, gone, parked, dead_letters, done } = view;
    let (would, from) = (if *done { "" } else { "would be " }, floor + 1);
    let mut text = if skip {
        format!(
            "consumer {consumer}: {messages} messages of {stream} {would}skipped: the next one is {from} (its cursor stood at {floor_before})"
        )
    } else {
        format!(
            "consumer {consumer}: {messages} messages of {stream} {would}handled again, from {from} on (its cursor stood at {floor_before})"
        )
    };
    if *gone > 0 {
        text.push_str(&format!(
            "\n{gone} sequences of the stretch are gone from the stream: nothing of them comes again"
        ));
    }
    if parked + dead_letters > 0 {
        text.push_str(&format!(
            "\n{parked} parked messages and {dead_letters} dead letters of the stretch {would}forgotten: they come again from the stream"
        ));
    }
    if !skip {
        text.push_str("\nprocessed ids of the stretch don't count again; state stays as it is, business ids and entity versions with it; events leave under ids of their own");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_says_what_would_be_done() {
        let view = RewindView {
            consumer: "orders".into(),
            stream: "ORDERS".into(),
            floor_before: 900,
            floor: 99,
            messages: 700,
            gone: 12,
            parked: 3,
            dead_letters: 1,
            done: false,
        };
        let text = words(&view, false);
        for part in [
            "700 messages of ORDERS would be handled again, from 100 on",
            "stood at 900",
            "12 sequences",
            "3 parked messages and 1 dead letters",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert!(words(&view, true).contains("would be skipped: the next one is 100"));
        assert!(!words(&RewindView { done: true, ..view }, false).contains("would"));
    }
}
