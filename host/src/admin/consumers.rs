//! Consumers: list, pause, resume, and why one of their keys is where it is.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Json;
use pelton_core::ids::ConsumerId;
use pelton_core::parked::{ParkLane, Parked};
use pelton_core::{Explanation, KeyParked, KeyRunning, LaneDoing, Operation, WaitsFor};
use schemars::JsonSchema;
use serde::Deserialize;

use super::api::{ConsumerDetailView, ConsumerView};
use super::failed::Failed;
use super::messages::{DoneView, ExplainView, KeyParkedView, KeyRunningView, ResumedView};
use super::pages::PAGE_MAX;
use super::server::{Admin, number};
use super::words::{self, Facts};
use super::{dead_letters, parked, views};
use crate::driver::{Note, Snapshot};
use crate::store::{ParkedQuery, Reader};

/// Longest reason of a pause, in bytes.
const REASON_BYTES_MAX: usize = 1_000;
/// Parked messages of a key that an explanation shows.
const FIRST: usize = 3;

/// `GET /consumers`.
pub(super) async fn list(State(admin): State<Arc<Admin>>) -> Result<Json<Vec<ConsumerView>>, Failed> {
    let snapshot = admin.snapshot().await?;
    Ok(Json(views::consumers(&snapshot, &admin.board.entries(), &admin.recent)))
}

/// `GET /consumers/NAME`.
pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
) -> Result<Json<ConsumerDetailView>, Failed> {
    let snapshot = admin.snapshot().await?;
    let entries = admin.board.entries();
    let consumer = views::consumers(&snapshot, &entries, &admin.recent).into_iter().find(|view| view.name == name);
    // One that never got so far is in no books.
    let known = snapshot.status.consumers.iter().find(|status| status.name.as_ref() == name);
    let Some(consumer) = consumer else { return Err(number(&snapshot, &name).err().unwrap_or_else(Failed::stopping)) };
    let created = known.and_then(|status| status.stream.as_ref()).map(|stream| stream.created_ns);
    Ok(Json(ConsumerDetailView {
        consumer,
        number: known.map_or(0, |status| status.id.0),
        stream_created: created.map(|ns| views::time(u64::try_from(ns / 1_000_000).unwrap_or_default())),
        quiet: known.is_none_or(|status| status.quiet),
        settled_above: known.map(|status| status.settled_above.clone()).unwrap_or_default(),
        rewound: known.and_then(|status| status.again).map(|again| (again.after + 1, again.until)),
        keys: known.map_or(0, |status| status.keys),
        requested: known.map_or(0, |status| status.requested),
    }))
}

/// The body of a pause.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Pause {
    /// Why, for whoever looks at the status.
    reason: String,
}

/// `POST /consumers/NAME/pause`.
pub(super) async fn pause(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    Json(Pause { reason }): Json<Pause>,
) -> Result<Json<DoneView>, Failed> {
    if reason.len() > REASON_BYTES_MAX {
        return Err(Failed::bad(format!("the reason is longer than {REASON_BYTES_MAX} bytes")));
    }
    let consumer = number(&admin.snapshot().await?, &name)?;
    let result = admin.operate(consumer, Operation::Pause { reason: reason.into() }).await?;
    result.map_err(|refused| Failed::refused(refused, &format!("consumer {name}")))?;
    Ok(Json(DoneView::one()))
}

/// `POST /consumers/NAME/resume`.
pub(super) async fn resume(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
) -> Result<Json<ResumedView>, Failed> {
    let snapshot = admin.snapshot().await?;
    let consumer = number(&snapshot, &name)?;
    let known = snapshot.status.consumers.iter().find(|status| status.id == consumer);
    let holds = known.map(|status| views::holds(&status.holds)).unwrap_or_default();
    let result = admin.operate(consumer, Operation::Resume).await?;
    result.map_err(|refused| Failed::refused(refused, &format!("consumer {name}")))?;
    Ok(Json(ResumedView { holds, halted: snapshot.halted.get(&consumer).cloned() }))
}

/// The query of an explanation.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    /// The ordering key.
    key: String,
}

