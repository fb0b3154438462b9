//! Parked messages: list, show, release, edit, drop.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Json, Response};
use pelton_core::ids::{ConsumerId, ParkId};
use pelton_core::message::Message;
use pelton_core::parked::{ParkCause, ParkLane, ParkPlace, Parked};
use pelton_core::transaction::ReadError;
use pelton_core::{Operation, OperationRefused};

use super::actions::{self, STEP, Step, Which};
use super::failed::Failed;
use super::messages::{BehindView, DoneView, ParkedView};
use super::pages::{Cursor, Filter, Found, ParkedCursor, Wanted, place_of_parked, scan};
use super::server::{Admin, number};
use super::views;
use crate::store::{ParkedQuery, Reader, StoredParked};

/// Messages read from the store at once.
pub(super) const STRETCH_STEP: usize = 64;
/// Marks the places of a drop's second half.
const HOLDERS: &str = "holders:";

/// `GET /parked`.
pub(super) async fn list(State(admin): State<Arc<Admin>>, Query(wanted): Query<Wanted>) -> Result<Response, Failed> {
    let snapshot = admin.snapshot().await?;
    let consumer = wanted.consumer.as_deref().map(|name| number(&snapshot, name)).transpose()?;
    let until_ms = admin.ago_ms(wanted.older_than_ms);
    let filter = Filter::parked(wanted.key.as_deref(), wanted.cause.as_deref(), until_ms)?;
    let lane = lane_of(consumer, wanted.key.as_deref());
    let (after, limit) = (ParkedCursor::read(wanted.after.as_deref())?, wanted.page_size()?);
    let found =
        admin.read(move |reader| find(reader, (consumer, lane), after, limit, |row| filter.takes_parked(row))).await?;
    let view = |StoredParked { consumer, row }| views::parked(&views::name(&snapshot, consumer), &row, wanted.brief);
    found.answer(&wanted, "/parked", view)
}

/// `GET /parked/CONSUMER/ID`.
pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    Path((name, id)): Path<(String, u64)>,
) -> Result<Json<ParkedView>, Failed> {
    let (consumer, row) = one(&admin, &name, id).await?;
    let mut view = views::parked(&name, &row, false);
    if matches!(row.cause, ParkCause::Behind | ParkCause::Replayed) {
        view.behind = admin.read(move |reader| behind(reader, consumer, &row)).await?;
    }
    Ok(Json(view))
}

/// `GET /parked/CONSUMER/ID/payload`: the bytes as they are.
pub(super) async fn payload(
    State(admin): State<Arc<Admin>>,
    Path((name, id)): Path<(String, u64)>,
) -> Result<Response, Failed> {
    let (_, row) = one(&admin, &name, id).await?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], row.message.payload.clone()).into_response())
}

