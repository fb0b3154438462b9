//! A generation that is read message by message out of the stream's store, until what breaks the connection is behind it.
//!
//! The durable consumer can only go on where it will not deliver such a message again, and that depends on the retention:
//! - Limits: it is simply moved past. Where the host's floor is below, the next generation begins by hand again.
//! - Interest: moving it past a message tells the stream that the message is done, so it waits for the host's floor.
//! - Work queue: the message leaves the stream only by an acknowledgement, which can't be sent for what the durable consumer has not delivered. So it is
//!   deleted, once it is durably settled.
//!
//! Until then everything is read by hand, with the same credit. It costs a request per message (some 5,000 a second here) and ends by itself.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::in_order::InOrder;
use super::looking::NS_PER_MS;
use super::suspicion::Suspicion;
use super::{Delivery, SubscriptionSettings};
use crate::nats::connect::Session;
use crate::nats::stored::{Stored, Trouble, remove};
use crate::nats::streams::{Retention, StreamFacts};

/// So many sound messages have to follow before the client is trusted again: flaws seldom come alone, and each costs two connections.
const SOUND_MIN: u32 = 256;
/// How often it is looked for new messages.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Pause before another try of a deletion that was refused.
const REMOVE_AGAIN: Duration = Duration::from_secs(5);

/// What reading came to.
pub(super) enum Step {
    /// A message to hand over.
    Delivery(Delivery),
    /// Nothing to hand over, but something changed.
    Changed,
    /// The store can't be read: the session is ending, or the server is in trouble.
    Trouble(Trouble),
}

/// A generation that is read by hand.
pub(super) struct ByHand {
    pub(super) generation: u64,
    pub(super) stream: StreamFacts,
    pub(super) session: Session,
    order: InOrder,
    /// The host's position when the generation began: up to here nothing is handed over.
    after: u64,
    /// Durably settled as far as is known.
    floor: u64,
    /// Read up to here.
    came_to: u64,
    /// The newest that was read, and when the stream stored it.
    newest: Option<(u64, u64)>,
    credit: u64,
    sound: u32,
    at_end: bool,
    /// Settled, and still to be removed from a work queue.
    due: BTreeSet<u64>,
    remove_at: Instant,
}

impl ByHand {
    pub(super) fn begin(
        generation: u64,
        after: u64,
        stream: StreamFacts,
        session: Session,
        settings: &SubscriptionSettings,
    ) -> Self {
        // What was settled in a work queue and is still there may be what breaks the connection.
        let start = if stream.retention == Retention::WorkQueue { 0 } else { after };
        Self {
            generation,
            order: InOrder::new(&settings.stream, &settings.subjects, start),
            stream,
            session,
            after,
            floor: after,
            came_to: start,
            newest: None,
            credit: 0,
            sound: 0,
            at_end: false,
            due: BTreeSet::new(),
            remove_at: Instant::now(),
        }
    }

    pub(super) fn give_credit(&mut self, messages: u32) {
        self.credit += u64::from(messages);
    }

    /// Credit that was not used; the durable consumer goes on with it.
    pub(super) fn credit(&self) -> u32 {
        u32::try_from(self.credit).unwrap_or(u32::MAX)
    }

    /// The newest that was read, and when the stream stored it.
    pub(super) fn newest(&self) -> Option<(u64, u64)> {
        self.newest
    }

    /// Durable: everything up to `floor`, and these.
    pub(super) fn settle(&mut self, floor: u64, sequences: &[u64], suspicion: &mut Suspicion) {
        self.floor = self.floor.max(floor);
        if self.stream.retention == Retention::WorkQueue {
            self.due.extend(suspicion.up_to(self.floor));
            self.due.extend(sequences.iter().filter(|sequence| suspicion.is_avoided(**sequence)));
        } else {
            suspicion.passed(self.floor);
        }
    }

