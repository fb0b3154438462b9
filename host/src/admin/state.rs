//! State of consumers: read, list, change. Changes are ordered with the attempts of their key, checked against what the operator saw if that is said, and
//! durable with the next commit.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Json, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use pelton_core::effects::{Space, StateValue, StateWrite, WriteSet};
use pelton_core::ids::ConsumerId;
use pelton_core::{Expected, Operation, OperationRefused};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use url::form_urlencoded;

use super::failed::Failed;
use super::messages::DoneView;
use super::server::{Admin, number};
use super::views::time;
use crate::store::{StatePlace, StoredState};

/// Entries of one page, at most and by default.
const PAGE_MAX: usize = 1_000;
const PAGE_DEFAULT: usize = 100;
/// Changes of one request.
const CHANGES_MAX: usize = 1_000;
/// Longest key and value, in bytes.
const KEY_BYTES_MAX: usize = 4_096;
const VALUE_BYTES_MAX: usize = 4 << 20;
/// How long a change waits for attempts of its key, and how often it looks.
const REST_PATIENCE: Duration = Duration::from_secs(2);
const REST_POLL: Duration = Duration::from_millis(5);

/// One entry of a consumer's state.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct StateView {
    /// The ordering key that it belongs to; none: all keys share it.
    pub key: Option<String>,
    /// The entry's own key.
    pub entry: String,
    /// Its value, if that is text.
    pub value: Option<String>,
    /// Its value in base64, if it is not.
    pub value_base64: Option<String>,
    /// When it is over: RFC 3339, UTC; none: never.
    pub expires_at: Option<String>,
}

/// Which entries.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Of this ordering key.
    key: Option<String>,
    /// This one.
    entry: Option<String>,
    /// Entries of the page, at most.
    limit: Option<usize>,
    /// Where the page before ended: the ordering key.
    after_key: Option<String>,
    /// Where the page before ended: the entry.
    after_entry: Option<String>,
}

/// `GET /consumers/NAME/state`.
pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Failed> {
    let consumer = number(&admin.snapshot().await?, &name)?;
    let limit = wanted.limit.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX);
    let now_ms = admin.clock.now().wall_ms;
    let after = wanted.after_entry.as_deref().map(|entry| StatePlace::new(wanted.after_key.as_deref(), entry));
    // The entries of a key begin behind its empty entry, which is looked at by itself.
    let of_key = wanted.key.as_deref().map(|key| StatePlace::new(Some(key), ""));
    let begin = after.clone().into_iter().chain(of_key.clone()).max();
    let first = of_key.filter(|_| after.is_none());
    let (found, page) = admin
        .read(move |reader| {
            let first = match first {
                Some(place) => reader.state_entry(consumer, &place, now_ms)?.map(|value| StoredState { place, value }),
                None => None,
            };
            Ok((first, reader.all_state(consumer, begin.as_ref(), limit, now_ms)?))
        })
        .await?;
    let in_key = |entry: &StoredState| wanted.key.as_deref().is_none_or(|key| entry.place.key() == Some(key));
    let passed = page.entries.last().is_some_and(|last| !in_key(last));
    let entries = found.into_iter().chain(page.entries).filter(in_key);
    let wanted_entry = |entry: &StoredState| wanted.entry.as_deref().is_none_or(|name| entry.place.entry() == name);
    let views: Vec<StateView> = entries.filter(wanted_entry).map(|entry| view(&entry)).collect();
    let mut response = Json(views).into_response();
    if let Some(next) = page.next.filter(|_| !passed) {
        let link = link(&name, &wanted, &next, limit).map_err(Failed::internal)?;
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

fn link(
    name: &str,
    wanted: &Wanted,
    next: &StatePlace,
    limit: usize,
) -> Result<HeaderValue, header::InvalidHeaderValue> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("limit", &limit.to_string()).append_pair("after_entry", next.entry());
    let others = [("after_key", next.key()), ("key", wanted.key.as_deref()), ("entry", wanted.entry.as_deref())];
    for (field, value) in others {
        query.extend_pairs(value.map(|value| (field, value)));
    }
    HeaderValue::from_str(&format!("</consumers/{name}/state?{}>; rel=\"next\"", query.finish()))
}

/// Which entry.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct One {
    /// The ordering key that it belongs to; none: all keys share it.
    key: Option<String>,
    /// The entry's own key.
    entry: String,
}

/// `GET /consumers/NAME/state/entry`.
pub(super) async fn get(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    Query(One { key, entry }): Query<One>,
) -> Result<Json<StateView>, Failed> {
    let consumer = number(&admin.snapshot().await?, &name)?;
    let place = StatePlace::new(key.as_deref(), &entry);
    let now_ms = admin.clock.now().wall_ms;
    let asked = place.clone();
    let found = admin.read(move |reader| reader.state_entry(consumer, &asked, now_ms)).await?;
    let value = found.ok_or_else(|| {
        let of = key.map_or_else(|| "that all keys share".to_owned(), |key| format!("of key {key:?}"));
        Failed::missing(format!("consumer {name} has no entry {entry:?} {of}"))
    })?;
    Ok(Json(view(&StoredState { place, value })))
}

fn view(entry: &StoredState) -> StateView {
    let text = std::str::from_utf8(&entry.value.bytes).ok().map(str::to_owned);
    StateView {
        key: entry.place.key().map(str::to_owned),
        entry: entry.place.entry().to_owned(),
        value_base64: text.is_none().then(|| BASE64.encode(&entry.value.bytes)),
        value: text,
        expires_at: entry.value.expires_at_ms.map(time),
    }
}

