//! `pelton dead-letters`.

use std::cmp::Reverse;
use std::path::Path;
use std::process::ExitCode;

use super::args::Ask;
use super::commands::{Usage, client, reach, show};
use super::many::{self, PAGE};
use super::messages::{DeadLetters, DeadLettersAction, DeadList, DeadReason, Export, List, Many, Show};
use super::tables;
use crate::admin::{ClientError, DeadLetterView, Filter, Pages};

pub(super) fn run(command: DeadLetters) -> anyhow::Result<ExitCode> {
    match (command.action, command.sequence) {
        (None, Some(number)) => {
            let List { ask, selection, .. } = command.list.list;
            // The sequence requires it.
            let consumer = selection.consumer.unwrap_or_default();
            show_one(&Show { ask, consumer, number, raw: false })
        }
        (None, None) => list(&command.list),
        (Some(DeadLettersAction::List(wanted)), _) => list(&wanted),
        (Some(DeadLettersAction::Show(wanted)), _) => show_one(&wanted),
        (Some(DeadLettersAction::Replay { ask, consumer, sequence, many, payload }), _) => {
            replay(&ask, &consumer, sequence, &many, payload.as_deref())
        }
        (Some(DeadLettersAction::Drop { ask, consumer, sequence, many, yes }), _) => {
            forget(&ask, &consumer, sequence, &many, yes)
        }
        (Some(DeadLettersAction::Export(wanted)), _) => export(&wanted),
    }
}

fn list(wanted: &DeadList) -> anyhow::Result<ExitCode> {
    let DeadList { list: List { ask, selection, limit }, newest } = wanted;
    let (client, limit) = (client(ask)?, *limit as usize);
    let filter = many::filter(selection, !ask.json);
    let letters = if *newest {
        self::newest(client.dead_letters(&filter, PAGE), limit)?
    } else {
        many::listed(ask, client.dead_letters(&filter, PAGE.min(limit + 1)), limit)?
    };
    show(ask, &letters, || tables::dead_letters(&letters))
}

/// The last `limit` that were given up, the newest first. Looks at all, and keeps no more than a page besides what it gives.
fn newest(mut pages: Pages<'_, DeadLetterView>, limit: usize) -> Result<Vec<DeadLetterView>, ClientError> {
    let mut kept: Vec<DeadLetterView> = Vec::new();
    while let Some(page) = pages.next_page()? {
        kept.extend(page);
        kept.sort_by(|a, b| (&b.at, Reverse(&b.consumer), b.sequence).cmp(&(&a.at, Reverse(&a.consumer), a.sequence)));
        kept.truncate(limit);
    }
    Ok(kept)
}

fn show_one(wanted: &Show) -> anyhow::Result<ExitCode> {
    let client = client(&wanted.ask)?;
    if wanted.raw {
        return many::raw(&client, "dead-letters", wanted);
    }
    let letter = client.dead_letter(&wanted.consumer, wanted.number)?;
    show(&wanted.ask, &letter, || tables::dead_letter(&letter))
}

fn replay(
    ask: &Ask,
    consumer: &str,
    sequence: Option<u64>,
    many: &Many<DeadReason>,
    payload: Option<&Path>,
) -> anyhow::Result<ExitCode> {
    if let Some(sequence) = sequence {
        many::only_one(many)?;
        let payload = payload.map(many::read_payload).transpose()?;
        let done = client(ask)?.replay(consumer, sequence, payload.as_deref())?;
        let edited = if payload.is_some() { " with its new payload" } else { "" };
        return show(ask, &done, || format!("message {sequence} of consumer {consumer} is handled again{edited}"));
    }
    if payload.is_some() {
        return Err(Usage("--payload is for one message: name its SEQUENCE".into()).into());
    }
    let which = many::which(many, "a SEQUENCE")?;
    let client = client(ask)?;
    let done = many::all_steps(which, |which| client.act_on_many_dead("replay", consumer, which))?;
    many::tell(ask, &done, || format!("handled again, in order: {} of consumer {consumer}", many::messages(done.count)))
}

fn forget(
    ask: &Ask,
    consumer: &str,
    sequence: Option<u64>,
    many: &Many<DeadReason>,
    yes: bool,
) -> anyhow::Result<ExitCode> {
    if let Some(sequence) = sequence {
        many::only_one(many)?;
        let done = client(ask)?.drop_dead_letter(consumer, sequence)?;
        return show(ask, &done, || format!("the dead letter {sequence} of consumer {consumer} is forgotten"));
    }
    let which = many::which(many, "a SEQUENCE")?;
    let client = client(ask)?;
    let same = Filter {
        consumer: Some(consumer.to_owned()),
        key: which.key.clone(),
        cause: which.cause.clone(),
        older_than_ms: which.older_than_ms,
        brief: true,
    };
    many::confirm(client.dead_letters(&same, 2), yes)?;
    let done = many::all_steps(which, |which| client.act_on_many_dead("drop", consumer, which))?;
    many::tell(ask, &done, || format!("forgotten: {} of consumer {consumer}", many::messages(done.count)))
}

fn export(wanted: &Export<DeadReason>) -> anyhow::Result<ExitCode> {
    let client = reach(&wanted.reach)?;
    let filter = many::filter(&wanted.selection, false);
    many::export(client.dead_letters(&filter, PAGE), wanted.limit.unwrap_or(usize::MAX))
}
