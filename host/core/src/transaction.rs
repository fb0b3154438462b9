//! The transaction of one attempt: reads through to what the key can see, buffers effects, keeps limits.
//!
//! It becomes a [`WriteSet`] if the handler returns ok and is dropped otherwise. It knows neither the sandbox nor the store: the
//! host functions call it, and it reads through [`StateView`].

mod again;
mod headers;
mod limits;
mod merged;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::effects::{Event, Scope, Space, StateValue, StateWrite, WriteSet};
use crate::grants::{self, Grants};
use crate::message::Message;
use crate::trace::SpanIds;

pub use headers::{CAUSATION_ID, CORRELATION_ID, TRACEPARENT, VERSION};
pub use limits::{CallError, EffectLimits, LimitPassed};

use limits::within;
use merged::{Merged, live};

/// The newest state that an attempt may see: what is durable and what earlier messages of its key left.
///
/// Entries whose time to live is over are not there.
pub trait StateView: Send + Sync {
    /// One value.
    ///
    /// # Errors
    /// [`ReadError`] if the store can't be read; the host has to stop then.
    fn get(&self, scope: &Scope, space: Space, key: &str, now_ms: u64) -> Result<Option<Bytes>, ReadError>;

    /// Entries of [`Space::User`] from `from` on, in the order of their keys, while their keys begin with `prefix`. At most `limit`; a list
    /// shorter than `limit` says that there are no more.
    ///
    /// # Errors
    /// [`ReadError`] if the store can't be read; the host has to stop then.
    fn range(
        &self,
        scope: &Scope,
        prefix: &str,
        from: Bound<&str>,
        limit: usize,
        now_ms: u64,
    ) -> Result<Vec<(Box<str>, Bytes)>, ReadError>;
}

/// The store can't be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the state store can't be read: {0}")]
pub struct ReadError(pub Box<str>);

/// Why an event was refused; the attempt goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EmitRefused {
    /// Not a concrete subject.
    InvalidSubject(String),
    /// A header name or value that can't be sent, or that belongs to NATS or the host.
    InvalidHeader(String),
    /// No grant covers the subject.
    NotGranted(String),
}

/// A page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys and values in the order of the keys' bytes.
    pub entries: Vec<(Box<str>, Bytes)>,
    /// Where the next page begins; none: there is no more.
    pub next: Option<Box<str>>,
}

/// Most entries of one page.
pub const PAGE_ENTRIES_MAX: usize = 1_000;
/// A page ends when it holds this many bytes of keys and values.
pub const PAGE_BYTES_MAX: usize = 256 << 10;
/// What every attempt of a consumer has in common.
#[derive(Clone, Debug)]
pub struct Terms {
    /// What it may do.
    pub grants: Grants,
    /// How much it may do.
    pub limits: EffectLimits,
    /// How long a mark is kept that names no time to live, in milliseconds.
    pub mark_ttl_ms: u64,
    /// Whose events they are: the ids of two consumers' events are never the same.
    pub consumer_name: Box<str>,
    /// Whether all keys of the consumer share their state.
    pub shared_state: bool,
    /// The version of its plug-in in hex, as its events carry it: written once, not for each of them.
    pub version: Box<str>,
}

/// The buffered reads and effects of one attempt.
#[derive(Clone)]
pub struct Transaction {
    view: Arc<dyn StateView>,
    terms: Arc<Terms>,
    scope: Scope,
    message: Arc<Message>,
    now_ms: u64,
    trace: Option<SpanIds>,
    state: BTreeMap<(Space, Box<str>), Option<StateValue>>,
    events: Vec<Arc<Event>>,
    reads: usize,
    writes: usize,
    write_bytes: usize,
    /// The rewind that brings the message again; 0: none does.
    again: u32,
}

impl Transaction {
    /// Begins the transaction of an attempt to handle `message` at `now_ms` (milliseconds since 1970-01-01 UTC).
    #[must_use]
    pub fn new(
        view: Arc<dyn StateView>,
        terms: Arc<Terms>,
        consumer: crate::ids::ConsumerId,
        message: Arc<Message>,
        now_ms: u64,
    ) -> Self {
        let key = if terms.shared_state { None } else { message.key.clone() };
        Self {
            view,
            terms,
            scope: Scope { consumer, key },
            message,
            now_ms,
            trace: None,
            state: BTreeMap::new(),
            events: Vec::new(),
            reads: 0,
            writes: 0,
            write_bytes: 0,
            again: 0,
        }
    }

