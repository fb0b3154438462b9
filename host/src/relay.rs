//! The relay's report: what JetStream answered to published events, as inputs of the core. Which event leaves when is the core's decision.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use parking_lot::Mutex;
use pelton_core::Input;

use crate::driver::Note;
use crate::nats::{PublishReport, PublishResult, PublishSink};

/// The same refusal is logged again after this long.
const REPEAT: Duration = Duration::from_secs(30);

/// The last refused publish, for the log and for `status`.
#[derive(Debug, Default)]
pub struct Refusals {
    last: Mutex<Option<(String, Instant)>>,
}

impl Refusals {
    /// Why the last publish was refused; none: none was.
    #[must_use]
    pub fn last(&self) -> Option<String> {
        self.last.lock().as_ref().map(|(text, _)| text.clone())
    }

    fn note(&self, text: String) {
        let mut last = self.last.lock();
        let known = last.as_ref().is_some_and(|(known, at)| *known == text && at.elapsed() < REPEAT);
        if !known {
            tracing::warn!(
                error = text,
                "an event was not taken by jetstream, it stays in the outbox and is tried again"
            );
            *last = Some((text, Instant::now()));
        }
    }
}

/// Hands a run of answers to the driver, in order.
fn answered(results: Vec<PublishResult>, refusals: &Refusals, notes: &Sender<Note>) {
    let mut acknowledged = Vec::with_capacity(results.len());
    let tell = |input| {
        // The driver is gone only when the host is on its way out.
        _ = notes.send(Note::Core(input));
    };
    for result in results {
        match result {
            PublishResult::Acked(row) => acknowledged.push(row),
            PublishResult::Refused { row, error } => {
                refusals.note(error.to_string());
                tell(Input::Refused(row));
            }
        }
    }
    if !acknowledged.is_empty() {
        tell(Input::Acknowledged(acknowledged));
    }
}

/// What the publisher reports to.
#[must_use]
pub fn sink(refusals: Arc<Refusals>, notes: Sender<Note>) -> PublishSink {
    Arc::new(move |report| match report {
        // The driver is gone only when the host is on its way out.
        PublishReport::Connected { session } => _ = notes.send(Note::PublishUnder(session)),
        PublishReport::Results(results) => answered(results, &refusals, &notes),
    })
}
