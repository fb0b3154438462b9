//! A new version's probation: while it lasts, a breaker that opens means that the version is at fault, and the one before it is asked back.

use super::core::Core;
use super::event::Action;
use crate::ids::{ConsumerId, Version};

/// How a version that has just begun to serve is watched. It ends when both its time and its attempts are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probation {
    /// The version.
    pub version: Version,
    /// Its time, in milliseconds.
    pub for_ms: u64,
    /// Its attempts.
    pub attempts: u32,
}

/// A probation under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OnProbation {
    version: Version,
    until_tick_ms: u64,
    attempts_left: u32,
}

impl Core {
    pub(super) fn begin_probation(&mut self, consumer: ConsumerId, probation: Probation) {
        let Probation { version, for_ms, attempts } = probation;
        let until_tick_ms = self.now.tick_ms.saturating_add(for_ms);
        if let Some(state) = self.consumers.get_mut(&consumer) {
            state.probation = Some(OnProbation { version, until_tick_ms, attempts_left: attempts });
        }
    }

    /// An attempt of this version has ended. Whether it tells anything about the version that serves: one of the version before, which had begun, does not.
    pub(super) fn counts_for_probation(&mut self, consumer: ConsumerId, version: Version) -> bool {
        let tick_ms = self.now.tick_ms;
        let Some(state) = self.consumers.get_mut(&consumer) else { return false };
        let Some(probation) = &mut state.probation else { return true };
        if probation.version != version {
            state.breaker.nothing_tried();
            return false;
        }
        // The attempt itself still belongs to it.
        let is_over = probation.attempts_left == 0 && tick_ms >= probation.until_tick_ms;
        probation.attempts_left = probation.attempts_left.saturating_sub(1);
        if is_over {
            state.probation = None;
        }
        true
    }

    /// The breaker has opened: within its probation a version is given up for that, once.
    pub(super) fn judge_version(&mut self, consumer: ConsumerId, reason: &str) {
        let Some(state) = self.consumers.get_mut(&consumer) else { return };
        if let Some(OnProbation { version, .. }) = state.probation.take() {
            self.actions.push_back(Action::RollBack { consumer, version, reason: reason.into() });
        }
    }
}
