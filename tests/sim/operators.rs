//! Operators: they pause and resume, release, drop, edit and replay, as the admin interface does it: first they look, then they ask.

use std::sync::Arc;

use pelton::store::{DeadLetterQuery, ParkedQuery};
use pelton_core::batch::HoldBy;
use pelton_core::message::{DeadLetter, Message};
use pelton_core::parked::Parked;
use pelton_core::{Operation, OperationRefused};

use crate::script::{Content, Script};
use crate::trouble::Trouble;
use crate::violation::{Broken, Checked, holds};
use crate::world::{Happening, World};

/// How many rows an operator looks at.
const LOOKED_AT: usize = 20;

impl World {
    /// An operator looks at what there is and asks for something. The core hears of it a little later.
    pub(crate) fn wish(&mut self, place: usize, trouble: Trouble) -> Checked {
        let operation = match trouble {
            Trouble::Pause => {
                // Somebody will think of it again.
                self.soon(1_500, Happening::Operate(place, Operation::Resume));
                Some(Operation::Pause { reason: "by plan".into() })
            }
            Trouble::Resume => Some(Operation::Resume),
            Trouble::Release => self.a_parked_row(place)?.map(|row| Operation::Release(row.place().lane)),
            Trouble::ReleaseAll => Some(Operation::ReleaseAll),
            Trouble::DropParked => self.a_parked_row(place)?.map(Operation::DropParked),
            Trouble::EditParked => self.a_parked_row(place)?.map(|row| Operation::ReplaceParked(mended_row(&row))),
            Trouble::Replay => self.a_dead_letter(place)?.map(|letter| {
                let mend = self.chance.one_in(2);
                Operation::Replay(if mend { mended_letter(&letter) } else { letter })
            }),
            Trouble::DropDeadLetter => self.a_dead_letter(place)?.map(|letter| Operation::DropDeadLetter {
                sequence: letter.message.sequence,
                published_at_ms: letter.message.published_at_ms,
            }),
            _ => None,
        };
        match operation {
            // What was looked at may have changed when the request arrives.
            Some(operation) if self.chance.one_in(3) => {
                self.soon(60, Happening::Operate(place, operation));
                Ok(())
            }
            Some(operation) => self.operate(place, operation),
            None => Ok(()),
        }
    }

    /// The core is asked, if what the operator looked at is still there: as the driver does it. It may refuse; then nothing has changed.
    pub(crate) fn operate(&mut self, place: usize, operation: Operation) -> Checked {
        let now = self.now();
        if !self.still_stands(place, &operation) {
            self.tally.count("operation-too-late");
            return Ok(());
        }
        let Some(host) = &mut self.host else { return Ok(()) };
        let consumer = host.ids[place];
        let outcome = host.core.operate(now, consumer, operation);
        self.note(outcome.is_ok());
        if let Err(refused) = outcome {
            self.tally.count(match refused {
                OperationRefused::BeingReleased => "operation-refused-released",
                OperationRefused::NotParked => "operation-refused-not-parked",
                _ => "operation-refused",
            });
        }
        Ok(())
    }

    fn still_stands(&self, place: usize, operation: &Operation) -> bool {
        let now = &self.ledger.books[place].now;
        match operation {
            Operation::DropParked(seen) => now.rows.get(&seen.place()) == Some(seen),
            Operation::ReplaceParked(edited) => now
                .rows
                .get(&edited.place())
                .is_some_and(|row| **edited == Parked { message: Arc::clone(&edited.message), ..(**row).clone() }),
            Operation::Replay(letter) => {
                let found = now.letters.get(&(letter.message.sequence, letter.message.published_at_ms));
                found.is_some_and(|found| found.at_ms == letter.at_ms)
            }
            Operation::DropDeadLetter { sequence, published_at_ms } => {
                now.letters.contains_key(&(*sequence, *published_at_ms))
            }
            Operation::Pause { .. } | Operation::Resume | Operation::Release(_) | Operation::ReleaseAll => true,
            // Its operators don't ask for these.
            Operation::Suspend
            | Operation::GoOn
            | Operation::MoveCursor { .. }
            | Operation::EditState { .. }
            | Operation::Forget => false,
        }
    }

