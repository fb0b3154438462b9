//! What people do to the host: an operator's commands at random, and the one who puts things right in the end.

use std::sync::Arc;

use bytes::Bytes;

use super::durable::name_of;
use super::violation::{Broken, Checked, holds};
use super::world::{Happening, World};
use super::world_actions::VERSION;
use crate::batch::HoldBy;
use crate::ids::ConsumerId;
use crate::machine::{Input, Operation, OperationRefused, Probation};
use crate::message::Message;
use crate::parked::Parked;

impl World {
    /// An operator does something.
    pub(super) fn operator(&mut self, consumer: ConsumerId) -> Checked {
        match self.chance.below(12) {
            0..=1 => {
                let refused = self.operate(consumer, Operation::Pause { reason: "by chance".into() }).is_err();
                if !refused {
                    self.paused.insert(consumer);
                }
                self.soon(200, Happening::Resume(consumer));
                Ok(())
            }
            2 => {
                self.tell(Input::Swapped { consumer });
                if self.chance.one_in(2) {
                    let probation = Probation { version: VERSION, for_ms: 1_000, attempts: 10 };
                    self.tell(Input::Probation { consumer, probation });
                }
                Ok(())
            }
            3 => {
                _ = self.operate(consumer, Operation::ReleaseAll);
                Ok(())
            }
            4..=8 => self.with_a_parked_message(consumer),
            _ => {
                self.with_a_dead_letter(consumer);
                Ok(())
            }
        }
    }

    fn operate(&mut self, consumer: ConsumerId, operation: Operation) -> Result<(), OperationRefused> {
        self.trace(&operation);
        self.core.operate(self.now(), consumer, operation)
    }

    fn with_a_parked_message(&mut self, consumer: ConsumerId) -> Checked {
        let rows = self.life.parked.iter().filter(|((of, _), _)| *of == consumer).count() as u64;
        let place = self.chance.below(rows) as usize;
        let row = self.life.parked.iter().filter(|((of, _), _)| *of == consumer).nth(place);
        let Some(row) = row.map(|(_, row)| Arc::clone(row)) else { return Ok(()) };
        let name = name_of(consumer, &row.message);
        let (what, done) = match self.chance.below(3) {
            0 => {
                let lane = row.place().lane;
                self.life.forced.insert((consumer, lane.clone()));
                ("release", self.operate(consumer, Operation::Release(lane)))
            }
            1 => {
                let done = self.operate(consumer, Operation::DropParked(row));
                if done.is_ok() {
                    self.life.finished.insert(name);
                }
                ("drop", done)
            }
            _ => {
                let message = Arc::new(edited(&row.message));
                let row = Arc::new(Parked { message, ..Parked::clone(&row) });
                ("edit", self.operate(consumer, Operation::ReplaceParked(row)))
            }
        };
        self.saw(match (what, &done) {
            (_, Err(_)) => "operator refused",
            ("release", _) => "released by an operator",
            ("drop", _) => "dropped",
            _ => "edited",
        });
        let refused = matches!(done, Err(OperationRefused::NotParked | OperationRefused::UnknownConsumer));
        holds(!refused, Broken::Books, || format!("{what} of {name:?}: {done:?}"))
    }

    fn with_a_dead_letter(&mut self, consumer: ConsumerId) {
        let Some((name, letter)) = self.life.dead.iter().rfind(|(name, _)| name.0 == consumer) else { return };
        let (name, letter) = (*name, Arc::clone(letter));
        if self.chance.one_in(4) {
            let (sequence, published_at_ms) = (name.2, letter.message.published_at_ms);
            _ = self.operate(consumer, Operation::DropDeadLetter { sequence, published_at_ms });
        } else if self.operate(consumer, Operation::Replay(letter)).is_ok() {
            self.life.finished.remove(&name);
        }
    }

    pub(super) fn resume(&mut self, consumer: ConsumerId) {
        if self.operate(consumer, Operation::Resume).is_ok() {
            self.paused.remove(&consumer);
        }
    }

    /// When nothing goes wrong any more, an operator releases what nothing else will, until there is none of it.
    pub(super) fn put_right(&mut self) {
        for consumer in self.policies.keys().copied().collect::<Vec<_>>() {
            if self.paused.contains(&consumer) {
                self.resume(consumer);
            }
        }
        let stuck = self.life.parked.iter().filter(|(_, row)| row.cause.holds_key() && row.until_ms.is_none());
        let stuck: Vec<_> = stuck.map(|((consumer, place), _)| (*consumer, place.lane.clone())).collect();
        for (consumer, lane) in stuck {
            _ = self.operate(consumer, Operation::Release(lane));
        }
        if !self.life.parked.is_empty() || !self.paused.is_empty() || self.life.draining {
            self.later(100, Happening::PutRight);
        }
    }

    /// Who is paused stays so, whatever happens to the host.
    pub(super) fn who_is_paused(&mut self) {
        let paused =
            self.durable.consumers.values().filter(|known| known.holds.iter().any(|(by, _)| *by == HoldBy::Operator));
        self.paused = paused.map(|known| known.id).collect();
    }
}

fn edited(message: &Message) -> Message {
    Message { payload: Bytes::from_static(b"edited"), ..message.clone() }
}
