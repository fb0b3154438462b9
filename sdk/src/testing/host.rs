//! The in-memory host: what is kept between attempts, and the run of one.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::attempt::{Scope, Space, Stored, Terms, Transaction};
use super::calls;
use super::delivery::Delivery;
use super::limits::{LimitPassed, Limits};
use super::outcome::{Attempt, Event, Outcome};
use crate::{Failure, Message};

/// The clock's time at first: 2026-01-01T00:00:00Z.
const NOW_MS: u64 = 1_767_225_600_000;
/// How long a mark is kept that names no time to live.
const MARK_TTL_MS: u64 = 24 * 3_600_000;
/// A reason that is longer is cut, in bytes.
const REASON_BYTES_MAX: usize = 4 << 10;

/// A host in memory, with one consumer. See the module for an example.
#[derive(Debug)]
pub struct Host {
    handle: fn(Message) -> crate::Result,
    terms: Terms,
    shared_state: bool,
    now_ms: u64,
    scopes: BTreeMap<Option<String>, Scope>,
    applied: BTreeSet<String>,
    /// Of messages whose attempts failed, by their ids.
    failed: BTreeMap<String, u32>,
    last_sequence: u64,
    events: Vec<Event>,
}

impl Host {
    /// A host for a handler: without configuration, without grants, with the default limits, and with a clock that stands at the beginning of 2026.
    #[must_use]
    pub fn new(handle: fn(Message) -> crate::Result) -> Self {
        let terms = Terms {
            consumer: "test".to_owned(),
            version: "0".repeat(64),
            stream: "TEST".to_owned(),
            config: BTreeMap::new(),
            grants: Vec::new(),
            limits: Limits::default(),
            mark_ttl_ms: MARK_TTL_MS,
        };
        Self {
            handle,
            terms,
            shared_state: false,
            now_ms: NOW_MS,
            scopes: BTreeMap::new(),
            applied: BTreeSet::new(),
            failed: BTreeMap::new(),
            last_sequence: 0,
            events: Vec::new(),
        }
    }

    /// The same with leave to emit to the subjects of a pattern, as in the manifest's `grants.emit`.
    #[must_use]
    pub fn emits(mut self, pattern: &str) -> Self {
        self.terms.grants.push(pattern.to_owned());
        self
    }

    /// The same with a value of the manifest's `[config]`.
    #[must_use]
    pub fn config(mut self, name: &str, value: impl Display) -> Self {
        self.terms.config.insert(name.to_owned(), value.to_string());
        self
    }