    fn a_parked_row(&mut self, place: usize) -> Checked<Option<Arc<Parked>>> {
        let Some(host) = &self.host else { return Ok(None) };
        let consumer = Some(host.ids[place]);
        let query = ParkedQuery { consumer, lane: None, after: None, limit: LOOKED_AT };
        let Ok(rows) = host.reader.parked(&query) else { return Ok(None) };
        let known = self.ledger.books[place].now.rows.values().take(LOOKED_AT).count();
        holds(rows.len() == known, Broken::Books, || format!("{} rows are listed, there are {known}", rows.len()))?;
        let at = self.chance.place(rows.len());
        Ok(rows.into_iter().nth(at).map(|stored| stored.row))
    }

    fn a_dead_letter(&mut self, place: usize) -> Checked<Option<Arc<DeadLetter>>> {
        let Some(host) = &self.host else { return Ok(None) };
        let consumer = Some(host.ids[place]);
        let query = DeadLetterQuery { consumer, after: None, limit: LOOKED_AT };
        let Ok(letters) = host.reader.dead_letters(&query) else { return Ok(None) };
        let known = self.ledger.books[place].now.letters.values().take(LOOKED_AT).count();
        holds(letters.len() == known, Broken::Books, || {
            format!("{} dead letters are listed, there are {known}", letters.len())
        })?;
        let at = self.chance.place(letters.len());
        Ok(letters.into_iter().nth(at).map(|stored| stored.letter))
    }

    /// In the calm, an operator helps whatever only an operator can help, until nothing is left.
    pub(crate) fn make_rounds(&mut self) -> Checked {
        let Some(host) = &self.host else {
            self.later(100, Happening::Rounds);
            return Ok(());
        };
        let status = host.core.status();
        let mut left = false;
        for consumer in status.consumers {
            let Some(place) = self.place(consumer.id).filter(|place| self.plan.takes_part(*place)) else { continue };
            let policy = &self.ledger.books[place].policy;
            // A key that was held while there was no timer for it waits for an operator, whatever the policy says now.
            let on_time = |row: &Arc<Parked>| !row.cause.holds_key() || row.until_ms.is_some();
            let by_timer = self.ledger.books[place].now.rows.values().all(on_time)
                && consumer.parked_rows < policy.release.rows_max;
            let paused = consumer.holds.iter().any(|(by, _)| *by == HoldBy::Operator);
            let stands_still = consumer.phase == "halted" || paused;
            left |= consumer.parked_rows > 0 || stands_still || self.subscriptions[place].generation.is_none();
            if stands_still {
                self.operate(place, Operation::Resume)?;
            }
            if consumer.phase == "stopped" {
                self.later(1, Happening::Start(place));
            }
            if consumer.parked_rows > 0 && !by_timer {
                self.operate(place, Operation::ReleaseAll)?;
            }
        }
        left |= self.streams.iter().any(|stream| stream.to_come > 0);
        if left || self.still_busy() {
            self.later(300, Happening::Rounds);
        }
        Ok(())
    }

    /// Whether a message has no outcome that is durable, or a consumer is paused. What a commit carries that is under way may be a pause, and what
    /// waits for the next one its end: a crash between the two would undo the end alone.
    fn still_busy(&self) -> bool {
        let commits = self.host.as_ref().is_some_and(|host| host.life.commit.is_some());
        let busy = |books: &crate::books::Books| {
            let of_stream = books.bound.and_then(|bound| books.streams.get(bound));
            let paused = books.holds.contains_key(&HoldBy::Operator);
            paused
                || !books.durable.rows.is_empty()
                || of_stream.is_some_and(|of_stream| !of_stream.unsettled.is_empty())
        };
        commits || self.ledger.books.iter().any(busy)
    }
}

/// The same message with a content that every plug-in handles.
fn mended(message: &Message) -> Arc<Message> {
    let events = Content::decode(&message.payload).map_or(0, |content| content.events);
    Arc::new(Message { payload: Content { script: Script::Good, events }.encode(), ..message.clone() })
}

fn mended_row(row: &Parked) -> Arc<Parked> {
    Arc::new(Parked { message: mended(&row.message), ..row.clone() })
}

fn mended_letter(letter: &DeadLetter) -> Arc<DeadLetter> {
    Arc::new(DeadLetter { message: mended(&letter.message), ..letter.clone() })
}
