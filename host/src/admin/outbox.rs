//! The outbox, row by row: what waits to be published, since when, and why.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Json, Response};
use pelton_core::ids::RowId;
use pelton_core::{OutboxItem, OutboxPlace};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::form_urlencoded;

use super::failed::Failed;
use super::server::{Admin, number};
use super::views;
use crate::driver::{Note, Snapshot};

/// Rows of one page, at most and by default.
const PAGE_MAX: usize = 1_000;
const PAGE_DEFAULT: usize = 100;

/// An event that was committed and is not known to be published.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct OutboxRowView {
    /// Its row; rises in the order of commits.
    pub row: u64,
    /// The consumer that emitted it.
    pub consumer: String,
    /// The id under which it is published, always.
    pub id: String,
    /// Where it is published to.
    pub subject: String,
    /// Its ordering key.
    pub key: Option<String>,
    /// Its payload's length, in bytes.
    pub payload_bytes: usize,
    /// When it was committed: RFC 3339, UTC.
    pub since: String,
    /// How long ago that was, in milliseconds.
    pub age_ms: u64,
    /// `in-flight`, `queued`, or `waiting` while its key's last publish was refused.
    pub place: String,
    /// How often in a row a publish of its key was refused.
    pub refusals: u32,
    /// Why the last publish of this row was refused, since the host was started.
    pub reason: Option<String>,
}

/// Which rows.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Of this consumer; none: of all.
    consumer: Option<String>,
    /// Rows of the page, at most.
    limit: Option<usize>,
    /// Where the page before ended.
    after: Option<u64>,
}

/// `GET /outbox`.
pub(super) async fn list(State(admin): State<Arc<Admin>>, Query(wanted): Query<Wanted>) -> Result<Response, Failed> {
    let snapshot = admin.snapshot().await?;
    let consumer = wanted.consumer.as_deref().map(|name| number(&snapshot, name)).transpose()?;
    let limit = wanted.limit.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX);
    let after = RowId(wanted.after.unwrap_or_default());
    let items = admin.ask(|answer| Note::Outbox(consumer, after, limit, answer)).await?;
    let views: Vec<OutboxRowView> = items.iter().map(|item| view(&admin, &snapshot, item)).collect();
    let next = views.last().filter(|_| views.len() == limit).map(|last| last.row);
    let mut response = Json(views).into_response();
    if let Some(next) = next {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(wanted.consumer.as_deref().map(|name| ("consumer", name)));
        query.append_pair("limit", &limit.to_string()).append_pair("after", &next.to_string());
        let link = HeaderValue::from_str(&format!("</outbox?{}>; rel=\"next\"", query.finish()));
        response.headers_mut().insert(header::LINK, link.map_err(Failed::internal)?);
    }
    Ok(response)
}

fn view(admin: &Admin, snapshot: &Snapshot, item: &OutboxItem) -> OutboxRowView {
    let OutboxItem { row, place } = item;
    let (place, refusals) = match place {
        OutboxPlace::InFlight => ("in-flight", 0),
        OutboxPlace::Queued => ("queued", 0),
        OutboxPlace::Waiting(refusals) => ("waiting", *refusals),
    };
    OutboxRowView {
        row: row.row.0,
        consumer: views::name(snapshot, row.consumer),
        id: row.event.id.to_string(),
        subject: row.event.subject.to_string(),
        key: row.event.key.as_deref().map(str::to_owned),
        payload_bytes: row.event.payload.len(),
        since: views::time(row.since_ms),
        age_ms: admin.clock.now().wall_ms.saturating_sub(row.since_ms),
        place: place.into(),
        refusals,
        reason: admin.refusals.of(row.row),
    }
}
