//! What operators ask for: pause and resume, release, drop and replay. Each is durable with the next commit.

use std::sync::Arc;

use bytes::Bytes;

use super::consumer::Phase;
use super::core::Core;
use super::event::Action;
use super::hold::EDIT_BYTES;
use super::parking::ParkState;
use crate::batch::{Edit, Hold, HoldBy};
use crate::effects::WriteSet;
use crate::ids::ConsumerId;
use crate::message::DeadLetter;
use crate::parked::{ParkCause, ParkLane, Parked};
use crate::time::Now;

/// Something an operator wants.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Begin no attempt and pull nothing until resumed, also after a restart.
    Pause {
        /// Why, in the operator's words.
        reason: Box<str>,
    },
    /// End a pause; let an open breaker probe now; start a halted consumer again.
    Resume,
    /// Bring the parked messages of this lane back now.
    Release(ParkLane),
    /// Bring all parked messages of the consumer back now.
    ReleaseAll,
    /// Forget a parked message.
    DropParked(Arc<Parked>),
    /// Replace a parked message, its place stays: its payload was edited.
    ReplaceParked(Arc<Parked>),
    /// Handle a dead letter again, as the message that it holds (which may have been edited).
    Replay(Arc<DeadLetter>),
    /// End what is under way and begin nothing until told to go on; the cursor can be moved then.
    Suspend,
    /// End a suspension.
    GoOn,
    /// Everything up to here counts as settled, and nothing above it; or, to skip, everything up to here does as well.
    MoveCursor {
        /// The last sequence that counts as settled.
        after: u64,
        /// Forward: what lies between is never handled. Else backward: it is handled again.
        skip: bool,
    },
    /// Change state.
    EditState {
        /// The ordering key whose state it is; none: what all keys share.
        key: Option<Arc<str>>,
        /// What is written; no events.
        writes: Arc<WriteSet>,
        /// What each of them has to hold before: the shell looks. Of the same length as the writes.
        expected: Vec<Expected>,
    },
    /// Forget all of a consumer that is not deployed: cursor, state, marks, parked messages, dead letters.
    Forget,
    /// Forget a dead letter.
    DropDeadLetter {
        /// Its sequence.
        sequence: u64,
        /// When its stream stored it: milliseconds since 1970-01-01 UTC.
        published_at_ms: u64,
    },
}

/// What an entry has to hold for a change of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Whatever it holds.
    Anything,
    /// Nothing.
    Absent,
    /// These bytes.
    Bytes(Bytes),
}

/// Why an operation was not begun.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OperationRefused {
    /// There is no such consumer.
    #[error("there is no such consumer")]
    UnknownConsumer,
    /// It never read a stream, so nothing is known of it that could be kept.
    #[error("the consumer has not read anything yet")]
    NotBound,
    /// Nothing of this lane is parked.
    #[error("nothing of it is parked")]
    NotParked,
    /// Its messages are being handled at this moment.
    #[error("its parked messages are being handled at this moment; try again")]
    BeingReleased,
    /// It was given up because nobody could read it, and the consumer that knows how is not deployed.
    #[error("it was unreadable, and only its consumer can tell whether it still is: deploy that first")]
    NotDeployed,
    /// It was given up because nobody could read it, and nobody can now.
    #[error(
        "it still can't be read: {0}; replay it with a payload that can (--payload FILE), correct the manifest, or drop it"
    )]
    Unreadable(Box<str>),
    /// An attempt of it is under way.
    #[error("an attempt is under way; try again, or pause the consumer first")]
    BeingHandled,
    /// The entry is not what the operator saw.
    #[error("entry {0:?} has another value by now: look at it again")]
    Changed(Box<str>),
    /// It stands there already.
    #[error("the cursor is not moved by that")]
    NothingToMove,
    /// It is deployed.
    #[error("the consumer is deployed: remove its manifest first")]
    Deployed,
    /// The host is ending.
    #[error("the host is ending")]
    Draining,
}

