//! How a consumer reads its stream: where it begins, what comes, how much more is asked for, and how it ends.
//!
//! A generation is one stretch of reading behind what is durably settled. What comes of an earlier one is passed over.

use super::consumer::Phase;
use super::core::Core;
use super::event::{Action, Arrival, HaltReason, Start};
use super::lanes::LaneState;
use crate::batch::{Binding, StreamIdentity};
use crate::ids::ConsumerId;

impl Core {
    pub(super) fn is_current(&self, consumer: ConsumerId, generation: u64) -> bool {
        self.consumers.get(&consumer).is_some_and(|state| {
            state.generation == generation && matches!(state.phase, Phase::Positioning | Phase::Running)
        })
    }

    /// Begins to pull and to handle, once nothing is left of the time before a stop.
    pub(super) fn begin(&mut self, consumer: ConsumerId) {
        let Some(state) = self.consumers.get(&consumer).filter(|_| !self.draining) else { return };
        if state.phase == Phase::Suspended {
            // It is brought here again by whoever ends that.
        } else if matches!(state.phase, Phase::Positioning | Phase::Running) || state.is_quiet() {
            self.position(consumer);
        } else {
            self.stop(consumer, Phase::Restarting);
        }
    }

    /// Asks for the subscription to stand behind what is durably settled.
    pub(super) fn position(&mut self, consumer: ConsumerId) {
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        state.phase = Phase::Positioning;
        state.generation += 1;
        state.requested = 0;
        let newest = state.stream.clone().zip(state.newest);
        let action = Action::Position { consumer, generation: state.generation, after: state.durable_floor, newest };
        self.actions.push_back(action);
    }

    pub(super) fn positioned(
        &mut self,
        consumer: ConsumerId,
        generation: u64,
        stream: StreamIdentity,
        last_sequence: u64,
    ) {
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        if state.generation != generation || state.phase != Phase::Positioning {
            return;
        }
        if state.stream.as_ref() == Some(&stream) {
            let floor = state.highest_known();
            if last_sequence < floor {
                let reason = HaltReason::StreamWentBackwards { stream: stream.name, last_sequence, floor };
                self.actions.push_back(Action::Halted { consumer, reason });
                self.stop(consumer, Phase::Halted);
            } else {
                state.phase = Phase::Running;
                state.working_since_tick_ms = self.now.tick_ms;
            }
            return;
        }
        if !state.is_quiet() {
            // What is under way belongs to the stream before: its sequences must not be taken for those of this one.
            self.stop(consumer, Phase::Rebinding);
            return;
        }
        let stood_at = state.durable_floor;
        let replaced = state.stream.take().filter(|before| before.name == stream.name);
        // A stream that took the place of one of its name holds only what was published since: all of it is new.
        let after = if state.start == Start::New && replaced.is_none() { last_sequence } else { 0 };
        state.bind(stream.clone(), after);
        let name = state.name.clone();
        state.phase = Phase::Running;
        state.working_since_tick_ms = self.now.tick_ms;
        self.open.bindings.push(Binding { consumer, name, stream: stream.clone(), floor: after });
        self.actions.push_back(Action::Bound { consumer, stream, replaced, after });
        if stood_at != after {
            self.position(consumer);
        }
    }

    pub(super) fn delivered(&mut self, consumer: ConsumerId, generation: u64, arrivals: Vec<Arrival>) {
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        if state.generation != generation || state.phase != Phase::Running {
            return;
        }
        state.requested = state.requested.saturating_sub(arrivals.len());
        let mut settled_before = Vec::new();
        for arrival in arrivals {
            let sequence = arrival.message.sequence;
            let Some(state) = self.consumers.get_mut(&consumer) else { return };
            state.delivered(sequence);
            if state.cursor.contains(sequence) {
                state.counters.redelivered += 1;
                settled_before.push(sequence);
            } else if state.hold(sequence, arrival.message.weight()) {
                self.enqueue(consumer, arrival);
            } else {
                state.counters.redelivered += 1;
            }
        }
        if !settled_before.is_empty() {
            self.settle_again(consumer, settled_before);
        }
    }

    pub(super) fn pull(&mut self) {
        if self.draining || !self.has_room() {
            return;
        }
        for (consumer, state) in &mut self.consumers {
            let messages = state.pull_size();
            if messages > 0 {
                state.requested += messages;
                let messages = u32::try_from(messages).unwrap_or(u32::MAX);
                let (consumer, generation) = (*consumer, state.generation);
                self.actions.push_back(Action::Pull { consumer, generation, messages });
            }
        }
    }

    /// Ends a consumer's work: what has not begun is let go of, what runs ends and is committed.
    pub(super) fn stop(&mut self, consumer: ConsumerId, phase: Phase) {
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        state.phase = phase;
        state.requested = 0;
        state.ready.clear();
        if std::mem::take(&mut state.in_round) {
            let used = state.pace.used;
            self.round.remove(&(used, consumer));
        }
        self.blocked.retain(|(of, _), _| *of != consumer);
        for lane in self.lanes.of(consumer) {
            if !matches!(self.lanes.get(lane).map(|lane| &lane.state), Some(LaneState::Running { .. })) {
                self.drop_lane(lane);
            }
        }
        self.stop_releasing(consumer);
    }
}
