//! The way in: what a subscription hands over becomes inputs of the core.
//!
//! Runs on the subscription's task, so that reading ids and keys costs the driver nothing. Messages keep their order.

use std::sync::Arc;

use flume::Sender;
use parking_lot::Mutex;
use pelton_core::batch::StreamIdentity;
use pelton_core::ids::ConsumerId;
use pelton_core::message::Message;
use pelton_core::{Arrival, Input};

use crate::board::Board;
use crate::deployed::Deployed;
use crate::driver::Note;
use crate::nats::{Delivery, Incoming, LostReason};
use crate::store::Reader;

/// What a subscription reports to.
pub struct Intake {
    deployed: Arc<Deployed>,
    reader: Arc<Reader>,
    board: Arc<Board>,
    notes: Sender<Note>,
    /// The stream that the subscription stands on.
    stream: Mutex<Option<Arc<StreamIdentity>>>,
    seen: Mutex<Seen>,
}

/// How far the subscription came.
#[derive(Default)]
struct Seen {
    /// The last generation that found its stream.
    positioned: Option<u64>,
    /// Whether the last failure came after its generation had found the stream.
    failed_behind_stream: bool,
    /// Losses since something was heard last.
    losses: u32,
}

/// So many losses in a row are shown as a problem.
const LOSSES_SHOWN: u32 = 3;

impl Intake {
    /// The way in of one consumer.
    #[must_use]
    pub fn new(deployed: Arc<Deployed>, reader: Arc<Reader>, board: Arc<Board>, notes: Sender<Note>) -> Self {
        Self { deployed, reader, board, notes, stream: Mutex::new(None), seen: Mutex::default() }
    }

    /// Takes what the subscription says.
    pub fn take(&self, incoming: Incoming) {
        match incoming {
            Incoming::Positioned { consumer, generation, stream: facts } => {
                self.found_stream(generation);
                let stream = facts.identity;
                *self.stream.lock() = Some(Arc::new(stream.clone()));
                self.tell(Input::Positioned { consumer, generation, stream, last_sequence: facts.last_seq });
            }
            Incoming::Delivered { consumer, generation, deliveries } => self.deliver(consumer, generation, deliveries),
            Incoming::PullEnded { consumer, generation, undelivered } => {
                self.seen.lock().losses = 0;
                self.board.note(&self.deployed.name, |entry| entry.subscription = None);
                self.tell(Input::PullEnded { consumer, generation, undelivered });
            }
            Incoming::Lost { consumer, generation, reason } => {
                tracing::warn!(consumer = %self.deployed.name, %reason, "subscription lost, positioning it anew");
                self.lost(&reason);
                self.tell(Input::Lost { consumer, generation });
            }
            Incoming::Offline { failure, .. } => self.offline(&failure.to_string()),
            Incoming::Failed { generation, error, .. } => self.failed(generation, &error.to_string()),
        }
    }

    /// One loss is made good in a moment; what is lost again and again is a problem until something is heard.
    fn lost(&self, reason: &LostReason) {
        // What had failed is shown as it is.
        if *reason == LostReason::WorthTrying {
            return;
        }
        let mut seen = self.seen.lock();
        seen.losses = seen.losses.saturating_add(1);
        if seen.losses >= LOSSES_SHOWN {
            seen.failed_behind_stream = true;
            let text = format!("lost {} times in a row: {reason}", seen.losses);
            self.board.note(&self.deployed.name, |entry| entry.subscription = Some(text));
        }
    }

    fn offline(&self, text: &str) {
        self.seen.lock().failed_behind_stream = false;
        self.board.note(&self.deployed.name, |entry| {
            if entry.subscription.as_deref() != Some(text) {
                tracing::error!(consumer = %self.deployed.name, error = text, "the consumer has no connection, trying again");
            }
            entry.subscription = Some(text.to_owned());
        });
    }

    fn failed(&self, generation: u64, text: &str) {
        let mut seen = self.seen.lock();
        seen.failed_behind_stream = seen.positioned == Some(generation);
        self.board.note(&self.deployed.name, |entry| {
            if entry.subscription.as_deref() != Some(text) {
                tracing::error!(consumer = %self.deployed.name, error = text, "the stream can't be read, trying again");
            }
            entry.subscription = Some(text.to_owned());
        });
    }

    /// That the stream is there is the end of a failure to find it. One that came behind that ends with the first pull that works.
    fn found_stream(&self, generation: u64) {
        let mut seen = self.seen.lock();
        seen.positioned = Some(generation);
        if !seen.failed_behind_stream {
            self.board.note(&self.deployed.name, |entry| entry.subscription = None);
        }
    }

    fn deliver(&self, consumer: ConsumerId, generation: u64, deliveries: Vec<Delivery>) {
        let stream = self.stream.lock();
        let Some(stream) = &*stream else { return };
        if let Some(last) = deliveries.last() {
            self.seen.lock().losses = 0;
            self.board.note(&self.deployed.name, |entry| {
                entry.pending = last.pending;
                entry.subscription = None;
            });
        }
        let hash = |id: &str| self.reader.hash_id(stream, id);
        let arrive = |delivery: Delivery| {
            let Delivery { sequence, subject, headers, payload, published_at_ms, unreadable: flaw, .. } = delivery;
            let message = Message {
                id: Box::default(),
                mark: None,
                subject,
                key: None,
                headers,
                payload,
                sequence,
                published_at_ms,
                stream: Arc::clone(stream),
                entity_version: None,
            };
            let (mut message, unreadable) = self.deployed.ingest.read(message, &hash);
            if flaw.is_some() {
                // Its id may not be the one that its publisher meant; in any case it is not used up.
                message.id = message.id_by_sequence();
                message.mark = None;
            }
            let unreadable = flaw.or(unreadable);
            Arrival { message: Arc::new(message), unreadable }
        };
        let arrivals = deliveries.into_iter().map(arrive).collect();
        self.tell(Input::Delivered { consumer, generation, arrivals });
    }

    fn tell(&self, input: Input) {
        // The driver is gone only when the host is on its way out.
        _ = self.notes.send(Note::Core(input));
    }
}
