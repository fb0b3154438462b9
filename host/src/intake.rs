//! The way in: what a subscription hands over becomes inputs of the core.
//!
//! Runs on the subscription's task, so that reading ids and keys costs the driver nothing. Messages keep their order.

use std::sync::Arc;

use crossbeam_channel::Sender;
use parking_lot::Mutex;
use pelton_core::batch::StreamIdentity;
use pelton_core::ids::ConsumerId;
use pelton_core::{Arrival, Input};

use crate::board::Board;
use crate::config::Manifest;
use crate::deployed::Deployed;
use crate::driver::Note;
use crate::ingest::Ingest;
use crate::nats::{Delivery, Incoming};
use crate::store::Reader;

/// What a subscription reports to.
pub struct Intake {
    deployed: Arc<Deployed>,
    manifest: Manifest,
    reader: Arc<Reader>,
    board: Arc<Board>,
    notes: Sender<Note>,
    /// How to read messages of the stream that the subscription stands on.
    reading: Mutex<Option<Reading>>,
}

struct Reading {
    stream: StreamIdentity,
    ingest: Ingest,
}

impl Intake {
    /// The way in of one consumer.
    #[must_use]
    pub fn new(
        deployed: Arc<Deployed>,
        manifest: Manifest,
        reader: Arc<Reader>,
        board: Arc<Board>,
        notes: Sender<Note>,
    ) -> Self {
        Self { deployed, manifest, reader, board, notes, reading: Mutex::new(None) }
    }

    /// Takes what the subscription says.
    pub fn take(&self, incoming: Incoming) {
        match incoming {
            Incoming::Positioned { consumer, generation, stream: facts } => {
                let stream = facts.identity;
                self.board.note(&self.deployed.name, |entry| entry.subscription = None);
                self.deployed.bind_first(&stream);
                let ingest = Ingest::new(&self.manifest, &stream.name);
                *self.reading.lock() = Some(Reading { stream: stream.clone(), ingest });
                self.tell(Input::Positioned { consumer, generation, stream, last_sequence: facts.last_seq });
            }
            Incoming::Delivered { consumer, generation, deliveries } => self.deliver(consumer, generation, deliveries),
            Incoming::PullEnded { consumer, generation, undelivered } => {
                self.tell(Input::PullEnded { consumer, generation, undelivered });
            }
            Incoming::Lost { consumer, generation, reason } => {
                tracing::warn!(consumer = %self.deployed.name, %reason, "subscription lost, positioning it anew");
                self.tell(Input::Lost { consumer, generation });
            }
            Incoming::Failed { error, .. } => {
                let text = error.to_string();
                self.board.note(&self.deployed.name, |entry| {
                    if entry.subscription.as_deref() != Some(text.as_str()) {
                        tracing::error!(consumer = %self.deployed.name, error = text, "the stream can't be read, trying again");
                    }
                    entry.subscription = Some(text);
                });
            }
        }
    }

    fn deliver(&self, consumer: ConsumerId, generation: u64, deliveries: Vec<Delivery>) {
        let reading = self.reading.lock();
        let Some(Reading { stream, ingest }) = &*reading else { return };
        if let Some(last) = deliveries.last() {
            self.board.note(&self.deployed.name, |entry| entry.pending = last.pending);
        }
        let hash = |id: &str| self.reader.hash_id(stream, id);
        let arrive = |delivery: Delivery| {
            let Delivery { sequence, subject, headers, payload, published_at_ms, .. } = delivery;
            let (message, unreadable) = ingest.read(&subject, headers, payload, sequence, published_at_ms, &hash);
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
