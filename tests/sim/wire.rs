//! The way of events to the broker and of its answers back.

use std::collections::VecDeque;
use std::sync::Arc;

use pelton_core::effects::Event;
use pelton_core::ids::RowId;

use pelton_core::Input;

use crate::violation::Checked;
use crate::world::{Happening, World};

/// One connection: what was sent arrives in order.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    /// Counts connections: answers of an older one come to nothing.
    connection: u64,
    sent: VecDeque<RowId>,
    /// There is no connection until then: what is sent is refused, and by then the host was told so.
    down_until_ms: u64,
    moving: bool,
    /// The output stream takes nothing.
    pub(crate) refuses: bool,
}

/// How long it takes until there is a connection again, in milliseconds.
const RECONNECT_MS: u64 = 40;

impl World {
    /// The host publishes an event.
    pub(crate) fn send(&mut self, row: RowId, event: &Arc<Event>) -> Checked {
        self.ledger.outbox.sent(row, event, self.plan.relay_in_flight_max)?;
        let down_for_ms = self.wire.down_until_ms.saturating_sub(self.tick_ms);
        if down_for_ms > 0 {
            self.soon(down_for_ms, Happening::Refused(self.wire.connection, row));
            return Ok(());
        }
        self.wire.sent.push_back(row);
        if !std::mem::replace(&mut self.wire.moving, true) {
            self.soon(self.plan.delays.answer_ms, Happening::WireMoves);
        }
        Ok(())
    }

    /// Some of what was sent arrives, and is answered.
    pub(crate) fn wire_moves(&mut self) -> Checked {
        let count = self.chance.between(1, self.wire.sent.len() as u64);
        let mut acknowledged = Vec::new();
        let connection = self.wire.connection;
        let most_ms = self.plan.delays.answer_ms;
        for _ in 0..count {
            let Some(row) = self.wire.sent.pop_front() else { break };
            let refused = self.wire.refuses || (!self.calm && self.chance.one_in(200));
            if refused {
                self.tally.count("event-refused");
                self.ledger.outbox.not_taken(row);
                self.soon(most_ms, Happening::Refused(connection, row));
                continue;
            }
            self.ledger.outbox.stored(row)?;
            if !self.calm && self.chance.one_in(150) {
                self.tally.count("puback-lost");
                self.soon(most_ms * 4, Happening::Refused(connection, row));
            } else {
                acknowledged.push(row);
                if !self.calm && self.chance.one_in(100) {
                    acknowledged.push(row);
                }
            }
        }
        if !acknowledged.is_empty() {
            self.soon(most_ms, Happening::Acked(connection, acknowledged));
        }
        self.wire.moving = !self.wire.sent.is_empty();
        if self.wire.moving {
            self.soon(most_ms, Happening::WireMoves);
        }
        Ok(())
    }

    pub(crate) fn acked(&mut self, connection: u64, rows: Vec<RowId>) -> Checked {
        if connection != self.wire.connection {
            return Ok(());
        }
        for row in &rows {
            self.ledger.outbox.answered(*row, true);
        }
        self.tell(Input::Acknowledged(rows))
    }

    pub(crate) fn refused(&mut self, connection: u64, row: RowId) -> Checked {
        if connection != self.wire.connection {
            return Ok(());
        }
        self.ledger.outbox.answered(row, false);
        self.tell(Input::Refused(row))
    }

    /// The connection breaks: a first part of what was sent arrived, and no answer comes any more.
    pub(crate) fn cut_wire(&mut self, host_lives: bool) -> Checked {
        let arrived = self.chance.between(0, self.wire.sent.len() as u64);
        for row in std::mem::take(&mut self.wire.sent).into_iter().take(arrived as usize) {
            if !self.wire.refuses {
                self.ledger.outbox.stored(row)?;
            }
        }
        self.wire.connection += 1;
        let connection = self.wire.connection;
        if host_lives {
            self.wire.down_until_ms = self.tick_ms + RECONNECT_MS;
            for row in self.ledger.outbox.unanswered() {
                self.soon(RECONNECT_MS, Happening::Refused(connection, row));
            }
        } else {
            self.wire.moving = false;
            self.wire.down_until_ms = 0;
        }
        Ok(())
    }
}
