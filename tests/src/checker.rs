//! Judges a run of the `ledger` plug-in from outside: it knows only what was published and what came out.
//!
//! `ledger` keeps for each key how many messages it applied, and a fold of their numbers in the order in which it applied them; each
//! message leaves one event with both. So an event tells about all messages before it: one that was applied and whose event is missing
//! is told from one that was never applied, and two attempts of one key that ran side by side show as two events with one count.

mod key;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::reader::Stored;
use key::KeyTranscript;

/// Violations that are kept as text; the rest is only counted.
const DETAILS_MAX: usize = 20;

/// An event of the `ledger` plug-in.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct LedgerEvent {
    /// The ordering key.
    pub key: String,
    /// The message's id.
    pub id: String,
    /// The message's stream sequence.
    pub sequence: u64,
    /// The message's number within its key, from 1.
    pub n: u64,
    /// Messages of the key that were applied, this one included.
    pub count: u64,
    /// The fold of their numbers; 16 hex digits in the event.
    #[serde(deserialize_with = "hex")]
    pub chain: u64,
}

fn hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let digits = String::deserialize(deserializer)?;
    u64::from_str_radix(&digits, 16).map_err(D::Error::custom)
}

/// A message that JetStream has acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The ordering key.
    pub key: String,
    /// The number within the key, from 1, in the order of the stream.
    pub n: u64,
    /// The message id.
    pub id: String,
}

/// What is wrong, each kind counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Violations {
    /// Published, and never applied.
    pub lost: u64,
    /// Applied more than once.
    pub doubled: u64,
    /// Applied, or come out, in another order than the stream's, or side by side with another message of the key.
    pub reordered: u64,
    /// Applied, and the event never came.
    pub unpublished: u64,
    /// Came out, and was never published, or says something else than what was published.
    pub foreign: u64,
}

impl Violations {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.lost + self.doubled + self.reordered + self.unpublished + self.foreign
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.reordered += other.reordered;
        self.unpublished += other.unpublished;
        self.foreign += other.foreign;
    }
}

/// The outcome of a check.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Messages published, duplicates not counted.
    pub messages: u64,
    /// What is wrong.
    pub violations: Violations,
    /// Some of it in words.
    pub details: Vec<String>,
}

impl Verdict {
    /// Adds the outcome of another check.
    pub(crate) fn add(&mut self, other: &Self) {
        self.messages += other.messages;
        self.violations.add(&other.violations);
        self.details.extend(other.details.iter().cloned());
    }

    fn note(&mut self, detail: String) {
        if self.details.len() < DETAILS_MAX {
            self.details.push(detail);
        }
    }
}

/// Everything published to one stream and everything that came out of the consumer behind it.
#[derive(Debug, Default)]
pub struct Checker {
    published: HashMap<String, Published>,
    keys: BTreeMap<String, KeyTranscript>,
    seen_events: HashSet<String>,
    known: HashSet<String>,
    missing: usize,
    made_anew: bool,
}

impl Checker {
    /// Notes a message that JetStream has acknowledged. Its repetitions under the same id are not noted.
    pub fn published(&mut self, message: Published) {
        self.keys.entry(message.key.clone()).or_default().publish(message.n);
        // Its event may be here before its ack.
        let known = self.known.contains(&message.id);
        if self.published.insert(message.id.clone(), message).is_none() && !known {
            self.missing += 1;
        }
    }

    /// Notes an event as the output stream holds it. Repetitions under one `Nats-Msg-Id` count once, as they do for any receiver that
    /// deduplicates.
    ///
    /// # Errors
    /// It is no event of `ledger`.
    pub fn came_out(&mut self, stored: &Stored) -> anyhow::Result<()> {
        let event: LedgerEvent = stored.json()?;
        self.event(stored.id().unwrap_or_default(), event);
        Ok(())
    }

    /// The same for an event that was read already.
    pub fn event(&mut self, event_id: &str, event: LedgerEvent) {
        if !self.seen_events.insert(event_id.to_owned()) {
            return;
        }
        if self.known.insert(event.id.clone()) && self.published.contains_key(&event.id) {
            self.missing -= 1;
        }
        self.keys.entry(event.key.clone()).or_default().observe(event);
    }

    /// From now on the messages are in a stream that was made anew: their sequences begin again, their numbers go on.
    pub fn stream_made_anew(&mut self) {
        self.made_anew = true;
    }

    /// How many published messages have no event yet.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.missing
    }

    /// How many different events have come out.
    #[must_use]
    pub fn events(&self) -> usize {
        self.seen_events.len()
    }

    /// Judges what is known now: everything that was published is expected to have come out.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let mut verdict = Verdict { messages: self.published.len() as u64, ..Verdict::default() };
        for (key, transcript) in &self.keys {
            transcript.judge(key, &self.published, self.made_anew, &mut verdict);
        }
        verdict
    }
}