    /// The same with other limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.terms.limits = limits;
        self
    }

    /// The same with all keys sharing their state, as with `state.scope = "consumer"`.
    #[must_use]
    pub fn shared_state(self) -> Self {
        Self { shared_state: true, ..self }
    }

    /// The same under another name than `test`, on another stream than `TEST`.
    #[must_use]
    pub fn named(mut self, consumer: &str, stream: &str) -> Self {
        consumer.clone_into(&mut self.terms.consumer);
        stream.clone_into(&mut self.terms.stream);
        self
    }

    /// The same with its clock at this time, in milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn at(self, now_ms: u64) -> Self {
        Self { now_ms, ..self }
    }

    /// Lets time pass.
    pub fn advance(&mut self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.now_ms = self.now_ms.saturating_add(ms);
    }

    /// The clock's time, in milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Makes one attempt at a message. One whose id was applied before is a duplicate; one whose attempt failed before is tried once more, with the next
    /// number, if it has an id by which it is known again.
    ///
    /// # Panics
    /// If it is called by a handler.
    pub fn handle(&mut self, delivery: &Delivery) -> Attempt {
        if calls::is_running() {
            fail("a handler can't run another message");
        }
        let message = self.message(delivery);
        let (id, number) = (message.id.clone(), message.attempt);
        let none =
            Attempt { outcome: Outcome::Duplicate, number, events: Vec::new(), marks: Vec::new(), logs: Vec::new() };
        if self.applied.contains(&id) {
            return none;
        }
        let scope = if self.shared_state { None } else { message.key.clone() };
        let found = self.scopes.get(&scope).cloned().unwrap_or_default();
        calls::begin(Transaction::new(self.terms.clone(), message.clone(), self.now_ms, found));
        let handle = self.handle;
        let returned = catch_unwind(AssertUnwindSafe(|| handle(message)));
        let Some(transaction) = calls::end() else { fail("the attempt was lost") };
        let outcome = outcome(returned);
        match &outcome {
            Outcome::Applied => {
                self.failed.remove(&id);
                self.applied.insert(id);
                self.keep(scope, transaction, none)
            }
            failed => {
                match failed {
                    // Not its turn: it does not count.
                    Outcome::Park { .. } => {}
                    Outcome::Reject { .. } => _ = self.failed.remove(&id),
                    _ => _ = self.failed.insert(id, number),
                }
                Attempt { outcome, logs: transaction.lines, ..none }
            }
        }
    }

    fn message(&mut self, delivery: &Delivery) -> Message {
        let Delivery { subject, headers, payload, id, key, sequence, published_at_ms } = delivery.clone();
        let sequence = sequence.unwrap_or(self.last_sequence + 1);
        self.last_sequence = self.last_sequence.max(sequence);
        let id = id.unwrap_or_else(|| format!("{}:{sequence}", self.terms.stream));
        let mut headers = headers;
        // As the host has them: by name, and those of one name as they came.
        headers.sort_by(|(a, _), (b, _)| a.cmp(b));
        let attempt = self.failed.get(&id).copied().unwrap_or(0) + 1;
        let published_at_ms = published_at_ms.unwrap_or(self.now_ms);
        Message { id, subject, key, headers, payload, sequence, published_at_ms, attempt }
    }

    /// Keeps the effects of an attempt.
    fn keep(&mut self, scope: Option<String>, transaction: Transaction, attempt: Attempt) -> Attempt {
        let Transaction { written, events, lines, .. } = transaction;
        let marks = written.keys().filter(|(space, _)| *space == Space::Mark).map(|(_, id)| id.clone()).collect();
        let entries = self.scopes.entry(scope).or_default();
        for (place, value) in written {
            match value {
                Some(value) => _ = entries.insert(place, value),
                None => _ = entries.remove(&place),
            }
        }
        self.events.extend(events.iter().cloned());
        Attempt { outcome: Outcome::Applied, events, marks, logs: lines, ..attempt }
    }

    /// All events of applied attempts so far, in order.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// A state entry of a key as JSON of a type; none if there is none. The key is not looked at if all keys share their state.
    ///
    /// # Panics
    /// If it is not of this type.
    #[must_use]
    #[track_caller]
    pub fn state<'k, T: DeserializeOwned>(&self, key: impl Into<Option<&'k str>>, entry: &str) -> Option<T> {
        let bytes = self.entries(key).remove(entry)?;
        match serde_json::from_slice(&bytes) {
            Ok(value) => Some(value),
            Err(error) => fail(&format!("the state entry {entry:?} is another JSON: {error}")),
        }
    }

    /// All state entries of a key that can be read now. The key is not looked at if all keys share their state.
    #[must_use]
    pub fn entries<'k>(&self, key: impl Into<Option<&'k str>>) -> BTreeMap<String, Vec<u8>> {
        let entries = self.scopes.get(&self.scope(key)).into_iter().flatten();
        let live = entries.filter(|((space, _), value)| *space == Space::User && value.is_live(self.now_ms));
        live.map(|((_, entry), value)| (entry.clone(), value.bytes.clone())).collect()
    }

    /// When a state entry of a key is gone, in milliseconds since 1970-01-01 UTC; none: it stays, or there is none.
    #[must_use]
    pub fn expires_at_ms<'k>(&self, key: impl Into<Option<&'k str>>, entry: &str) -> Option<u64> {
        let entries = self.scopes.get(&self.scope(key))?;
        entries.get(&(Space::User, entry.to_owned()))?.expires_at_ms
    }

    /// Whether a business id is marked.
    #[must_use]
    pub fn is_marked<'k>(&self, key: impl Into<Option<&'k str>>, id: &str) -> bool {
        let entries = self.scopes.get(&self.scope(key));
        let mark = entries.and_then(|entries| entries.get(&(Space::Mark, id.to_owned())));
        mark.is_some_and(|mark| mark.is_live(self.now_ms))
    }

    /// Sets a state entry of a key, as if an earlier message had.
    ///
    /// # Panics
    /// If the value can't be written as JSON.
    #[track_caller]
    pub fn set_state<'k, T: Serialize + ?Sized>(&mut self, key: impl Into<Option<&'k str>>, entry: &str, value: &T) {
        let bytes = match serde_json::to_vec(value) {
            Ok(bytes) => bytes,
            Err(error) => fail(&format!("the value of {entry:?} can't be written as JSON: {error}")),
        };
        let scope = self.scope(key);
        let stored = Stored { bytes, expires_at_ms: None };
        self.scopes.entry(scope).or_default().insert((Space::User, entry.to_owned()), stored);
    }

    fn scope<'k>(&self, key: impl Into<Option<&'k str>>) -> Option<String> {
        if self.shared_state { None } else { key.into().map(str::to_owned) }
    }
}

fn outcome(returned: std::thread::Result<crate::Result>) -> Outcome {
    let cut = |reason: &str| reason.get(..reason.floor_char_boundary(REASON_BYTES_MAX)).unwrap_or(reason).to_owned();
    match returned {
        Ok(Ok(())) => Outcome::Applied,
        Ok(Err(Failure::Retry { reason, after })) => Outcome::Retry { reason: cut(&reason), after },
        Ok(Err(Failure::Reject { reason })) => Outcome::Reject { reason: cut(&reason) },
        Ok(Err(Failure::Park { reason, after })) => Outcome::Park { reason: cut(&reason), after },
        Err(payload) => match payload.downcast_ref::<LimitPassed>() {
            Some(LimitPassed { limit, max }) => Outcome::Limit { reason: format!("passed limits.{limit} = {max}") },
            None => Outcome::Trap { reason: cut(panic_message(&*payload)) },
        },
    }
}

fn panic_message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&'static str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without a message")
}

/// Fails the test that has called.
#[expect(clippy::panic, reason = "a test fails by panicking")]
#[track_caller]
pub(super) fn fail(problem: &str) -> ! {
    panic!("{problem}")
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
