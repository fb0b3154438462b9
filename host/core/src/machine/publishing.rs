//! From the relay to JetStream and back: events that may leave, and the answers to them.

use super::core::{Core, Timer};
use super::event::{Action, OutboxRow};
use super::relay::Answered;
use crate::breaks::Break;
use crate::ids::RowId;

impl Core {
    pub(super) fn acknowledged(&mut self, row: RowId) {
        let answered = self.relay.acknowledged(row);
        if answered.is_some() && !self.settings.breaks.has(Break::RemoveBeforePuback) {
            self.note_published(row);
        }
        if let Some(state) = answered.as_ref().and_then(|answered| self.consumers.get_mut(&answered.consumer)) {
            state.outbox_rows = state.outbox_rows.saturating_sub(1);
            state.counters.published += 1;
        }
        self.retry_later(answered);
    }

    fn note_published(&mut self, row: RowId) {
        if self.flush_at_tick_ms.is_none() && !self.flush_due {
            self.flush_at_tick_ms = Some(self.at(self.settings.published_flush_ms, Timer::Flush));
        }
        self.open.published.push(row);
    }

    pub(super) fn retry_later(&mut self, answered: Option<Answered>) {
        if let Some((key, delay_ms)) = answered.and_then(|answered| answered.retry) {
            self.at(delay_ms, Timer::Relay(key));
        }
    }

    pub(super) fn publish(&mut self) {
        while let Some(OutboxRow { row, event, .. }) = self.relay.next_probe() {
            self.actions.push_back(Action::Publish { row, event });
        }
        while let Some(OutboxRow { row, event, .. }) = self.relay.next() {
            if self.settings.breaks.has(Break::RemoveBeforePuback) {
                self.note_published(row);
            }
            self.actions.push_back(Action::Publish { row, event });
        }
    }
}
