//! Dead letters: list, show, replay, drop.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Json, Response};
use pelton_core::ids::ConsumerId;
use pelton_core::message::{DeadLetter, Message};
use pelton_core::transaction::ReadError;
use pelton_core::{Operation, OperationRefused};

use super::actions::{self, STEP, Step, Which};
use super::failed::Failed;
use super::messages::{DeadLetterView, DoneView};
use super::pages::{Cursor, DeadCursor, Filter, Found, Wanted, place_of_dead, scan};
use super::parked::STRETCH_STEP;
use super::server::{Admin, number};
use super::views;
use crate::store::{DeadLetterQuery, Reader, StoredDeadLetter};

/// What a dead letter is counted with besides its message, in bytes.
const HISTORY_BYTES: usize = 4 << 10;

/// `GET /dead-letters`.
pub(super) async fn list(State(admin): State<Arc<Admin>>, Query(wanted): Query<Wanted>) -> Result<Response, Failed> {
    let snapshot = admin.snapshot().await?;
    let consumer = wanted.consumer.as_deref().map(|name| number(&snapshot, name)).transpose()?;
    let until_ms = admin.ago_ms(wanted.older_than_ms);
    let filter = Filter::dead(wanted.key.as_deref(), wanted.cause.as_deref(), until_ms)?;
    let (after, limit) = (DeadCursor::read(wanted.after.as_deref())?, wanted.page_size()?);
    let found =
        admin.read(move |reader| find(reader, consumer, after, limit, |letter| filter.takes_dead(letter))).await?;
    let view = |StoredDeadLetter { consumer, letter, .. }| {
        views::dead_letter(&views::name(&snapshot, consumer), &letter, wanted.brief)
    };
    found.answer(&wanted, "/dead-letters", view)
}

/// `GET /dead-letters/CONSUMER/SEQUENCE`.
pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    Path((name, sequence)): Path<(String, u64)>,
) -> Result<Json<DeadLetterView>, Failed> {
    let (_, letter) = one(&admin, &name, sequence).await?;
    Ok(Json(views::dead_letter(&name, &letter, false)))
}

/// `GET /dead-letters/CONSUMER/SEQUENCE/payload`: the bytes as they are.
pub(super) async fn payload(
    State(admin): State<Arc<Admin>>,
    Path((name, sequence)): Path<(String, u64)>,
) -> Result<Response, Failed> {
    let (_, letter) = one(&admin, &name, sequence).await?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], letter.message.payload.clone()).into_response())
}

/// `POST /dead-letters/CONSUMER/SEQUENCE/replay`: a body of type application/octet-stream is its new payload.
pub(super) async fn replay(
    State(admin): State<Arc<Admin>>,
    Path((name, sequence)): Path<(String, u64)>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<DoneView>, Failed> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let edited = kind.eq_ignore_ascii_case("application/octet-stream").then(|| actions::payload(body)).transpose()?;
    let (consumer, mut letter) = one(&admin, &name, sequence).await?;
    if let Some(payload) = edited {
        let message = Arc::new(Message { payload, ..Message::clone(&letter.message) });
        letter = Arc::new(DeadLetter { message, ..DeadLetter::clone(&letter) });
    }
    operate(&admin, consumer, Operation::Replay(letter), &called(&name, sequence)).await
}

/// `POST /dead-letters/CONSUMER/SEQUENCE/drop`.
pub(super) async fn drop_one(
    State(admin): State<Arc<Admin>>,
    Path((name, sequence)): Path<(String, u64)>,
) -> Result<Json<DoneView>, Failed> {
    let (consumer, letter) = one(&admin, &name, sequence).await?;
    operate(&admin, consumer, forget(&letter), &called(&name, sequence)).await
}

/// `POST /dead-letters/CONSUMER/replay`: those of a key, or all, in the order of their sequences.
pub(super) async fn replay_many(
    state: State<Arc<Admin>>,
    name: Path<String>,
    which: Json<Which>,
) -> Result<Json<DoneView>, Failed> {
    many(state, name, which, Operation::Replay).await
}

