//! Moves a consumer's cursor, back or forward, and forgets consumers that are gone.
//!
//! A rewind is: suspend the consumer, wait until nothing of it is under way, forget what the stretch left behind (parked messages and dead letters, which come
//! again from the stream), move the cursor, go on. The steps run in a task of their own, so that a client that goes away leaves no consumer suspended.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Json;
use pelton_core::ids::ConsumerId;
use pelton_core::transaction::ReadError;
use pelton_core::{ConsumerStatus, Operation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::actions::Step;
use super::failed::{ErrorCode, Failed};
use super::messages::DoneView;
use super::server::{Admin, number};
use super::{dead_letters, parked, views};
use crate::config::Manifest;
use crate::nats::{Inspector, StreamView};
use crate::store::Reader;

/// How long what runs may take until the consumer is quiet, and how often that is looked at.
const QUIET_PATIENCE: Duration = Duration::from_secs(30);
const QUIET_POLL: Duration = Duration::from_millis(20);
/// Messages of one look at what a stretch left behind.
const PAGE: usize = 500;

/// The body of a rewind: one of `sequence` and `time`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Rewind {
    /// The first message that is handled again, or with `skip` the first that is handled at all.
    sequence: Option<u64>,
    /// The same by the time at which the stream stored it: RFC 3339.
    time: Option<String>,
    /// Forward: what lies between the cursor and that place is never handled.
    skip: bool,
    /// Only say what would be done.
    dry_run: bool,
}

/// What a rewind did, or would do.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RewindView {
    /// The consumer.
    pub consumer: String,
    /// Its stream.
    pub stream: String,
    /// Up to here everything was settled before.
    pub floor_before: u64,
    /// Up to here everything counts as settled now.
    pub floor: u64,
    /// Messages that are handled again, as far as the stream still holds them; with `skip`, messages that are never handled.
    pub messages: u64,
    /// How many sequences of the stretch the stream no longer holds: of those nothing comes again.
    pub gone: u64,
    /// Parked messages of the stretch: forgotten, because they come again from the stream.
    pub parked: u64,
    /// Dead letters of the stretch: forgotten for the same reason.
    pub dead_letters: u64,
    /// Whether anything was done.
    pub done: bool,
}

/// `POST /consumers/NAME/rewind`.
pub(super) async fn rewind(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    Json(wanted): Json<Rewind>,
) -> Result<Json<RewindView>, Failed> {
    let consumer = number(&admin.snapshot().await?, &name)?;
    let plan = plan(&admin, consumer, &name, &wanted).await?;
    if wanted.dry_run {
        let (parked, dead_letters) = if wanted.skip { (0, 0) } else { left_behind(&admin, consumer, &plan).await? };
        return Ok(Json(RewindView { parked, dead_letters, ..plan.view }));
    }
    let skip = wanted.skip;
    let work = tokio::spawn(async move {
        admin.operate(consumer, Operation::Suspend).await?.map_err(|refused| Failed::refused(refused, &name))?;
        let moved = move_cursor(&admin, consumer, plan, skip).await;
        let gone_on = admin.operate(consumer, Operation::GoOn).await;
        let view = moved?;
        gone_on?.map_err(|refused| Failed::refused(refused, &name))?;
        Ok::<_, Failed>(view)
    });
    Ok(Json(work.await.map_err(Failed::internal)??))
}

/// Where the cursor goes, and what the stream has there.
#[derive(Clone, Debug)]
struct Plan {
    view: RewindView,
    created_ns: i64,
}