    /// Where the durable consumer can go on: after this sequence. None: not yet.
    pub(super) fn durable_after(&self, suspicion: &Suspicion) -> Option<u64> {
        let behind_all = suspicion.last().max(suspicion.place()).is_none_or(|last| self.came_to > last || self.at_end);
        if !behind_all || (self.sound < SOUND_MIN && !self.at_end) {
            return None;
        }
        match self.stream.retention {
            Retention::Limits => Some(self.came_to.max(self.after)),
            Retention::Interest => suspicion.last().is_none_or(|last| last <= self.floor).then_some(self.floor),
            Retention::WorkQueue => suspicion.last().is_none().then_some(self.floor),
        }
    }

    /// Reads on. Safe to drop while it waits.
    pub(super) async fn step(&mut self, settings: &SubscriptionSettings, suspicion: &mut Suspicion) -> Step {
        let jetstream = self.session.jetstream.clone();
        if let Some(sequence) = self.due.first().copied()
            && self.remove_at <= Instant::now()
        {
            return self.remove(settings, suspicion, sequence).await;
        }
        let waits = self.credit == 0 || self.at_end;
        if waits {
            let remove_at = self.due.first().map(|_| self.remove_at);
            tokio::select! {
                () = async { sleep_until(remove_at.unwrap_or_else(Instant::now)).await }, if remove_at.is_some() => return Step::Changed,
                () = sleep(LOOK_EVERY), if self.credit > 0 => {}
                // The credit comes as a command, for which this is dropped.
                () = std::future::pending() => {}
            }
        }
        match self.order.next(&jetstream).await {
            Ok(None) => {
                self.at_end = true;
                Step::Changed
            }
            Ok(Some((stored, more))) => {
                self.at_end = !more;
                self.read(stored, more, settings, suspicion)
            }
            Err(trouble) => Step::Trouble(trouble),
        }
    }

    fn read(&mut self, stored: Stored, more: bool, settings: &SubscriptionSettings, suspicion: &mut Suspicion) -> Step {
        let sequence = stored.sequence;
        self.newest = self.newest.max(Some((sequence, stored.stored_ns / NS_PER_MS)));
        // The first one behind the place is what broke the connection, whether we can tell how or not.
        let is_suspect = suspicion.place().is_some_and(|place| self.came_to <= place && sequence > place);
        self.came_to = sequence;
        let flaw = stored.flaw.clone();
        self.sound = if flaw.is_some() { 0 } else { self.sound.saturating_add(1) };
        if is_suspect || flaw.is_some() {
            suspicion.avoid(sequence);
        }
        if let Some(flaw) = &flaw {
            tracing::warn!(consumer = %settings.name, stream = %settings.stream, sequence, subject = %stored.subject, %flaw,
                "a message that the nats client can't read was found in the stream's store");
        }
        if sequence <= self.after {
            if suspicion.is_avoided(sequence) {
                self.due.insert(sequence);
            }
            return Step::Changed;
        }
        self.credit = self.credit.saturating_sub(1);
        Step::Delivery(Delivery {
            sequence,
            subject: stored.subject,
            headers: stored.headers,
            payload: stored.payload,
            published_at_ms: stored.stored_ns / 1_000_000,
            // How many there are is not known, but whether there are any.
            pending: if more { self.stream.last_seq.saturating_sub(sequence).max(1) } else { 0 },
            unreadable: flaw.map(|flaw| format!("the nats client can't read this message: {flaw}").into()),
        })
    }

    async fn remove(&mut self, settings: &SubscriptionSettings, suspicion: &mut Suspicion, sequence: u64) -> Step {
        match remove(&self.session.jetstream, &settings.stream, sequence).await {
            Ok(()) => {
                self.due.remove(&sequence);
                suspicion.removed(sequence);
            }
            Err(trouble) => {
                tracing::error!(consumer = %settings.name, stream = %settings.stream, sequence, error = trouble,
                    "this message is settled and can't be deleted from its work queue, which is read message by message as long as it is there: \
                     delete it with `nats stream rmm`, or allow deletions");
                self.remove_at = Instant::now() + REMOVE_AGAIN;
            }
        }
        Step::Changed
    }
}
