//! The main comparison: the work order-counter through Pelton and through what it is compared with, over the same stream, in turns, so that a machine that
//! becomes slower does so for all of them. Then Pelton alone with skewed keys and with a single one.

use anyhow::Result;

use super::contestants::{Cluster, Contestant};
use super::figures::{Case, Reading};
use super::pelton::{Isolation, Pelton};
use super::scale::Scale;
use super::stage::Stage;
use super::work::Work;
use crate::progress::say;

pub(crate) const BENCH: &str = "work";

/// The exponent of the skewed keys.
const ZIPF: f64 = 1.1;

/// Contestants that do one message at a time are given this part of the work: their pace does not change.
const SLOW_PART: u64 = 10;

/// What runs in a case.
enum Who<'a> {
    Contestant(Contestant, Option<&'a Cluster>),
    Pelton(Pelton),
}

struct Entry<'a> {
    name: String,
    about: String,
    who: Who<'a>,
    messages: u64,
}

/// Runs it.
///
/// # Errors
/// Something does not come up, does not finish, or does the work wrongly.
pub(crate) async fn run(scale: Scale) -> Result<Vec<Case>> {
    let messages = scale.messages();
    let mut cases = uniform(scale, &Work::uniform(messages)).await?;
    let zipf = Work { exponent: ZIPF, ..Work::uniform(messages) };
    cases.extend(alone(scale, &zipf, "zipf", "keys drawn with exponent 1.1").await?);
    let hot = Work { keys: 1, ..Work::uniform(messages) };
    cases.extend(alone(scale, &hot, "hot", "all messages on one key").await?);
    Ok(cases)
}

async fn uniform(scale: Scale, work: &Work) -> Result<Vec<Case>> {
    let stage = Stage::with(work).await?;
    let cluster = match Cluster::find() {
        Some(programs) => Some(Cluster::start(&programs).await?),
        None => None,
    };
    let slow = (work.messages / SLOW_PART).max(100);
    let contestant = |name: &str, about: &str, who: Contestant, messages: u64| Entry {
        name: name.to_owned(),
        about: about.to_owned(),
        who: Who::Contestant(who, None),
        messages,
    };
    let mut entries = vec![
        contestant(
            FLOOR,
            "R0: bare async-nats, ack-all, as many events, nothing else",
            Contestant::Floor,
            work.messages,
        ),
        contestant(FLOOR_WITH_IDS, "the same, each event with a Nats-Msg-Id", Contestant::FloorWithIds, work.messages),
    ];
    let mut missing = Vec::new();
    for isolation in Isolation::ALL {
        let pelton = Pelton::with(isolation);
        let (name, about) = (case_name("uniform", isolation), format!("Pelton, isolation {}", isolation.name()));
        match pelton.refusal(&stage)? {
            None => entries.push(Entry { name, about, who: Who::Pelton(pelton), messages: work.messages }),
            Some(reason) => missing.push(Case::missing(BENCH, &name, &about, &reason)),
        }
    }
    entries.push(Entry {
        name: NATIVE.to_owned(),
        about: "R1: Pelton with the handler compiled into the host instead of a component".to_owned(),
        who: Who::Pelton(Pelton::native()),
        messages: work.messages,
    });
    entries.push(contestant(BY_HAND, "R2: one loop, a redb transaction a message", Contestant::ByHand, slow));
    let about = "R3: PostgreSQL inbox and outbox, a transaction a message";
    match &cluster {
        Some(cluster) => entries.push(Entry {
            name: POSTGRES.to_owned(),
            about: format!("{about}; {}", cluster.version()),
            who: Who::Contestant(Contestant::Postgres, Some(cluster)),
            messages: slow,
        }),
        None => missing.push(Case::missing(BENCH, POSTGRES, about, "there is no PostgreSQL server on this machine")),
    }
    let mut cases = in_turns(scale, &stage, &entries).await?;
    cases.extend(missing);
    Ok(cases)
}

/// Runs all entries, one after the other, as often as the scale says.
async fn in_turns(scale: Scale, stage: &Stage, entries: &[Entry<'_>]) -> Result<Vec<Case>> {
    let mut readings: Vec<Vec<Reading>> = entries.iter().map(|_| Vec::new()).collect();
    for round in 1..=scale.runs {
        for (entry, readings) in entries.iter().zip(&mut readings) {
            say(&format!("{BENCH}: {}, run {round} of {}", entry.name, scale.runs));
            readings.push(match &entry.who {
                Who::Contestant(who, cluster) => who.run(stage, entry.messages, *cluster).await?,
                Who::Pelton(pelton) => pelton.run(stage).await?,
            });
        }
    }
    let case = |(entry, readings): (&Entry, &Vec<Reading>)| Case::measured(BENCH, &entry.name, &entry.about, readings);
    Ok(entries.iter().zip(&readings).map(case).collect())
}

/// Pelton alone over a work, in each isolation.
async fn alone(scale: Scale, work: &Work, name: &str, about: &str) -> Result<Vec<Case>> {
    let stage = Stage::with(work).await?;
    let mut cases = Vec::new();
    for isolation in Isolation::ALL {
        let about = format!("Pelton, isolation {}, {about}", isolation.name());
        cases
            .push(measured(scale, &stage, BENCH, &case_name(name, isolation), &about, &Pelton::with(isolation)).await?);
    }
    Ok(cases)
}

/// Pelton over the stage's work, as often as the scale says; a case that says why, if the host can't do it.
///
/// # Errors
/// The host does not come up, does not finish, or does the work wrongly.
pub(crate) async fn measured(
    scale: Scale,
    stage: &Stage,
    bench: &str,
    name: &str,
    about: &str,
    pelton: &Pelton,
) -> Result<Case> {
    if let Some(reason) = pelton.refusal(stage)? {
        return Ok(Case::missing(bench, name, about, &reason));
    }
    let mut readings = Vec::new();
    for round in 1..=scale.runs {
        say(&format!("{bench}: {name}, run {round} of {}", scale.runs));
        readings.push(pelton.run(stage).await?);
    }
    Ok(Case::measured(bench, name, about, &readings))
}

/// The floor's case.
pub(crate) const FLOOR: &str = "floor";
/// The floor with an id for each event.
pub(crate) const FLOOR_WITH_IDS: &str = "floor-with-ids";
/// The case with the handler in the host.
pub(crate) const NATIVE: &str = "native";
/// The case with redb.
pub(crate) const BY_HAND: &str = "hand-written";
/// The case with PostgreSQL.
pub(crate) const POSTGRES: &str = "postgresql";

/// The name of a case of Pelton.
pub(crate) fn case_name(work: &str, isolation: Isolation) -> String {
    format!("{work}-{}", isolation.name())
}