/// `PUT /parked/CONSUMER/ID/payload`: everything else of the message stays as it is.
pub(super) async fn edit(
    State(admin): State<Arc<Admin>>,
    Path((name, id)): Path<(String, u64)>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<DoneView>, Failed> {
    let payload = actions::payload(body)?;
    let (consumer, row) = one(&admin, &name, id).await?;
    let message = Arc::new(Message { payload, ..Message::clone(&row.message) });
    let edited = Arc::new(Parked { message, ..Parked::clone(&row) });
    let result = Step::begin().operate(&admin, consumer, Operation::ReplaceParked(edited)).await?;
    result.map_err(|refused| Failed::refused(refused, &called(&name, id)))?;
    Ok(Json(DoneView::one()))
}

/// `POST /parked/CONSUMER/ID/release`: for messages without a key.
pub(super) async fn release(
    State(admin): State<Arc<Admin>>,
    Path((name, id)): Path<(String, u64)>,
) -> Result<Json<DoneView>, Failed> {
    let (consumer, row) = one(&admin, &name, id).await?;
    if let Some(key) = &row.message.key {
        let text = "so that nothing of it is overtaken, a key is released as a whole: release the key, or edit or drop this message";
        return Err(Failed::bad(format!("{} has the key {key:?}; {text}", called(&name, id))));
    }
    let result = admin.operate(consumer, Operation::Release(row.place().lane)).await?;
    result.map_err(|refused| Failed::refused(refused, &called(&name, id)))?;
    Ok(Json(DoneView::one()))
}

/// `POST /parked/CONSUMER/ID/drop`.
pub(super) async fn drop_one(
    State(admin): State<Arc<Admin>>,
    Path((name, id)): Path<(String, u64)>,
) -> Result<Json<DoneView>, Failed> {
    let (consumer, row) = one(&admin, &name, id).await?;
    let result = Step::begin().operate(&admin, consumer, Operation::DropParked(row)).await?;
    result.map_err(|refused| Failed::refused(refused, &called(&name, id)))?;
    Ok(Json(DoneView::one()))
}

/// `POST /parked/CONSUMER/release`: a key, or all keys that have such a message.
pub(super) async fn release_many(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    Json(which): Json<Which>,
) -> Result<Json<DoneView>, Failed> {
    which.check()?;
    let snapshot = admin.snapshot().await?;
    let consumer = number(&snapshot, &name)?;
    let filter = Filter::parked(None, which.cause.as_deref(), admin.ago_ms(which.older_than_ms))?;
    let refused = |refused| Failed::refused(refused, &format!("consumer {name}"));
    if let (Some(key), true) = (&which.key, filter.takes_all()) {
        let result = admin.operate(consumer, Operation::Release(ParkLane::Key(key.as_str().into()))).await?;
        let missing = || Failed::missing(format!("nothing of key {key:?} of consumer {name} is parked"));
        result.map_err(|why| if why == OperationRefused::NotParked { missing() } else { refused(why) })?;
        return Ok(Json(DoneView::one()));
    }
    if filter.takes_all() {
        let known = snapshot.status.consumers.iter().find(|status| status.id == consumer);
        let count = known.map_or(0, |status| status.parked_lanes as u64);
        admin.operate(consumer, Operation::ReleaseAll).await?.map_err(refused)?;
        return Ok(Json(DoneView { count, ..DoneView::default() }));
    }
    let after = ParkedCursor::read(actions::begun(which.after.as_deref()))?;
    let lane = lane_of(Some(consumer), which.key.as_deref());
    let only = (Some(consumer), lane);
    let found = admin.read(move |reader| find(reader, only, after, STEP, |row| filter.takes_parked(row))).await?;
    let (mut done, mut last, mut next) = (DoneView::default(), None, found.next);
    let step = Step::begin();
    for found in found.items {
        let place = found.row.place();
        if last.as_ref() == Some(&place.lane) {
            continue;
        }
        let told = step.operate_one(&admin, consumer, Operation::Release(place.lane.clone()), &name).await?;
        done.note(&told);
        last = Some(place.lane.clone());
        if step.is_over() {
            next = Some((consumer, place));
            break;
        }
    }
    // The rest of a key that was released needs no further look.
    let next = next.map(|(consumer, place)| match last {
        Some(lane) if lane == place.lane => (consumer, ParkPlace { lane, order: u64::MAX, id: ParkId(u64::MAX) }),
        _ => (consumer, place),
    });
    done.next = next.map(|next| next.text());
    Ok(Json(done))
}

/// `POST /parked/CONSUMER/drop`: those of a key, or all. What holds a key goes last, because what is left behind it comes back then.
pub(super) async fn drop_many(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    Json(which): Json<Which>,
) -> Result<Json<DoneView>, Failed> {
    which.check()?;
    let consumer = number(&admin.snapshot().await?, &name)?;
    let filter = Filter::parked(which.key.as_deref(), which.cause.as_deref(), admin.ago_ms(which.older_than_ms))?;
    if !admin.has_room().await {
        return Ok(Json(DoneView::nothing_yet(which.after)));
    }
    let place = actions::begun(which.after.as_deref());
    let (holders, place) = match place.and_then(|place| place.strip_prefix(HOLDERS)) {
        Some(place) => (true, actions::begun(Some(place))),
        None => (false, place),
    };
    let after = ParkedCursor::read(place)?;
    let only = (Some(consumer), lane_of(Some(consumer), which.key.as_deref()));
    let takes = move |row: &StoredParked| row.row.cause.holds_key() == holders && filter.takes_parked(row);
    let found = admin.read(move |reader| find(reader, only, after, STEP, takes)).await?;
    let (mut done, mut next) = (DoneView::default(), found.next);
    let step = Step::begin();
    for StoredParked { row, .. } in found.items {
        let place = row.place();
        let told = step.operate_one(&admin, consumer, Operation::DropParked(row), &name).await?;
        done.note(&told);
        if step.is_over() {
            next = Some((consumer, place));
            break;
        }
    }
    done.next = match (next, holders) {
        (Some(next), false) => Some(next.text()),
        (Some(next), true) => Some(format!("{HOLDERS}{}", next.text())),
        (None, false) => Some(HOLDERS.to_owned()),
        (None, true) => None,
    };
    Ok(Json(done))
}

/// The lane of a key, where it is enough to look there.
fn lane_of(consumer: Option<ConsumerId>, key: Option<&str>) -> Option<ParkLane> {
    consumer.and(key).map(|key| ParkLane::Key(key.into()))
}

fn find(
    reader: &Reader,
    (consumer, lane): (Option<ConsumerId>, Option<ParkLane>),
    after: Option<ParkedCursor>,
    limit: usize,
    takes: impl Fn(&StoredParked) -> bool,
) -> Result<Found<StoredParked, ParkedCursor>, ReadError> {
    let read = |after, limit| reader.parked(&ParkedQuery { consumer, lane: lane.clone(), after, limit });
    scan(after, limit, read, |found| (place_of_parked(found), found.row.weight(), takes(found)))
}

async fn one(admin: &Admin, name: &str, id: u64) -> Result<(ConsumerId, Arc<Parked>), Failed> {
    let consumer = number(&admin.snapshot().await?, name)?;
    let found = admin.read(move |reader| reader.parked_row(consumer, ParkId(id))).await?;
    let missing = || Failed::missing(format!("consumer {name} has no parked message {id}"));
    found.map(|found| (consumer, found.row)).ok_or_else(missing)
}

/// The message that holds the key of this one, or else the first of its key.
fn behind(reader: &Reader, consumer: ConsumerId, row: &Parked) -> Result<Option<BehindView>, ReadError> {
    let place = row.place();
    if let Some(holder) = holder(reader, consumer, &place.lane)? {
        return Ok(Some(views::behind(&holder)));
    }
    let lane = Some(place.lane.clone());
    let first = reader.parked(&ParkedQuery { consumer: Some(consumer), lane, after: None, limit: 1 })?;
    Ok(first.iter().find(|first| first.row.place() < place).map(|first| views::behind(&first.row)))
}

/// The message that holds a lane. Those that were set aside before it stand before it, so it may be anywhere; as far is looked as for a page of a list.
pub(super) fn holder(reader: &Reader, consumer: ConsumerId, lane: &ParkLane) -> Result<Option<Arc<Parked>>, ReadError> {
    let found = find(reader, (Some(consumer), Some(lane.clone())), None, 1, |row| row.row.cause.holds_key())?;
    Ok(found.items.into_iter().next().map(|found| found.row))
}

/// Shows `visit` the parked messages of a stream's stretch: all behind `after` of the stream that was created then, while it returns true.
pub(super) fn each_of_stretch(
    reader: &Reader,
    consumer: ConsumerId,
    (after, created_ns): (u64, i64),
    mut visit: impl FnMut(Arc<Parked>) -> bool,
) -> Result<(), ReadError> {
    let mut place = None;
    loop {
        let page =
            reader.parked(&ParkedQuery { consumer: Some(consumer), lane: None, after: place, limit: STRETCH_STEP })?;
        let Some(last) = page.last() else { return Ok(()) };
        place = Some(place_of_parked(last));
        for found in page {
            let message = &found.row.message;
            let in_it = message.sequence > after && message.stream.created_ns == created_ns;
            if in_it && !visit(found.row) {
                return Ok(());
            }
        }
    }
}

fn called(name: &str, id: u64) -> String {
    format!("parked message {id} of consumer {name}")
}
