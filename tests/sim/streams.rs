//! The broker's side of subscriptions: publishing, positions, deliveries late and twice, and acknowledgements that are lost.

use std::sync::Arc;

use pelton::store::Reader;
use pelton_core::ids::ConsumerId;
use pelton_core::message::Message;
use pelton_core::{Arrival, Input};

use crate::broker::{Incarnation, Published};
use crate::violation::{Broken, Checked, holds};
use crate::world::{Happening, World};

/// What is not acknowledged is delivered again after this time, in milliseconds.
const ACK_WAIT_MS: u64 = 800;
/// Messages delivered at one time, at most.
const DELIVERY_MAX: u64 = 256;

impl World {
    /// A burst of messages, and later the next one.
    pub(crate) fn publish(&mut self, number: usize) {
        let at_ms = self.broker_ms();
        let Some(stream) = self.streams.get_mut(number) else { return };
        // A broker that lost its tail takes nothing new until it has it again: else sequences would be taken twice.
        let burst = if stream.backwards.is_some() { 0 } else { stream.burst(&mut self.chance) };
        for _ in 0..burst {
            let incarnation = stream.last();
            let Published { subject, key, .. } = *stream.publish(&mut self.chance, at_ms);
            self.tally.published += 1;
            for (books, plan) in self.ledger.books.iter_mut().zip(&self.plan.consumers) {
                if plan.stream == number {
                    let ours = plan.subjects >> subject & 1 == 1;
                    books.published(incarnation, key, ours);
                    self.tally.messages += u64::from(ours);
                }
            }
        }
        if stream.to_come > 0 {
            let pause_ms = stream.pause_ms(&mut self.chance);
            self.later(pause_ms, Happening::Publish(number));
        }
        for place in 0..self.ledger.books.len() {
            if self.ledger.books[place].stream == number {
                self.schedule_delivery(place);
            }
        }
    }

    /// The subscription stands where it was to stand.
    pub(crate) fn positioned(&mut self, place: usize, generation: u64) -> Checked {
        let Some(consumer) = self.id(place) else { return Ok(()) };
        let number = self.ledger.books[place].stream;
        let stream = &self.streams[number];
        let (identity, last_sequence) = (stream.now().identity.as_ref().clone(), stream.last_sequence());
        let subscription = &mut self.subscriptions[place];
        if subscription.generation != Some(generation) {
            return Ok(());
        }
        subscription.positioned = true;
        let books = &self.ledger.books[place];
        // What is durably settled above the stream's end is gone from it: then nothing may be pulled.
        let gone = books.bound == Some(stream.last()) && books.cursor.highest() > last_sequence;
        self.tell(Input::Positioned { consumer, generation, stream: identity, last_sequence })?;
        if gone {
            let phase = self.host.as_ref().and_then(|host| {
                host.core.status().consumers.into_iter().find(|status| status.id == consumer).map(|status| status.phase)
            });
            // It may have been told to stop meanwhile; then it looks again when it starts.
            holds(phase != Some("running"), Broken::Backwards, || {
                format!("{}: its stream ends at {last_sequence}, and it is {phase:?}", self.ledger.books[place].name)
            })?;
            self.tally.count("backwards-noticed");
        }
        Ok(())
    }

    pub(crate) fn schedule_delivery(&mut self, place: usize) {
        let subscription = &mut self.subscriptions[place];
        if let Some(generation) = subscription.generation
            && subscription.credit > 0
            && !std::mem::replace(&mut subscription.scheduled, true)
        {
            self.soon(self.plan.delays.delivery_ms, Happening::Deliver(place, generation));
        }
    }

    /// Messages arrive, if this generation is still the one.
    pub(crate) fn deliver(&mut self, place: usize, generation: u64) -> Checked {
        let Some(consumer) = self.id(place) else { return Ok(()) };
        if self.subscriptions[place].generation != Some(generation) {
            return Ok(());
        }
        let most = self.chance.between(1, DELIVERY_MAX) as usize;
        let end_pull = !self.calm && self.chance.one_in(20);
        let (position, credit) = (self.subscriptions[place].position, self.subscriptions[place].credit);
        let arrivals = self.after(place, position, most.min(credit));
        let subscription = &mut self.subscriptions[place];
        subscription.scheduled = false;
        subscription.credit -= arrivals.len();
        subscription.pending.extend(arrivals.iter().map(|arrival| arrival.message.sequence));
        let got_some = !arrivals.is_empty();
        if let Some(last) = arrivals.last() {
            subscription.position = last.message.sequence;
        }
        let undelivered = if end_pull { std::mem::take(&mut subscription.credit) as u32 } else { 0 };
        if got_some {
            if !std::mem::replace(&mut subscription.redelivers, true) {
                self.later(ACK_WAIT_MS, Happening::Redeliver(place, generation));
            }
            self.tell(Input::Delivered { consumer, generation, arrivals })?;
            self.schedule_delivery(place);
        }
        if end_pull {
            self.tell(Input::PullEnded { consumer, generation, undelivered })?;
        }
        Ok(())
    }

