//! The buffered effects of one attempt, over what the host holds: the same rules as the real transaction's.

use std::collections::BTreeMap;

use super::limits::{LimitPassed, Limits, within};
use super::outcome::{Event, Line};
use super::subjects;
use crate::bindings::pelton::consumer::outbox::{EmitError, Event as Emitted};
use crate::message::Message;

/// Most entries of a page.
const PAGE_ENTRIES_MAX: usize = 1_000;
/// A page ends when it holds this many bytes.
const PAGE_BYTES_MAX: usize = 256 << 10;
/// Lines of one attempt, and their bytes, fields included; what is more is dropped.
const LOG_LINES_MAX: usize = 64;
const LOG_BYTES_MAX: usize = 64 << 10;

const CORRELATION_ID: &str = "pelton-correlation-id";
const CAUSATION_ID: &str = "pelton-causation-id";

/// Entries of different spaces never meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Space {
    User,
    Mark,
}

/// A value and when it is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) bytes: Vec<u8>,
    pub(super) expires_at_ms: Option<u64>,
}

impl Stored {
    pub(super) fn is_live(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_none_or(|at| now_ms < at)
    }
}

/// The entries of one scope.
pub(super) type Scope = BTreeMap<(Space, String), Stored>;

/// What every attempt of a host has in common.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) consumer: String,
    pub(super) version: String,
    pub(super) stream: String,
    pub(super) config: BTreeMap<String, String>,
    pub(super) grants: Vec<String>,
    pub(super) limits: Limits,
    pub(super) mark_ttl_ms: u64,
}

/// One attempt under way.
pub(crate) struct Transaction {
    pub(super) terms: Terms,
    pub(super) message: Message,
    pub(super) now_ms: u64,
    /// What is there when it begins.
    pub(super) found: Scope,
    pub(super) written: BTreeMap<(Space, String), Option<Stored>>,
    pub(super) events: Vec<Event>,
    pub(super) lines: Vec<Line>,
    line_bytes: usize,
    reads: usize,
    writes: usize,
    write_bytes: usize,
}

impl Transaction {
    pub(super) fn new(terms: Terms, message: Message, now_ms: u64, found: Scope) -> Self {
        Self {
            terms,
            message,
            now_ms,
            found,
            written: BTreeMap::new(),
            events: Vec::new(),
            lines: Vec::new(),
            line_bytes: 0,
            reads: 0,
            writes: 0,
            write_bytes: 0,
        }
    }

    pub(super) fn get(&mut self, space: Space, key: &str) -> Result<Option<Vec<u8>>, LimitPassed> {
        within("state_key_bytes_max", key.len(), self.terms.limits.state_key_bytes_max)?;
        self.count_reads(1)?;
        let place = (space, key.to_owned());
        let value = match self.written.get(&place) {
            Some(written) => written.as_ref(),
            None => self.found.get(&place),
        };
        Ok(value.filter(|value| value.is_live(self.now_ms)).map(|value| value.bytes.clone()))
    }

    pub(super) fn set(&mut self, key: &str, value: &[u8], ttl_ms: Option<u64>) -> Result<(), LimitPassed> {
        within("state_value_bytes_max", value.len(), self.terms.limits.state_value_bytes_max)?;
        let expires_at_ms = ttl_ms.map(|ttl| self.now_ms.saturating_add(ttl));
        self.write(Space::User, key, Some(Stored { bytes: value.to_vec(), expires_at_ms }))
    }

    pub(super) fn delete(&mut self, key: &str) -> Result<(), LimitPassed> {
        self.write(Space::User, key, None)
    }

    pub(super) fn mark(&mut self, id: &str, ttl_ms: Option<u64>) -> Result<(), LimitPassed> {
        let ttl = ttl_ms.unwrap_or(self.terms.mark_ttl_ms);
        let expires_at_ms = Some(self.now_ms.saturating_add(ttl));
        self.write(Space::Mark, id, Some(Stored { bytes: Vec::new(), expires_at_ms }))
    }

    fn write(&mut self, space: Space, key: &str, value: Option<Stored>) -> Result<(), LimitPassed> {
        let limits = self.terms.limits;
        within("state_key_bytes_max", key.len(), limits.state_key_bytes_max)?;
        self.writes += 1;
        within("writes_max", self.writes, limits.writes_max)?;
        self.write_bytes += key.len() + value.as_ref().map_or(0, |value| value.bytes.len());
        within("write_bytes_max", self.write_bytes, limits.write_bytes_max)?;
        self.written.insert((space, key.to_owned()), value);
        Ok(())
    }