    /// The attempt is this span of a trace, and its events go on from it. Without, they carry what their message carried.
    pub fn trace(&mut self, span: SpanIds) {
        self.trace = Some(span);
    }

    /// The time of the attempt, in milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The message of the attempt.
    #[must_use]
    pub fn message(&self) -> &Arc<Message> {
        &self.message
    }

    /// The state that it reads and changes.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The last version of the message's entity that was applied; none: none was.
    ///
    /// # Errors
    /// [`ReadError`] if the store can't be read; the host has to stop then.
    pub fn entity_version(&self) -> Result<Option<u64>, ReadError> {
        let value = self.view.get(&self.scope, Space::Host, &self.entity_entry(), self.now_ms)?;
        Ok(value.and_then(|bytes| Some(u64::from_be_bytes(bytes.as_ref().try_into().ok()?))))
    }

    /// Writes down that this version of the message's entity was applied, with the other effects.
    pub fn set_entity_version(&mut self, version: u64) {
        let bytes = Bytes::copy_from_slice(&version.to_be_bytes());
        let value = StateValue { bytes, expires_at_ms: None };
        self.state.insert((Space::Host, self.entity_entry()), Some(value));
    }

    /// The entity is the ordering key. Where all keys share their state, it has to be named.
    fn entity_entry(&self) -> Box<str> {
        let key = if self.terms.shared_state { self.message.key.as_deref() } else { None };
        format!("entity-version:{}", key.unwrap_or_default()).into()
    }

    /// The effects, once the handler has returned ok.
    #[must_use]
    pub fn into_writes(mut self) -> WriteSet {
        self.take_writes()
    }

    /// The same for one that can't be given up: its instance lives on. Nothing may be done with it afterwards.
    pub fn take_writes(&mut self) -> WriteSet {
        let state = std::mem::take(&mut self.state).into_iter();
        let state = state.map(|((space, key), value)| StateWrite { space, key, value }).collect();
        WriteSet { state, events: std::mem::take(&mut self.events) }
    }

    /// The value of a state key.
    ///
    /// # Errors
    /// If a limit is passed or the store can't be read.
    pub fn get(&mut self, key: &str) -> Result<Option<Bytes>, CallError> {
        self.read(Space::User, key)
    }

    /// Sets a state key, for `ttl_ms` from now or for good.
    ///
    /// # Errors
    /// If a limit is passed.
    pub fn set(&mut self, key: &str, bytes: Bytes, ttl_ms: Option<u64>) -> Result<(), CallError> {
        within("state_value_bytes_max", bytes.len(), self.terms.limits.state_value_bytes_max)?;
        let expires_at_ms = ttl_ms.map(|ttl| self.now_ms.saturating_add(ttl));
        self.write(Space::User, key, Some(StateValue { bytes, expires_at_ms }))
    }

    /// Deletes a state key.
    ///
    /// # Errors
    /// If a limit is passed.
    pub fn delete(&mut self, key: &str) -> Result<(), CallError> {
        self.write(Space::User, key, None)
    }

    /// Whether a business id was marked.
    ///
    /// # Errors
    /// If a limit is passed or the store can't be read.
    pub fn seen(&mut self, id: &str) -> Result<bool, CallError> {
        Ok(self.read(Space::Mark, id)?.is_some())
    }

    /// Marks a business id, for `ttl_ms` from now or for the host's default.
    ///
    /// # Errors
    /// If a limit is passed.
    pub fn mark(&mut self, id: &str, ttl_ms: Option<u64>) -> Result<(), CallError> {
        let ttl = ttl_ms.unwrap_or(self.terms.mark_ttl_ms);
        let expires_at_ms = Some(self.now_ms.saturating_add(ttl));
        self.write(Space::Mark, id, Some(StateValue { bytes: Bytes::new(), expires_at_ms }))
    }

