//! The transcript of one key, and its judgement.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{LedgerEvent, Published, Verdict};
use crate::chain;

/// What was published under a key, and its events in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct KeyTranscript {
    published: BTreeSet<u64>,
    events: Vec<LedgerEvent>,
}

/// How far the judgement has followed the key's state.
struct Cursor {
    count: u64,
    chain: u64,
    n: u64,
    sequence: u64,
}

impl KeyTranscript {
    pub(super) fn publish(&mut self, n: u64) {
        self.published.insert(n);
    }

    pub(super) fn observe(&mut self, event: LedgerEvent) {
        self.events.push(event);
    }

    /// Adds what is wrong with this key to the verdict. `made_anew`: sequences say nothing about the order.
    pub(super) fn judge(
        &self,
        key: &str,
        published: &HashMap<String, Published>,
        made_anew: bool,
        verdict: &mut Verdict,
    ) {
        let genuine = self.without_foreign(key, published, verdict);
        self.check_order_of_events(key, &genuine, verdict);
        let mut applied: Vec<&LedgerEvent> = genuine;
        // Stable: events that claim one place stay in the order in which they came.
        applied.sort_by_key(|event| event.count);
        let mut missing: BTreeSet<u64> = self.published.clone();
        applied.iter().for_each(|event| _ = missing.remove(&event.n));
        self.follow(key, &applied, &mut missing, made_anew, verdict);
        for n in &missing {
            verdict.violations.lost += 1;
            verdict.note(format!("lost: message {n} of key {key} was never applied"));
        }
    }

    fn without_foreign(
        &self,
        key: &str,
        published: &HashMap<String, Published>,
        verdict: &mut Verdict,
    ) -> Vec<&LedgerEvent> {
        let mut genuine = Vec::with_capacity(self.events.len());
        for event in &self.events {
            match published.get(&event.id) {
                Some(message) if message.key == event.key && message.n == event.n => genuine.push(event),
                Some(message) => {
                    verdict.violations.foreign += 1;
                    verdict.note(format!(
                        "foreign: message {} is number {} of key {}, its event says {event:?}",
                        event.id, message.n, message.key
                    ));
                }
                None => {
                    verdict.violations.foreign += 1;
                    verdict.note(format!(
                        "foreign: nothing with the id {} was published, but key {key} has an event of it",
                        event.id
                    ));
                }
            }
        }
        genuine
    }

    /// Events of one key leave in the order in which they were committed.
    fn check_order_of_events(&self, key: &str, events: &[&LedgerEvent], verdict: &mut Verdict) {
        for (before, after) in events.iter().zip(events.iter().skip(1)) {
            if after.count < before.count {
                verdict.violations.reordered += 1;
                verdict.note(format!(
                    "reordered: key {key}: the event with count {} left before the one with {}",
                    before.count, after.count
                ));
            }
        }
    }

    /// Follows the key's state from event to event; what was applied without an event is taken out of `missing`.
    fn follow(
        &self,
        key: &str,
        applied: &[&LedgerEvent],
        missing: &mut BTreeSet<u64>,
        made_anew: bool,
        verdict: &mut Verdict,
    ) {
        let mut seen = HashSet::new();
        let mut at = Cursor { count: 0, chain: chain::START, n: 0, sequence: 0 };
        for event in applied {
            let first = seen.insert(event.n);
            if !first {
                verdict.violations.doubled += 1;
                verdict.note(format!(
                    "doubled: message {} of key {key} was applied again with count {}",
                    event.n, event.count
                ));
            }
            let hole = event.count.saturating_sub(at.count + 1);
            let explained = explain_hole(&at, event, hole, missing);
            if hole > 0 {
                verdict.violations.unpublished += hole;
                verdict.note(format!(
                    "unpublished: key {key}: {hole} events are missing before the one with count {}",
                    event.count
                ));
                explained.iter().for_each(|n| _ = missing.remove(n));
            }
            let expected = explained.iter().chain([&event.n]).fold(at.chain, |chain, n| chain::fold(chain, *n));
            if first && hole == 0 && (event.count != at.count + 1 || expected != event.chain) {
                verdict.violations.reordered += 1;
                verdict.note(format!(
                    "reordered: key {key}: {event:?} does not follow from count {} and chain {}",
                    at.count, at.chain
                ));
            } else if first && (event.n < at.n || (event.sequence < at.sequence && !made_anew)) {
                verdict.violations.reordered += 1;
                verdict.note(format!("reordered: key {key}: message {} was applied after message {}", event.n, at.n));
            }
            at = Cursor {
                count: event.count,
                chain: event.chain,
                n: at.n.max(event.n),
                sequence: at.sequence.max(event.sequence),
            };
        }
    }
}

/// Which messages without an event fill the hole before this one: the lowest that make its chain come out, else the lowest.
fn explain_hole(at: &Cursor, event: &LedgerEvent, hole: u64, missing: &BTreeSet<u64>) -> Vec<u64> {
    let size = usize::try_from(hole).unwrap_or(usize::MAX);
    if size == 0 {
        return Vec::new();
    }
    let candidates: Vec<u64> = missing.iter().copied().collect();
    let fits = |window: &&[u64]| {
        let chain = window.iter().chain([&event.n]).fold(at.chain, |chain, n| chain::fold(chain, *n));
        chain == event.chain
    };
    let found = candidates.windows(size).find(fits);
    found.map_or_else(|| candidates.iter().copied().take(size).collect(), <[u64]>::to_vec)
}
