//! The relay's report: what JetStream answered to published events, as inputs of the core. Which event leaves when is the core's decision.

use std::collections::BTreeMap;
use std::mem::discriminant;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flume::Sender;
use parking_lot::Mutex;
use pelton_core::Input;
use pelton_core::ids::RowId;

use crate::driver::Note;
use crate::nats::{PublishError, PublishReport, PublishResult, PublishSink};

/// A refusal of the same kind is logged again after this long.
const REPEAT: Duration = Duration::from_secs(30);

/// Rows whose refusals are remembered, at most.
const ROWS_MAX: usize = 10_000;

struct Refusal {
    error: PublishError,
    logged: Instant,
}

/// The last refused publish, for the log and for `status`.
#[derive(Default)]
pub struct Refusals {
    last: Mutex<Option<Refusal>>,
    /// Of rows that were refused and are not acknowledged yet, the first so many.
    of_rows: Mutex<BTreeMap<RowId, Box<str>>>,
}

impl Refusals {
    /// Why the last publish was refused; none: none was.
    #[must_use]
    pub fn last(&self) -> Option<String> {
        self.last.lock().as_ref().map(|refusal| refusal.error.to_string())
    }

    /// Why the last publish of this row was refused; none: it was not, or so many others were that it is not remembered.
    #[must_use]
    pub fn of(&self, row: RowId) -> Option<String> {
        self.of_rows.lock().get(&row).map(ToString::to_string)
    }

    fn note_row(&self, row: RowId, error: &PublishError) {
        let mut of_rows = self.of_rows.lock();
        if of_rows.len() < ROWS_MAX || of_rows.contains_key(&row) {
            of_rows.insert(row, error.to_string().into());
        }
    }

    fn forget_rows(&self, rows: &[RowId]) {
        let mut of_rows = self.of_rows.lock();
        if !of_rows.is_empty() {
            rows.iter().for_each(|row| _ = of_rows.remove(row));
        }
    }

    fn note(&self, error: PublishError) {
        let mut last = self.last.lock();
        // By kind: a broker that refuses everything refuses it subject by subject.
        let known = last
            .as_ref()
            .filter(|last| discriminant(&last.error) == discriminant(&error) && last.logged.elapsed() < REPEAT);
        let logged = known.map_or_else(
            || {
                tracing::warn!(%error, "an event was not taken by jetstream, it stays in the outbox and is tried again");
                Instant::now()
            },
            |known| known.logged,
        );
        *last = Some(Refusal { error, logged });
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
                refusals.note_row(row, &error);
                refusals.note(error);
                tell(Input::Refused(row));
            }
        }
    }
    if !acknowledged.is_empty() {
        refusals.forget_rows(&acknowledged);
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