impl Core {
    /// Does what an operator asks for.
    ///
    /// # Errors
    /// [`OperationRefused`]; nothing has changed then.
    pub fn operate(&mut self, now: Now, consumer: ConsumerId, operation: Operation) -> Result<(), OperationRefused> {
        self.tell_time(now);
        if self.draining {
            return Err(OperationRefused::Draining);
        }
        let state = self.consumers.get(&consumer).ok_or(OperationRefused::UnknownConsumer)?;
        if state.stream.is_none() {
            return Err(OperationRefused::NotBound);
        }
        match operation {
            Operation::Pause { reason } => {
                let hold = Hold { since_ms: self.now.wall_ms, reason };
                self.set_hold(consumer, HoldBy::Operator, Some(hold));
            }
            Operation::Resume => self.resume(consumer),
            Operation::Release(lane) => self.release_lane(consumer, lane)?,
            Operation::ReleaseAll => {
                let mut lanes: Vec<_> = state.parked.keys().cloned().collect();
                lanes.sort();
                lanes.into_iter().for_each(|lane| self.request_release(consumer, lane, false));
            }
            Operation::DropParked(row) => self.drop_parked(consumer, &row)?,
            Operation::ReplaceParked(row) => {
                self.at_rest(consumer, &row.place().lane)?;
                self.open.edit(Edit::Park { consumer, row: Arc::clone(&row) }, EDIT_BYTES + row.weight());
                self.actions.push_back(Action::Parked { consumer, row });
            }
            Operation::Replay(letter) => self.replay(consumer, &letter),
            Operation::Suspend => self.suspend(consumer)?,
            Operation::GoOn => self.go_on(consumer),
            Operation::MoveCursor { after, skip } => self.move_cursor(consumer, after, skip)?,
            Operation::EditState { key, writes, .. } => self.edit_state(consumer, key, writes)?,
            Operation::Forget => self.forget(consumer)?,
            Operation::DropDeadLetter { sequence, published_at_ms } => {
                self.remove_dead_letter(consumer, sequence, published_at_ms);
            }
        }
        Ok(())
    }

    fn resume(&mut self, consumer: ConsumerId) {
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        let halted = state.phase == Phase::Halted;
        if state.is_paused() {
            self.set_hold(consumer, HoldBy::Operator, None);
        }
        self.probe_now(consumer);
        if halted {
            self.begin(consumer);
        }
    }

    fn release_lane(&mut self, consumer: ConsumerId, lane: ParkLane) -> Result<(), OperationRefused> {
        let state = self.consumers.get(&consumer).ok_or(OperationRefused::UnknownConsumer)?;
        let pass_first = state.parked.get(&lane).ok_or(OperationRefused::NotParked)?.cause.is_none();
        // Where nothing holds the key, what waits there may be a gap that the operator wants to be passed.
        self.request_release(consumer, lane, pass_first);
        Ok(())
    }

    /// Whether what is parked there is not in anybody's hands.
    fn at_rest(&self, consumer: ConsumerId, lane: &ParkLane) -> Result<(), OperationRefused> {
        let state = self.consumers.get(&consumer).ok_or(OperationRefused::UnknownConsumer)?;
        let book = state.parked.get(lane).ok_or(OperationRefused::NotParked)?;
        // A stop ends releases at once, but what runs for them only when it is done.
        let runs_out = state.running > 0 && !self.is_at_work(consumer);
        match book.state {
            ParkState::Releasing(_) => Err(OperationRefused::BeingReleased),
            ParkState::Waiting | ParkState::Queued if runs_out => Err(OperationRefused::BeingReleased),
            ParkState::Waiting | ParkState::Queued => Ok(()),
        }
    }

    fn drop_parked(&mut self, consumer: ConsumerId, row: &Parked) -> Result<(), OperationRefused> {
        let place = row.place();
        self.at_rest(consumer, &place.lane)?;
        self.open.edit(Edit::RemoveParked { consumer, place: place.clone() }, EDIT_BYTES);
        let lane = place.lane.clone();
        self.actions.push_back(Action::Unparked { consumer, place });
        let Some(state) = self.consumers.get_mut(&consumer) else { return Ok(()) };
        state.parked_rows = state.parked_rows.saturating_sub(1);
        let Some(book) = state.parked.get_mut(&lane) else { return Ok(()) };
        book.rows = book.rows.saturating_sub(1);
        book.aside = book.aside.saturating_sub(u64::from(row.cause.is_aside()));
        if book.rows == 0 {
            self.end_release(consumer, &lane);
        } else if row.cause.holds_key() {
            self.request_release(consumer, lane, false);
        }
        Ok(())
    }

    fn replay(&mut self, consumer: ConsumerId, letter: &DeadLetter) {
        let message = &letter.message;
        self.remove_dead_letter(consumer, message.sequence, message.published_at_ms);
        let row = Arc::new(Parked {
            id: self.next_park_id(),
            message: Arc::clone(message),
            cause: ParkCause::Replayed,
            until_ms: None,
            parked_at_ms: self.now.wall_ms,
            releases: 0,
            attempts: letter.attempts,
            failures: 0,
            history: letter.history.clone(),
        });
        self.open.edit(Edit::Park { consumer, row: Arc::clone(&row) }, EDIT_BYTES + row.weight());
        let lane = row.place().lane;
        self.actions.push_back(Action::Parked { consumer, row });
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        let book = state.parked.entry(lane.clone()).or_default();
        book.note_row();
        state.parked_rows += 1;
        // Behind a message that holds its key, it waits with the others.
        if book.cause.is_none() {
            self.request_release(consumer, lane, false);
        }
    }

    fn remove_dead_letter(&mut self, consumer: ConsumerId, sequence: u64, published_at_ms: u64) {
        self.open.edit(Edit::RemoveDeadLetter { consumer, sequence, published_at_ms }, EDIT_BYTES);
        self.actions.push_back(Action::DeadLetterRemoved { consumer, sequence, published_at_ms });
    }
}