    fn count_reads(&mut self, reads: usize) -> Result<(), LimitPassed> {
        self.reads += reads;
        within("reads_max", self.reads, self.terms.limits.reads_max)
    }

    /// Entries behind `after`, and where the next page begins if there are more.
    #[expect(clippy::type_complexity, reason = "entries and the next key: a type of its own would say no more")]
    pub(super) fn list(
        &mut self,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<(Vec<(String, Vec<u8>)>, Option<String>), LimitPassed> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).clamp(1, PAGE_ENTRIES_MAX);
        let mut merged: BTreeMap<&str, Option<&Stored>> = BTreeMap::new();
        let found = self.found.iter().map(|(place, value)| (place, Some(value)));
        let written = self.written.iter().map(|(place, value)| (place, value.as_ref()));
        for ((space, key), value) in found.chain(written) {
            if *space == Space::User && key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after) {
                merged.insert(key, value.filter(|value| value.is_live(self.now_ms)));
            }
        }
        let mut entries: Vec<(String, Vec<u8>)> = Vec::new();
        let mut bytes = 0;
        let mut next = None;
        for (key, value) in merged.into_iter().filter_map(|(key, value)| Some((key, value?))) {
            if entries.len() == limit || bytes >= PAGE_BYTES_MAX {
                next = entries.last().map(|(key, _)| key.clone());
                break;
            }
            bytes += key.len() + value.bytes.len();
            entries.push((key.to_owned(), value.bytes.clone()));
        }
        self.count_reads(entries.len().max(1))?;
        Ok((entries, next))
    }

    pub(super) fn emit(&mut self, event: &Emitted) -> Result<Result<String, EmitError>, LimitPassed> {
        let limits = self.terms.limits;
        let Emitted { subject, payload, headers, key } = event;
        within("event_bytes_max", payload.len(), limits.event_bytes_max)?;
        within("state_key_bytes_max", key.as_ref().map_or(0, String::len), limits.state_key_bytes_max)?;
        let header_bytes = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        within("event_header_bytes_max", header_bytes, limits.event_header_bytes_max)?;
        if let Err(refused) = self.check(subject, headers) {
            return Ok(Err(refused));
        }
        within("events_max", self.events.len() + 1, limits.events_max)?;
        let Terms { consumer, stream, .. } = &self.terms;
        // The stream's creation time is 0 here.
        let id = format!("{consumer}:{stream}:0:{}:{}", self.message.sequence, self.events.len());
        let mut all = self.host_headers();
        all.extend(headers.iter().cloned());
        let key = key.clone().or_else(|| self.message.key.clone());
        self.events.push(Event {
            id: id.clone(),
            subject: subject.clone(),
            key,
            headers: all,
            payload: payload.clone(),
        });
        Ok(Ok(id))
    }

    fn check(&self, subject: &str, headers: &[(String, String)]) -> Result<(), EmitError> {
        if !subjects::is_concrete(subject) {
            return Err(EmitError::InvalidSubject(format!("{subject:?} is not a concrete subject")));
        }
        if !subjects::is_granted(&self.terms.grants, subject) {
            return Err(EmitError::NotGranted(format!("no entry of grants.emit covers {subject:?}")));
        }
        for (name, value) in headers {
            if let Some(flaw) = subjects::header_flaw(name, value) {
                return Err(EmitError::InvalidHeader(format!("header {name:?}: {flaw}")));
            }
        }
        Ok(())
    }

    fn host_headers(&self) -> Vec<(String, String)> {
        let correlation = self.message.header(CORRELATION_ID).unwrap_or(&self.message.id);
        let mut headers = vec![
            (CORRELATION_ID.to_owned(), correlation.to_owned()),
            (CAUSATION_ID.to_owned(), self.message.id.clone()),
        ];
        for name in ["traceparent", "tracestate"] {
            headers.extend(self.message.header(name).map(|value| (name.to_owned(), value.to_owned())));
        }
        headers
    }

    pub(super) fn log(&mut self, level: &'static str, text: &str, fields: &[(String, String)]) {
        let bytes = text.len() + fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        if self.lines.len() == LOG_LINES_MAX || self.line_bytes + bytes > LOG_BYTES_MAX {
            return;
        }
        self.line_bytes += bytes;
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        self.lines.push(Line { level, text: printable(text), fields: printable(&fields.join(" ")) });
    }
}

/// The text with control characters escaped, as the host's log has it.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}