/// Changes of state. All are checked before one is made; those of one key are made together, keys one after the other.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StateChanges {
    /// Up to 1,000.
    pub changes: Vec<StateChange>,
}

/// One change: at most one of `value` and `value_base64`; neither deletes the entry.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StateChange {
    /// The ordering key; none: what all keys share.
    #[serde(default)]
    pub key: Option<String>,
    /// The entry's own key.
    pub entry: String,
    /// The new value.
    #[serde(default)]
    pub value: Option<String>,
    /// The new value in base64.
    #[serde(default)]
    pub value_base64: Option<String>,
    /// When it is over: RFC 3339; none: never.
    #[serde(default)]
    pub expires_at: Option<String>,
    /// The change is made only if the entry holds this: the value itself.
    #[serde(default)]
    pub if_value: Option<String>,
    /// The change is made only if the entry holds this, in base64.
    #[serde(default)]
    pub if_value_base64: Option<String>,
    /// The change is made only if there is no such entry.
    #[serde(default)]
    pub if_absent: bool,
}

/// Writes of one ordering key, and what each entry has to hold before.
type OfKey = (Option<Arc<str>>, Vec<StateWrite>, Vec<Expected>);

/// `POST /consumers/NAME/state`.
pub(super) async fn change(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    Json(StateChanges { changes }): Json<StateChanges>,
) -> Result<Json<DoneView>, Failed> {
    let consumer = number(&admin.snapshot().await?, &name)?;
    if changes.len() > CHANGES_MAX {
        return Err(Failed::bad(format!("{} changes; {CHANGES_MAX} are the most of one request", changes.len())));
    }
    let mut by_key: Vec<OfKey> = Vec::new();
    for change in &changes {
        let (write, expected) = read(change)?;
        let key: Option<Arc<str>> = change.key.as_deref().map(Arc::from);
        match by_key.iter_mut().find(|(of, ..)| *of == key) {
            Some((_, writes, all)) => {
                if writes.iter().any(|other| other.key == write.key) {
                    return Err(Failed::bad(format!("entry {:?} is changed twice", write.key)));
                }
                writes.push(write);
                all.push(expected);
            }
            None => by_key.push((key, vec![write], vec![expected])),
        }
    }
    let mut done = DoneView::default();
    for (key, writes, expected) in by_key {
        let count = writes.len() as u64;
        let what = key.as_deref().map_or_else(|| "shared state".to_owned(), |key| format!("key {key:?}"));
        let writes = Arc::new(WriteSet { state: writes, events: Vec::new() });
        let result = when_at_rest(&admin, consumer, Operation::EditState { key, writes, expected }).await?;
        result.map_err(|refused| {
            let before =
                if done.count > 0 { format!(" ({} entries were changed before)", done.count) } else { String::new() };
            Failed::refused(refused, &format!("{what} of consumer {name}{before}"))
        })?;
        done.count += count;
    }
    Ok(Json(done))
}

fn read(change: &StateChange) -> Result<(StateWrite, Expected), Failed> {
    let entry = &change.entry;
    if entry.len() > KEY_BYTES_MAX {
        return Err(Failed::bad(format!("an entry's key has {} bytes; {KEY_BYTES_MAX} are the most", entry.len())));
    }
    let bytes = bytes_of(entry, (&change.value, &change.value_base64))?;
    if bytes.as_ref().is_some_and(|bytes| bytes.len() > VALUE_BYTES_MAX) {
        return Err(Failed::bad(format!("the value of {entry:?} is longer than {VALUE_BYTES_MAX} bytes")));
    }
    let over = |text: &String| {
        let read = text.parse::<jiff::Timestamp>().ok().and_then(|time| u64::try_from(time.as_millisecond()).ok());
        read.ok_or_else(|| Failed::bad(format!("expires_at of {entry:?} is {text:?}, which is no time of RFC 3339")))
    };
    let expires_at_ms = change.expires_at.as_ref().map(over).transpose()?;
    let expected = match (bytes_of(entry, (&change.if_value, &change.if_value_base64))?, change.if_absent) {
        (Some(_), true) => return Err(Failed::bad(format!("{entry:?} can't both hold a value and be absent"))),
        (Some(bytes), false) => Expected::Bytes(bytes),
        (None, true) => Expected::Absent,
        (None, false) => Expected::Anything,
    };
    let value = bytes.map(|bytes| StateValue { bytes, expires_at_ms });
    Ok((StateWrite { space: Space::User, key: entry.as_str().into(), value }, expected))
}

fn bytes_of(entry: &str, value: (&Option<String>, &Option<String>)) -> Result<Option<Bytes>, Failed> {
    match value {
        (Some(_), Some(_)) => Err(Failed::bad(format!("{entry:?} has a value as text and in base64"))),
        (Some(text), None) => Ok(Some(Bytes::copy_from_slice(text.as_bytes()))),
        (None, Some(base64)) => match BASE64.decode(base64) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) => Err(Failed::bad(format!("the value of {entry:?} is no base64: {error}"))),
        },
        (None, None) => Ok(None),
    }
}

/// Operates when no attempt of the key is under way; waits a moment for that.
async fn when_at_rest(
    admin: &Admin,
    consumer: ConsumerId,
    operation: Operation,
) -> Result<Result<(), OperationRefused>, Failed> {
    let begun = Instant::now();
    loop {
        let result = admin.operate(consumer, operation.clone()).await?;
        if result != Err(OperationRefused::BeingHandled) || begun.elapsed() >= REST_PATIENCE {
            return Ok(result);
        }
        tokio::time::sleep(REST_POLL).await;
    }
}
