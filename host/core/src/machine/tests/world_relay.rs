//! JetStream's side of the world: what it is told, and what is published to it.

use std::sync::Arc;

use bytes::Bytes;

use super::violation::{Broken, Checked, holds};
use super::world::{Happening, World};
use crate::effects::Event;
use crate::ids::{ConsumerId, RowId};
use crate::machine::Input;
use crate::message::Message;

impl World {
    pub(super) fn event(&mut self, consumer: ConsumerId, message: &Message, place: u64) -> Arc<Event> {
        let key = match self.chance.below(4) {
            0 => None,
            1 => Some(Arc::from("shared")),
            _ => message.key.clone(),
        };
        Arc::new(Event {
            id: format!("{}:{}:{}:{place}", consumer.0, message.published_at_ms, message.sequence).into(),
            subject: "out".into(),
            key,
            headers: Vec::new(),
            payload: Bytes::new(),
        })
    }

    pub(super) fn settle(&self, consumer: ConsumerId, floor: u64, sequences: &[u64]) -> Checked {
        self.durable.covered(&self.broker, consumer, floor, "a settled floor")?;
        let created = self.durable.consumers.get(&consumer).map_or(0, |known| known.stream.created_ns);
        sequences.iter().try_for_each(|sequence| {
            let durable = self.durable.settled.contains(&(consumer, created, *sequence));
            holds(durable, Broken::SettledTooEarly, || format!("{consumer:?}: {sequence} is told, but not durable"))
        })
    }

    /// An event leaves: it must be durable, and its key's turn.
    pub(super) fn leave(&mut self, row: RowId, event: &Event) -> Checked {
        let Some((consumer, stored)) = self.durable.outbox.get(&row) else {
            return holds(false, Broken::Publish, || format!("{row:?} leaves and is not durable"));
        };
        holds(**stored == *event, Broken::Publish, || format!("{row:?} is another event"))?;
        let life = &mut self.life;
        if let Some(key) = &event.key {
            let of_key = |(other, (of, event)): &(&RowId, &(ConsumerId, Arc<Event>))| {
                *other < &row && of == consumer && event.key.as_ref() == Some(key)
            };
            for (lower, _) in self.durable.outbox.iter().filter(of_key) {
                let gone = life.in_flight.contains(lower) || life.acknowledged.contains(lower);
                holds(gone, Broken::Publish, || format!("{row:?} leaves before {lower:?}"))?;
            }
            if life.refused.contains(&row) {
                let with_key = |other: &RowId| {
                    self.durable.outbox.get(other).is_some_and(|o| o.1.key.as_ref() == Some(key) && o.0 == *consumer)
                };
                let above = life.in_flight.iter().find(|other| **other > row && with_key(other));
                holds(above.is_none(), Broken::Publish, || format!("{row:?} is tried again behind {above:?}"))?;
            }
        }
        holds(life.in_flight.insert(row), Broken::Publish, || format!("{row:?} is in flight twice"))?;
        let most = self.settings.relay_in_flight_max;
        holds(life.in_flight.len() <= most, Broken::Limit, || format!("{} in flight", life.in_flight.len()))?;
        self.soon(30, Happening::Answer(row));
        Ok(())
    }

    /// JetStream takes the event, refuses it, or its answer is lost on the way.
    pub(super) fn answer(&mut self, row: RowId) {
        self.life.in_flight.remove(&row);
        let stored = self.calm || !self.chance.one_in(6);
        if stored {
            self.broker.events.insert(row);
        }
        if stored && (self.calm || !self.chance.one_in(8)) {
            self.life.refused.remove(&row);
            self.life.acknowledged.insert(row);
            if let Some((consumer, _)) = self.durable.outbox.get(&row) {
                let tally = self.life.books.entry(*consumer).or_default();
                tally.published += 1;
                tally.outbox_rows -= 1;
            }
            let twice = self.chance.one_in(10);
            self.tell(Input::Acknowledged(if twice { vec![row, row] } else { vec![row] }));
        } else {
            self.life.refused.insert(row);
            self.tell(Input::Refused(row));
        }
    }
}