async fn plan(admin: &Admin, consumer: ConsumerId, name: &str, wanted: &Rewind) -> Result<Plan, Failed> {
    let status = status_of(admin, consumer).await?;
    let stream = status
        .stream
        .clone()
        .ok_or_else(|| Failed::new(ErrorCode::Conflict, format!("consumer {name} has not read anything yet")))?;
    let asked = |error: String| Failed::new(ErrorCode::Unavailable, format!("stream {}: {error}", stream.name));
    let inspector = Inspector::connect(&admin.nats).await.map_err(|error| asked(error.to_string()))?;
    let found = inspector.stream(&stream.name).await.map_err(asked)?;
    let found =
        found.ok_or_else(|| Failed::new(ErrorCode::Conflict, format!("stream {} does not exist", stream.name)))?;
    check_stream(&found, stream.created_ns, &stream.name)?;
    let to = target(&inspector, &found, &stream.name, wanted).await?;
    let highest = status.highest_settled;
    let after = to.saturating_sub(1);
    if wanted.skip && after <= status.floor {
        let text = format!(
            "the cursor of consumer {name} stands at {} already: to handle messages again, leave out skip",
            status.floor
        );
        return Err(Failed::new(ErrorCode::Conflict, text));
    }
    if !wanted.skip && after >= highest {
        let text = format!(
            "nothing of consumer {name} from {to} on is settled yet (its cursor stands at {}): there is nothing to handle again; to skip what lies before, say skip",
            status.floor
        );
        return Err(Failed::new(ErrorCode::Conflict, text));
    }
    let (first, last) = if wanted.skip { (status.floor + 1, after) } else { (to, highest) };
    let subjects = Manifest::load(&admin.manifests.join(format!("{name}.toml")))
        .map_or_else(|_| vec![">".to_owned()], |manifest| manifest.subscription.subjects);
    let from_first = inspector.count_from(&stream.name, &subjects, first).await.map_err(asked)?;
    let behind = inspector.count_from(&stream.name, &subjects, last + 1).await.map_err(asked)?;
    let view = RewindView {
        consumer: name.to_owned(),
        stream: stream.name.to_string(),
        floor_before: status.floor,
        floor: after,
        messages: from_first.saturating_sub(behind),
        gone: found.state.first_seq.saturating_sub(first).min(last + 1 - first),
        parked: 0,
        dead_letters: 0,
        done: false,
    };
    Ok(Plan { view, created_ns: stream.created_ns })
}

fn check_stream(found: &StreamView, created_ns: i64, name: &str) -> Result<(), Failed> {
    let created =
        found.created.parse::<jiff::Timestamp>().ok().and_then(|time| i64::try_from(time.as_nanosecond()).ok());
    if created != Some(created_ns) {
        let text = format!("stream {name} is another one than the consumer has read");
        return Err(Failed::new(ErrorCode::Conflict, text));
    }
    match found.config.retention.as_str() {
        "limits" => Ok(()),
        other => {
            let text =
                format!("stream {name} has {other} retention: it deletes what is settled, so there is no way back");
            Err(Failed::new(ErrorCode::Conflict, text))
        }
    }
}

/// The first message from which on is handled.
async fn target(inspector: &Inspector, found: &StreamView, stream: &str, wanted: &Rewind) -> Result<u64, Failed> {
    let end = found.state.last_seq.saturating_add(1);
    let to = match (wanted.sequence, &wanted.time) {
        (Some(sequence), None) => sequence.max(1),
        (None, Some(time)) => {
            let at = time.parse::<jiff::Timestamp>();
            let at = at.map_err(|error| Failed::bad(format!("{time:?} is no time of RFC 3339: {error}")))?;
            let first = inspector.first_since(stream, found, at.as_millisecond()).await;
            let first =
                first.map_err(|error| Failed::new(ErrorCode::Unavailable, format!("stream {stream}: {error}")))?;
            first.map_or(end, |moment| moment.sequence)
        }
        _ => return Err(Failed::bad("either a sequence or a time")),
    };
    if to > end {
        let text =
            format!("stream {stream} ends with sequence {}: nothing beyond can be skipped", found.state.last_seq);
        return Err(Failed::new(ErrorCode::Conflict, text));
    }
    Ok(to)
}

async fn move_cursor(admin: &Admin, consumer: ConsumerId, plan: Plan, skip: bool) -> Result<RewindView, Failed> {
    quiet(admin, consumer).await?;
    let mut view = RewindView { done: true, ..plan.view.clone() };
    if !skip {
        (view.parked, view.dead_letters) = forget_left_behind(admin, consumer, &plan).await?;
    }
    let moved = admin.operate(consumer, Operation::MoveCursor { after: view.floor, skip }).await?;
    moved.map_err(|refused| Failed::refused(refused, &format!("consumer {}", view.consumer)))?;
    Ok(view)
}

