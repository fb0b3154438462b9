//! What the core did that others have to see, and what an operator is told of it.

use pelton_core::ids::{ConsumerId, Version};
use pelton_core::{Action, HaltReason};

use super::{Driver, FailedVersion};

impl Driver {
    /// Performs what others have to see or an operator wants to know.
    pub(super) fn report(&mut self, action: Action) {
        let reader = &self.hands.reader;
        match action {
            Action::Bound { consumer, stream, replaced, after } => {
                let name = self.name(consumer);
                if let Some(replaced) = replaced {
                    tracing::warn!(%name, stream = %stream.name, was = %replaced.name, after,
                        "the consumer's stream was replaced by another, beginning anew");
                } else {
                    tracing::info!(%name, stream = %stream.name, after, "reading a stream for the first time");
                }
            }
            Action::Held { consumer, by, hold } => {
                let name = self.name(consumer);
                match hold {
                    Some(hold) => tracing::warn!(consumer = %name, ?by, reason = %hold.reason, "consumer paused"),
                    None => tracing::info!(consumer = %name, ?by, "consumer goes on"),
                }
            }
            Action::DeadLettered { consumer, letter } => {
                tracing::warn!(consumer = %self.name(consumer), sequence = letter.message.sequence, id = %letter.message.id,
                    key = letter.message.key.as_deref(), attempts = letter.attempts, cause = letter.cause.kind(), "message given up");
                reader.note_dead_letter(consumer, letter.message.sequence, &letter);
            }
            Action::Parked { consumer, row } => {
                if row.cause.holds_key() {
                    tracing::warn!(consumer = %self.name(consumer), sequence = row.message.sequence, id = %row.message.id,
                        key = row.message.key.as_deref(), attempts = row.attempts, cause = row.cause.kind(), "key parked");
                }
                reader.note_parked(consumer, &row);
            }
            Action::Unparked { consumer, place } => reader.note_unparked(consumer, &place),
            Action::StateEdited { consumer, key, writes } => {
                tracing::info!(
                    consumer = consumer.0,
                    ?key,
                    entries = writes.state.len(),
                    "state edited by an operator"
                );
                reader.apply(consumer, key.as_ref(), None, &writes);
            }
            Action::DeadLetterRemoved { consumer, sequence, published_at_ms } => {
                reader.note_dead_letter_removed(consumer, sequence, published_at_ms);
            }
            _ => {}
        }
    }

    pub(super) fn roll_back(&self, consumer: ConsumerId, version: Version, reason: Box<str>) {
        let failed = FailedVersion { consumer: self.name(consumer), version, reason };
        if let Err(error) = self.hands.failed.try_send(failed) {
            // The breaker is open all the same, and an operator can take the version back.
            tracing::error!(consumer = %self.name(consumer), version = version.short(), %error, "nobody can be told that a version failed in its probation");
        }
    }

    pub(super) fn halt(&mut self, consumer: ConsumerId, reason: &HaltReason) {
        let name = self.name(consumer);
        let text = match reason {
            HaltReason::StreamWentBackwards { stream, last_sequence, floor } => format!(
                "stream {stream} went backwards: its last sequence is {last_sequence}, but everything up to {floor} was settled; \
                 restore the stream, or delete it and create it anew to read it from the beginning, then `pelton consumers resume {name}`"
            ),
            HaltReason::Exhausted { sequence, key, attempts, failure } => format!(
                "message {sequence}{} failed {attempts} times, the last time by {}: {}; the manifest says to halt then: mend what is wrong, \
                 then `pelton consumers resume {name}`",
                key.as_ref().map(|key| format!(" of key {key:?}")).unwrap_or_default(),
                failure.kind(),
                failure.reason()
            ),
        };
        tracing::error!(consumer = %name, reason = text, "consumer halted");
        self.halted.insert(consumer, text);
    }
}