/// `POST /dead-letters/CONSUMER/drop`: those of a key, or all.
pub(super) async fn drop_many(
    state: State<Arc<Admin>>,
    name: Path<String>,
    which: Json<Which>,
) -> Result<Json<DoneView>, Failed> {
    many(state, name, which, |letter| forget(&letter)).await
}

async fn many(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    Json(which): Json<Which>,
    operation: impl Fn(Arc<DeadLetter>) -> Operation,
) -> Result<Json<DoneView>, Failed> {
    which.check()?;
    let consumer = number(&admin.snapshot().await?, &name)?;
    let filter = Filter::dead(which.key.as_deref(), which.cause.as_deref(), admin.ago_ms(which.older_than_ms))?;
    if !admin.has_room().await {
        return Ok(Json(DoneView::nothing_yet(which.after)));
    }
    let after = DeadCursor::read(actions::begun(which.after.as_deref()))?;
    let takes = move |letter: &StoredDeadLetter| filter.takes_dead(letter);
    let found = admin.read(move |reader| find(reader, Some(consumer), after, STEP, takes)).await?;
    let (mut done, mut next) = (DoneView::default(), found.next);
    let step = Step::begin();
    for found in found.items {
        let place = place_of_dead(&found);
        let told = step.operate_one(&admin, consumer, operation(found.letter), &name).await?;
        done.note(&told);
        if step.is_over() {
            next = Some(place);
            break;
        }
    }
    done.next = next.map(|next| next.text());
    Ok(Json(done))
}

async fn operate(
    admin: &Admin,
    consumer: ConsumerId,
    operation: Operation,
    what: &str,
) -> Result<Json<DoneView>, Failed> {
    let result = admin.operate(consumer, operation).await?;
    let failed = |refused| match refused {
        OperationRefused::NotParked => Failed::missing(format!("{what} is gone")),
        refused => Failed::refused(refused, what),
    };
    result.map_err(failed)?;
    Ok(Json(DoneView::one()))
}

fn forget(letter: &DeadLetter) -> Operation {
    let Message { sequence, published_at_ms, .. } = *letter.message;
    Operation::DropDeadLetter { sequence, published_at_ms }
}

/// Dead letters in the order of consumer and sequence.
pub(super) fn find(
    reader: &Reader,
    consumer: Option<ConsumerId>,
    after: Option<DeadCursor>,
    limit: usize,
    takes: impl Fn(&StoredDeadLetter) -> bool,
) -> Result<Found<StoredDeadLetter, DeadCursor>, ReadError> {
    let read = |after, limit| reader.dead_letters(&DeadLetterQuery { consumer, after, limit });
    let weight = |found: &StoredDeadLetter| found.letter.message.weight() + HISTORY_BYTES;
    scan(after, limit, read, |found| (place_of_dead(found), weight(found), takes(found)))
}

async fn one(admin: &Admin, name: &str, sequence: u64) -> Result<(ConsumerId, Arc<DeadLetter>), Failed> {
    let consumer = number(&admin.snapshot().await?, name)?;
    let found = admin.read(move |reader| reader.dead_letter(consumer, sequence)).await?;
    let missing = || Failed::missing(format!("consumer {name} has no dead letter with sequence {sequence}"));
    found.map(|found| (consumer, found.letter)).ok_or_else(missing)
}

/// Shows `visit` the dead letters of a stream's stretch: all behind `after` of the stream that was created then, while it returns true.
pub(super) fn each_of_stretch(
    reader: &Reader,
    consumer: ConsumerId,
    (after, created_ns): (u64, i64),
    mut visit: impl FnMut(Arc<DeadLetter>) -> bool,
) -> Result<(), ReadError> {
    let mut place = None;
    loop {
        let query = DeadLetterQuery { consumer: Some(consumer), after: place, limit: STRETCH_STEP };
        let page = reader.dead_letters(&query)?;
        let Some(last) = page.last() else { return Ok(()) };
        place = Some(place_of_dead(last));
        for found in page {
            let message = &found.letter.message;
            let in_it = message.sequence > after && message.stream.created_ns == created_ns;
            if in_it && !visit(found.letter) {
                return Ok(());
            }
        }
    }
}

fn called(name: &str, sequence: u64) -> String {
    format!("the dead letter with sequence {sequence} of consumer {name}")
}
