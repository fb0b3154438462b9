//! What operators change that lies deeper than single messages: the cursor's place, state, and all that is left of a consumer that is gone.
//!
//! The cursor moves only while nothing of its consumer is under way, so a rewind is three steps: suspend, move, go on. The middle one is a single edit of a
//! batch, durable or not at all. Suspension is memory only: a host that dies goes on from the cursor that is durable.

use std::sync::Arc;

use super::consumer::Phase;
use super::core::Core;
use super::event::Action;
use super::hold::EDIT_BYTES;
use super::lanes::LaneState;
use super::operate::OperationRefused;
use crate::batch::{Again, Edit};
use crate::cursor::Cursor;
use crate::effects::WriteSet;
use crate::ids::ConsumerId;

impl Core {
    /// Ends what is under way and begins nothing until told to go on. One that does not run stays as it is.
    pub(super) fn suspend(&mut self, consumer: ConsumerId) -> Result<(), OperationRefused> {
        let state = self.consumers.get(&consumer).ok_or(OperationRefused::UnknownConsumer)?;
        match state.phase {
            Phase::Stopped | Phase::Halted | Phase::Suspended => {}
            Phase::Stopping => return Err(OperationRefused::BeingHandled),
            Phase::Positioning | Phase::Rebinding | Phase::Restarting | Phase::Running => {
                self.stop(consumer, Phase::Suspended);
            }
        }
        Ok(())
    }

    /// Ends a suspension.
    pub(super) fn go_on(&mut self, consumer: ConsumerId) {
        if let Some(state) = self.consumers.get_mut(&consumer).filter(|state| state.phase == Phase::Suspended) {
            state.phase = Phase::Restarting;
            self.begin(consumer);
        }
    }

    /// Everything up to `after` counts as settled, and nothing above it. What was settled above is handled again: the marks of ids from before don't count for
    /// it. With `skip` the other way round: what lies between here and `after` is never handled.
    pub(super) fn move_cursor(&mut self, consumer: ConsumerId, after: u64, skip: bool) -> Result<(), OperationRefused> {
        let state = self.consumers.get_mut(&consumer).ok_or(OperationRefused::UnknownConsumer)?;
        let at_rest = matches!(state.phase, Phase::Stopped | Phase::Halted | Phase::Suspended) && state.is_quiet();
        if !at_rest {
            return Err(OperationRefused::BeingHandled);
        }
        if skip {
            if after <= state.cursor.floor() {
                return Err(OperationRefused::NothingToMove);
            }
            state.cursor.raise_floor(after);
        } else {
            let highest = state.cursor.highest();
            if after >= highest {
                return Err(OperationRefused::NothingToMove);
            }
            let before = state.again;
            // A stretch that was rewound before may not be over yet, so the two are one from now on.
            let is_open = before.number > 0 && before.until > before.after;
            state.again = Again {
                number: before.number.saturating_add(1),
                after: if is_open { before.after.min(after) } else { after },
                until: before.until.max(highest),
            };
            state.cursor = Cursor::at(after);
        }
        state.stand_at_cursor();
        let again = (!skip).then_some(state.again);
        self.open.edit(Edit::MoveCursor { consumer, after, again }, EDIT_BYTES);
        Ok(())
    }

    /// Changes state, if no attempt of its key is under way.
    pub(super) fn edit_state(
        &mut self,
        consumer: ConsumerId,
        key: Option<Arc<str>>,
        writes: Arc<WriteSet>,
    ) -> Result<(), OperationRefused> {
        let state = self.consumers.get(&consumer).ok_or(OperationRefused::UnknownConsumer)?;
        let is_running = |lane| matches!(self.lanes.get(lane).map(|lane| &lane.state), Some(LaneState::Running { .. }));
        let busy = match &key {
            Some(key) => state.by_key.get(key).is_some_and(|lane| is_running(*lane)),
            None => state.running > 0,
        };
        if busy {
            return Err(OperationRefused::BeingHandled);
        }
        let bytes = EDIT_BYTES + writes.weight();
        self.open.edit(Edit::State { consumer, key: key.clone(), writes: Arc::clone(&writes) }, bytes);
        self.actions.push_back(Action::StateEdited { consumer, key, writes });
        Ok(())
    }

    /// Forgets all of a consumer that does not run. The events that it committed are still published.
    pub(super) fn forget(&mut self, consumer: ConsumerId) -> Result<(), OperationRefused> {
        let state = self.consumers.get(&consumer).ok_or(OperationRefused::UnknownConsumer)?;
        if state.phase != Phase::Stopped {
            return Err(OperationRefused::Deployed);
        }
        if !state.is_quiet() {
            return Err(OperationRefused::BeingHandled);
        }
        self.consumers.remove(&consumer);
        self.open.edit(Edit::Forget { consumer }, EDIT_BYTES);
        Ok(())
    }
}