    /// A page of the state keys that begin with `prefix` and lie behind `after`.
    ///
    /// # Errors
    /// If a limit is passed or the store can't be read.
    pub fn list(&mut self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, CallError> {
        let limit = limit.clamp(1, PAGE_ENTRIES_MAX);
        let mut merged = Merged::new(self, prefix, after);
        let mut page = Page::default();
        let mut bytes = 0;
        let mut reads = 0;
        while let Some((key, value)) = merged.next()? {
            if page.entries.len() == limit || bytes >= PAGE_BYTES_MAX {
                page.next = page.entries.last().map(|(key, _)| key.clone());
                break;
            }
            reads += 1;
            bytes += key.len() + value.len();
            page.entries.push((key, value));
        }
        self.count_reads(reads.max(1))?;
        Ok(page)
    }

    /// Emits an event and gives back its id.
    ///
    /// # Errors
    /// If a limit is passed. The inner result says whether the event itself was refused.
    pub fn emit(
        &mut self,
        subject: &str,
        payload: Bytes,
        headers: &[(String, String)],
        key: Option<&str>,
    ) -> Result<Result<String, EmitRefused>, CallError> {
        let limits = self.terms.limits;
        within("event_bytes_max", payload.len(), limits.event_bytes_max)?;
        within("state_key_bytes_max", key.map_or(0, str::len), limits.state_key_bytes_max)?;
        let header_bytes = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        within("event_header_bytes_max", header_bytes, limits.event_header_bytes_max)?;
        if let Err(refused) = self.check_event(subject, headers) {
            return Ok(Err(refused));
        }
        within("events_max", self.events.len() + 1, limits.events_max)?;
        let number = self.events.len();
        let id = match self.again {
            0 => event_id(&self.terms.consumer_name, &self.message, number),
            again => event_id(&self.terms.consumer_name, &self.message, format_args!("{number}:again-{again}")),
        };
        let key = key.map(Arc::from).or_else(|| self.message.key.clone());
        let headers = self.event_headers(headers);
        let event = Event { id: id.as_str().into(), subject: subject.into(), key, headers, payload };
        self.events.push(Arc::new(event));
        Ok(Ok(id))
    }

    fn check_event(&self, subject: &str, headers: &[(String, String)]) -> Result<(), EmitRefused> {
        if !grants::is_concrete_subject(subject) {
            return Err(EmitRefused::InvalidSubject(format!("{subject:?} is not a concrete subject")));
        }
        if !self.terms.grants.may_emit(subject) {
            return Err(EmitRefused::NotGranted(format!("no entry of grants.emit covers {subject:?}")));
        }
        headers.iter().try_for_each(|(name, value)| headers::check(name, value))
    }

    fn read(&mut self, space: Space, key: &str) -> Result<Option<Bytes>, CallError> {
        within("state_key_bytes_max", key.len(), self.terms.limits.state_key_bytes_max)?;
        self.count_reads(1)?;
        if !self.state.is_empty()
            && let Some(written) = self.state.get(&(space, Box::from(key)))
        {
            return Ok(live(written.as_ref(), self.now_ms));
        }
        Ok(self.view.get(&self.scope, space, key, self.now_ms)?)
    }

    fn write(&mut self, space: Space, key: &str, value: Option<StateValue>) -> Result<(), CallError> {
        let limits = self.terms.limits;
        within("state_key_bytes_max", key.len(), limits.state_key_bytes_max)?;
        self.writes += 1;
        within("writes_max", self.writes, limits.writes_max)?;
        self.write_bytes += key.len() + value.as_ref().map_or(0, |value| value.bytes.len());
        within("write_bytes_max", self.write_bytes, limits.write_bytes_max)?;
        self.state.insert((space, key.into()), value);
        Ok(())
    }

    fn count_reads(&mut self, reads: usize) -> Result<(), CallError> {
        self.reads += reads;
        within("reads_max", self.reads, self.terms.limits.reads_max)
    }
}

/// The id of a consumer's event number `number` (from 0) for this message: the same in every attempt, and no other event's. A stream that was deleted and
/// made anew gives out the same sequences again: its creation time keeps the ids apart.
#[must_use]
pub fn event_id(consumer: &str, message: &Message, number: impl fmt::Display) -> String {
    /// Room for the numbers, as long as they may be, and what stands between them.
    const NUMBERS_BYTES: usize = 64;
    let stream = &message.stream;
    let mut id = String::with_capacity(consumer.len() + stream.name.len() + NUMBERS_BYTES);
    id.push_str(consumer);
    id.push(':');
    id.push_str(&stream.name);
    // Nothing can fail in a string.
    _ = write!(id, ":{:x}:{}:{number}", stream.created_ns, message.sequence);
    id
}

#[cfg(test)]
mod tests;