/// `GET /consumers/NAME/explain?key=KEY`.
pub(super) async fn explain(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    Query(Key { key }): Query<Key>,
) -> Result<Json<ExplainView>, Failed> {
    let snapshot = admin.snapshot().await?;
    let consumer = number(&snapshot, &name)?;
    let asked = admin.ask(|answer| Note::Explain(consumer, key.as_str().into(), answer)).await?;
    let explanation = asked.ok_or_else(|| Failed::missing(format!("there is no consumer {name:?}")))?;
    let is_parked = explanation.parked.is_some();
    let (first, holder) = if is_parked { of_lane(&admin, consumer, &key).await? } else { Default::default() };
    let (dead_letters, dead_letters_more) = count_dead(&admin, consumer, &key).await?;
    let facts = Facts {
        consumer: &name,
        key: &key,
        explanation: &explanation,
        halted: snapshot.halted.get(&consumer).map(String::as_str),
        problems: problems(&admin, &snapshot, &name),
        pending: admin.board.entries().get(name.as_str()).map_or(0, |entry| entry.pending),
        first: &first,
        holder: holder.as_deref(),
        dead_letters,
        dead_letters_more,
        now_ms: admin.clock.now().wall_ms,
    };
    let text = words::explain(&facts);
    let Explanation { phase, holds, running, parked } = explanation;
    let first = first.iter().map(|row| views::parked(&name, row, true)).collect();
    let halted = snapshot.halted.get(&consumer).cloned();
    Ok(Json(ExplainView {
        consumer: name,
        key,
        text,
        phase: phase.into(),
        halted,
        holds: views::holds(&holds),
        running: running.as_ref().map(in_memory),
        parked: parked.as_ref().map(|parked| on_disk(parked, first)),
        dead_letters,
        dead_letters_more,
    }))
}

/// What keeps the consumer from reading, besides the core's own reasons.
fn problems(admin: &Admin, snapshot: &Snapshot, name: &str) -> Vec<String> {
    let views = views::consumers(snapshot, &admin.board.entries(), &admin.recent);
    views.into_iter().find(|view| view.name == name).map(|view| view.problems).unwrap_or_default()
}

/// The first parked messages of a key, and the one that holds it.
async fn of_lane(
    admin: &Admin,
    consumer: ConsumerId,
    key: &str,
) -> Result<(Vec<Arc<Parked>>, Option<Arc<Parked>>), Failed> {
    let lane = ParkLane::Key(key.into());
    let read = move |reader: &Reader| {
        let holder = parked::holder(reader, consumer, &lane)?;
        let query = ParkedQuery { consumer: Some(consumer), lane: Some(lane), after: None, limit: FIRST };
        Ok((reader.parked(&query)?.into_iter().map(|found| found.row).collect(), holder))
    };
    admin.read(read).await
}

/// How many dead letters of the key there are among the consumer's first ones, and whether there are more to look at.
async fn count_dead(admin: &Admin, consumer: ConsumerId, key: &str) -> Result<(u64, bool), Failed> {
    let key: Arc<str> = key.into();
    let find = move |reader: &_| {
        dead_letters::find(reader, Some(consumer), None, PAGE_MAX, |found| {
            found.letter.message.key == Some(Arc::clone(&key))
        })
    };
    let found = admin.read(find).await?;
    Ok((found.items.len() as u64, found.next.is_some()))
}

fn in_memory(running: &KeyRunning) -> KeyRunningView {
    let (doing, backoff_ms) = match running.doing {
        LaneDoing::Running => ("running", None),
        LaneDoing::Ready(_) => ("ready", None),
        LaneDoing::Backoff { for_ms } => ("backoff", Some(for_ms)),
        LaneDoing::Blocked => ("blocked", None),
    };
    KeyRunningView {
        doing: doing.into(),
        backoff_ms,
        waits_for: waits_for(running.doing),
        messages: running.messages,
        sequence: running.sequence,
        attempts: running.attempts,
        last_failure: running.last_failure.as_ref().map(views::attempt),
    }
}

fn waits_for(doing: LaneDoing) -> Option<String> {
    let LaneDoing::Ready(waits_for) = doing else { return None };
    let word = match waits_for {
        WaitsFor::Turn => "turn",
        WaitsFor::Consumer => "consumer",
        WaitsFor::Rate { .. } => "rate",
        WaitsFor::Keys { .. } => "keys",
        WaitsFor::SharedState => "shared-state",
        WaitsFor::Memory => "memory",
        WaitsFor::Disk => "disk",
    };
    Some(word.into())
}

fn on_disk(parked: &KeyParked, first: Vec<super::messages::ParkedView>) -> KeyParkedView {
    KeyParkedView {
        messages: parked.rows,
        aside: parked.aside,
        held: parked.held,
        released_in_ms: parked.released_in_ms,
        being_released: parked.being_released,
        first,
    }
}
