//! `pelton parked`.

use std::path::Path;
use std::process::ExitCode;

use super::args::Ask;
use super::commands::{client, reach, show};
use super::many::{self, PAGE};
use super::messages::{Export, List, Many, Parked, ParkedAction, ParkedReason, Show};
use super::tables;
use crate::admin::{Filter, Which};

pub(super) fn run(command: Parked) -> anyhow::Result<ExitCode> {
    match command.action {
        None => list(&command.list),
        Some(ParkedAction::List(wanted)) => list(&wanted),
        Some(ParkedAction::Show(wanted)) => show_one(&wanted),
        Some(ParkedAction::Release { ask, consumer, id, many }) => release(&ask, &consumer, id, &many),
        Some(ParkedAction::Edit { ask, consumer, id, payload }) => edit(&ask, &consumer, id, &payload),
        Some(ParkedAction::Drop { ask, consumer, id, many, yes }) => forget(&ask, &consumer, id, &many, yes),
        Some(ParkedAction::Export(wanted)) => export(&wanted),
    }
}

fn list(wanted: &List<ParkedReason>) -> anyhow::Result<ExitCode> {
    let client = client(&wanted.ask)?;
    let limit = wanted.limit as usize;
    let pages = client.parked(&many::filter(&wanted.selection, !wanted.ask.json), PAGE.min(limit + 1));
    let messages = many::listed(&wanted.ask, pages, limit)?;
    show(&wanted.ask, &messages, || tables::parked(&messages))
}

fn show_one(wanted: &Show) -> anyhow::Result<ExitCode> {
    let client = client(&wanted.ask)?;
    if wanted.raw {
        return many::raw(&client, "parked", wanted);
    }
    let message = client.parked_message(&wanted.consumer, wanted.number)?;
    show(&wanted.ask, &message, || tables::parked_message(&message))
}

fn release(ask: &Ask, consumer: &str, id: Option<u64>, many: &Many<ParkedReason>) -> anyhow::Result<ExitCode> {
    if let Some(id) = id {
        many::only_one(many)?;
        let done = client(ask)?.act_on_parked("release", consumer, id)?;
        return show(ask, &done, || format!("parked message {id} of consumer {consumer} is being brought back"));
    }
    let which = many::which(many, "--id ID")?;
    let key = which.key.clone();
    let client = client(ask)?;
    let done = many::all_steps(which, |which| client.act_on_many_parked("release", consumer, which))?;
    many::tell(ask, &done, || match (key, done.count) {
        (Some(key), 1) => format!("key {key:?} of consumer {consumer} is being brought back, in order"),
        (_, 0) => format!("nothing of consumer {consumer} that is parked is wanted"),
        (_, count) => format!("{count} keys of consumer {consumer} are being brought back, each in order"),
    })
}

fn edit(ask: &Ask, consumer: &str, id: u64, payload: &Path) -> anyhow::Result<ExitCode> {
    let payload = many::read_payload(payload)?;
    let done = client(ask)?.edit_parked(consumer, id, &payload)?;
    show(ask, &done, || {
        format!(
            "parked message {id} of consumer {consumer} has a payload of {} bytes now; it waits as before",
            payload.len()
        )
    })
}

fn forget(
    ask: &Ask,
    consumer: &str,
    id: Option<u64>,
    many: &Many<ParkedReason>,
    yes: bool,
) -> anyhow::Result<ExitCode> {
    if let Some(id) = id {
        many::only_one(many)?;
        let done = client(ask)?.act_on_parked("drop", consumer, id)?;
        return show(ask, &done, || format!("parked message {id} of consumer {consumer} is forgotten"));
    }
    let which = many::which(many, "an ID")?;
    let client = client(ask)?;
    many::confirm(client.parked(&same(consumer, &which), 2), yes)?;
    let done = many::all_steps(which, |which| client.act_on_many_parked("drop", consumer, which))?;
    many::tell(ask, &done, || {
        format!("forgotten: {} that were parked of consumer {consumer}", many::messages(done.count))
    })
}

/// What an action is for, as a list.
fn same(consumer: &str, which: &Which) -> Filter {
    Filter {
        consumer: Some(consumer.to_owned()),
        key: which.key.clone(),
        cause: which.cause.clone(),
        older_than_ms: which.older_than_ms,
        brief: true,
    }
}

fn export(wanted: &Export<ParkedReason>) -> anyhow::Result<ExitCode> {
    let client = reach(&wanted.reach)?;
    many::export(client.parked(&many::filter(&wanted.selection, false), PAGE), wanted.limit.unwrap_or(usize::MAX))
}
