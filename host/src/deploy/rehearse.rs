//! A rehearsal: before a new version serves, it is given the last messages of its stream, with the state as it is now, and whatever it does is discarded.
//!
//! What always holds: nothing is written, nothing is emitted, and no message's attempts are counted.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use pelton_core::ids::ConsumerId;
use pelton_core::message::{Failure, Message};
use pelton_core::transaction::{StateView, Terms, Transaction};

use crate::clock::Clock;
use crate::config::Manifest;
use crate::deployed::Rules;
use crate::ingest::Ingest;
use crate::nats::{Connection, Recent};
use crate::store::Reader;
use crate::wasm::Sandbox;

/// A rehearsal ends after so long, with what it has seen until then.
const LONGEST: Duration = Duration::from_secs(60);

/// What a rehearsal works with.
#[derive(Clone)]
pub(super) struct Rehearsal {
    pub(super) connection: Arc<Connection>,
    pub(super) reader: Arc<Reader>,
    pub(super) sandbox: Arc<Sandbox>,
    pub(super) clock: Clock,
    pub(super) consumer: ConsumerId,
}

/// What a rehearsal came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Messages that were handled.
    handled: usize,
    /// Those that ended with a trap, a timeout or a passed limit.
    failed: usize,
    /// How the last of them ended.
    last: Option<String>,
}

impl Seen {
    fn note(&mut self, sequence: u64, failure: Option<&Failure>) {
        self.handled += 1;
        let Some(failure) = failure.filter(|failure| is_broken(failure)) else { return };
        self.failed += 1;
        self.last = Some(format!("message {sequence}: {}: {}", failure.kind(), failure.reason()));
    }

    /// Why the version is refused, if it is.
    pub(super) fn refusal(&self, ratio_max: f64) -> Option<String> {
        // Counted in messages: far below 2^53.
        if self.failed == 0 || self.failed as f64 <= ratio_max * self.handled as f64 {
            return None;
        }
        let last = self.last.as_deref().unwrap_or_default();
        Some(format!(
            "in its rehearsal {} of {} messages ended with a trap, a timeout or a passed limit, more than deploy.trap_ratio_max = {ratio_max} allows; the last one: {last}",
            self.failed, self.handled
        ))
    }
}

/// A wish to retry, to park or to reject is an answer; these are none.
fn is_broken(failure: &Failure) -> bool {
    matches!(failure, Failure::Trap { .. } | Failure::Timeout { .. } | Failure::Limit { .. })
}

impl Rehearsal {
    /// Gives the last messages to a version.
    ///
    /// # Errors
    /// If they can't be read, or the store can't.
    pub(super) async fn run(self, manifest: &Manifest, rules: Rules) -> anyhow::Result<Seen> {
        let subjects: Vec<Box<str>> =
            manifest.subscription.subjects.iter().map(|subject| subject.as_str().into()).collect();
        let stream = &manifest.subscription.stream;
        let fetching = self.connection.recent(stream, &subjects, manifest.deploy.rehearse);
        let recent = tokio::time::timeout(LONGEST, fetching)
            .await
            .context("the last messages of the stream did not come in time")??;
        let ingest = Ingest::new(manifest);
        let name = manifest.name.clone();
        let running = tokio::task::spawn_blocking(move || self.handle_all(&name, &ingest, &rules, recent));
        running.await.context("the thread of the rehearsal broke")?
    }

    fn handle_all(&self, name: &str, ingest: &Ingest, rules: &Rules, recent: Recent) -> anyhow::Result<Seen> {
        let begun = std::time::Instant::now();
        let stream = Arc::new(recent.stream.identity);
        let terms = Arc::new(Terms {
            grants: rules.grants.clone(),
            limits: rules.effects,
            mark_ttl_ms: rules.mark_ttl_ms,
            consumer_name: name.into(),
            shared_state: rules.shared_state,
            version: rules.plugin.version().to_string().into(),
        });
        let mut seen = Seen::default();
        for delivery in recent.messages {
            if begun.elapsed() > LONGEST {
                break;
            }
            let message = Message {
                id: Box::default(),
                mark: None,
                subject: delivery.subject,
                key: None,
                headers: delivery.headers,
                payload: delivery.payload,
                sequence: delivery.sequence,
                published_at_ms: delivery.published_at_ms,
                stream: Arc::clone(&stream),
                entity_version: None,
            };
            let (message, unreadable) = ingest.read(message, &|id| self.reader.hash_id(&stream, id));
            if delivery.unreadable.is_some() || unreadable.is_some() {
                continue;
            }
            let sequence = message.sequence;
            let view = Arc::clone(&self.reader) as Arc<dyn StateView>;
            let now_ms = self.clock.now().wall_ms;
            let transaction = Transaction::new(view, Arc::clone(&terms), self.consumer, Arc::new(message), now_ms);
            let Rules { plugin, limits, identity, .. } = rules;
            let result = self.sandbox.run(plugin, limits, identity, transaction, 1, sequence)?;
            seen.note(sequence, result.err().as_ref());
        }
        tracing::info!(
            consumer = name,
            version = rules.plugin.version().short(),
            handled = seen.handled,
            failed = seen.failed,
            "rehearsed"
        );
        Ok(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(handled: u64, traps: u64) -> Seen {
        let mut seen = Seen::default();
        for sequence in 0..handled {
            let trap = Failure::Trap { reason: "unreachable".into() };
            seen.note(sequence, (sequence < traps).then_some(&trap));
        }
        seen
    }

    #[test]
    fn more_broken_attempts_than_allowed_refuse_a_version() {
        assert_eq!(seen(10, 0).refusal(0.0), None);
        assert!(seen(10, 1).refusal(0.0).is_some_and(|why| why.contains("1 of 10") && why.contains("message 0: trap")));
        assert_eq!(seen(10, 5).refusal(0.5), None);
        assert!(seen(10, 6).refusal(0.5).is_some());
        assert_eq!(seen(0, 0).refusal(0.0), None, "a stream without messages says nothing");
    }

    #[test]
    fn an_answer_is_no_failure_of_the_version() {
        let mut seen = Seen::default();
        seen.note(1, Some(&Failure::Reject { reason: "no".into() }));
        seen.note(2, Some(&Failure::Retry { reason: "later".into(), after_ms: None }));
        assert_eq!((seen.handled, seen.failed), (2, 0));
    }
}