    /// Messages arrive that were on the way when the subscription broke.
    pub(crate) fn deliver_late(&mut self, place: usize, generation: u64, arrivals: Vec<Arrival>) -> Checked {
        let Some(consumer) = self.id(place) else { return Ok(()) };
        self.tally.count("late-delivery");
        self.tell(Input::Delivered { consumer, generation, arrivals })
    }

    /// What was not acknowledged arrives again, behind newer ones and in any order.
    pub(crate) fn redeliver(&mut self, place: usize, generation: u64) -> Checked {
        let Some(consumer) = self.id(place) else { return Ok(()) };
        let subscription = &mut self.subscriptions[place];
        if subscription.generation != Some(generation) {
            return Ok(());
        }
        subscription.redelivers = !subscription.pending.is_empty();
        if !subscription.redelivers {
            return Ok(());
        }
        let mut again: Vec<u64> = subscription.pending.iter().copied().take(subscription.credit.min(64)).collect();
        if self.chance.one_in(2) {
            again.reverse();
        }
        let shown = self.streams[self.ledger.books[place].stream].last_sequence();
        let arrivals: Vec<_> = again
            .into_iter()
            .filter(|sequence| *sequence <= shown)
            .flat_map(|sequence| self.after(place, sequence - 1, 1))
            .collect();
        // A delivery takes credit, whichever it is.
        self.subscriptions[place].credit -= arrivals.len();
        self.tally.count("redelivery");
        self.later(ACK_WAIT_MS, Happening::Redeliver(place, generation));
        if arrivals.is_empty() { Ok(()) } else { self.tell(Input::Delivered { consumer, generation, arrivals }) }
    }

    /// The host says what is settled. Sometimes the broker does not hear it.
    pub(crate) fn acknowledged(&mut self, place: usize, floor: u64, sequences: &[u64]) {
        if !self.calm && self.chance.one_in(12) {
            self.tally.count("ack-lost");
            return;
        }
        let pending = &mut self.subscriptions[place].pending;
        let above = pending.split_off(&floor.saturating_add(1));
        *pending = above;
        if self.plan.consumers[place].acks_each {
            for sequence in sequences {
                pending.remove(sequence);
            }
        }
    }

    /// Up to `count` messages after `position`, as this consumer sees them.
    pub(crate) fn after(&mut self, place: usize, position: u64, count: usize) -> Vec<Arrival> {
        let (Some(host), Some(plan)) = (&self.host, self.plan.consumers.get(place)) else { return Vec::new() };
        let books = &mut self.ledger.books[place];
        let stream = &self.streams[books.stream];
        let incarnation = stream.now();
        let ours = |(_, published): &(u64, &Published)| plan.subjects >> published.subject & 1 == 1;
        let shown = (1..=stream.last_sequence()).zip(&incarnation.messages);
        let mut arrivals = Vec::new();
        for (sequence, published) in shown.skip(position as usize).filter(ours).take(count) {
            let key = books.keyed.then(|| Arc::clone(&stream.keys[usize::from(published.key)]));
            let by_version = books.policy.versions.is_some();
            let message = message(&host.reader, incarnation, sequence, published, key, by_version);
            books.note_delivered(&message, published.unreadable);
            let unreadable = published.unreadable.then(|| "by script".into());
            arrivals.push(Arrival { message: Arc::new(message), unreadable });
        }
        arrivals
    }

    /// All subscriptions of a consumer's host side are over; what was on the way comes later, and then the core hears of it.
    pub(crate) fn lose(&mut self, place: usize, consumer: ConsumerId) {
        let subscription = &mut self.subscriptions[place];
        let Some(generation) = subscription.generation else { return };
        let (position, credit) = (subscription.position, subscription.credit);
        subscription.end();
        let on_the_way = self.chance.between(0, credit.min(64) as u64) as usize;
        let arrivals = self.after(place, position, on_the_way);
        if !arrivals.is_empty() {
            self.soon(60, Happening::Late(place, generation, arrivals));
        }
        self.soon(60, Happening::Tell(Input::Lost { consumer, generation }));
    }
}

fn message(
    reader: &Reader,
    incarnation: &Incarnation,
    sequence: u64,
    published: &Published,
    key: Option<Arc<str>>,
    by_version: bool,
) -> Message {
    let stream = &incarnation.identity;
    let id: Box<str> = match published.id {
        Some(id) => format!("id-{id}").into(),
        None => format!("{}:{sequence}", stream.name).into(),
    };
    Message {
        mark: published.id.map(|_| reader.hash_id(stream, &id)),
        id,
        subject: "in".into(),
        key,
        headers: Vec::new(),
        payload: published.content.encode(),
        sequence,
        published_at_ms: published.at_ms,
        stream: Arc::clone(stream),
        entity_version: by_version.then_some(published.version),
    }
}