/// Waits until nothing of the consumer is under way.
async fn quiet(admin: &Admin, consumer: ConsumerId) -> Result<(), Failed> {
    let begun = Instant::now();
    while !status_of(admin, consumer).await?.quiet {
        if begun.elapsed() >= QUIET_PATIENCE {
            let text = "what the consumer is handling did not end in time; nothing was changed: try again";
            return Err(Failed::new(ErrorCode::Busy, text));
        }
        tokio::time::sleep(QUIET_POLL).await;
    }
    Ok(())
}

async fn status_of(admin: &Admin, consumer: ConsumerId) -> Result<ConsumerStatus, Failed> {
    let snapshot = admin.snapshot().await?;
    let found = snapshot.status.consumers.into_iter().find(|status| status.id == consumer);
    found.ok_or_else(|| Failed::missing("there is no such consumer"))
}

/// How many parked messages and dead letters there are of the stretch.
async fn left_behind(admin: &Admin, consumer: ConsumerId, plan: &Plan) -> Result<(u64, u64), Failed> {
    let (after, created_ns) = (plan.view.floor, plan.created_ns);
    admin
        .read(move |reader| {
            let (mut rows, mut letters) = (0, 0);
            parked::each_of_stretch(reader, consumer, (after, created_ns), |_| {
                rows += 1;
                true
            })?;
            dead_letters::each_of_stretch(reader, consumer, (after, created_ns), |_| {
                letters += 1;
                true
            })?;
            Ok((rows, letters))
        })
        .await
}

/// Forgets them; they come again from the stream.
async fn forget_left_behind(admin: &Admin, consumer: ConsumerId, plan: &Plan) -> Result<(u64, u64), Failed> {
    let (after, created_ns) = (plan.view.floor, plan.created_ns);
    let (mut rows, mut letters) = (0, 0);
    let refused = |refused| Failed::refused(refused, "what is parked of the stretch");
    loop {
        let read = move |reader: &Reader| {
            let mut found = Vec::new();
            parked::each_of_stretch(reader, consumer, (after, created_ns), |row| {
                found.push(row);
                found.len() < PAGE
            })?;
            Ok::<_, ReadError>(found)
        };
        let found = admin.read(read).await?;
        if found.is_empty() {
            break;
        }
        for row in found {
            Step::begin().operate(admin, consumer, Operation::DropParked(row)).await?.map_err(refused)?;
            rows += 1;
        }
    }
    loop {
        let read = move |reader: &Reader| {
            let mut found = Vec::new();
            dead_letters::each_of_stretch(reader, consumer, (after, created_ns), |letter| {
                found.push(letter);
                found.len() < PAGE
            })?;
            Ok::<_, ReadError>(found)
        };
        let found = admin.read(read).await?;
        if found.is_empty() {
            break;
        }
        for letter in found {
            let message = &letter.message;
            let (sequence, published_at_ms) = (message.sequence, message.published_at_ms);
            let dropped = admin.operate(consumer, Operation::DropDeadLetter { sequence, published_at_ms }).await?;
            dropped.map_err(refused)?;
            letters += 1;
        }
    }
    Ok((rows, letters))
}

/// `POST /consumers/NAME/purge`: all that is left of a consumer without a manifest.
pub(super) async fn purge(State(admin): State<Arc<Admin>>, Path(name): Path<String>) -> Result<Json<DoneView>, Failed> {
    let snapshot = admin.snapshot().await?;
    let consumer = number(&snapshot, &name)?;
    let deployed = views::consumers(&snapshot, &admin.board.entries(), &admin.recent)
        .into_iter()
        .any(|view| view.name == name && (view.version.is_some() || !view.problems.is_empty()));
    if deployed || admin.manifests.join(format!("{name}.toml")).exists() {
        let text = format!("consumer {name} is deployed: remove its manifest first, and wait until it has stopped");
        return Err(Failed::new(ErrorCode::Conflict, text));
    }
    let done = admin.operate(consumer, Operation::Forget).await?;
    done.map_err(|refused| Failed::refused(refused, &format!("consumer {name}")))?;
    let versions = Arc::clone(&admin.versions);
    let forgotten = tokio::task::spawn_blocking(move || versions.forget(&name)).await.map_err(Failed::internal)?;
    forgotten.map_err(|error| Failed::internal(format!("all but its versions is gone: {error:#}")))?;
    Ok(Json(DoneView::one()))
}
