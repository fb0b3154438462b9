//! What an operator can see of the core.

use super::consumer::Counters;
use super::core::Core;
use crate::batch::{Again, Hold, HoldBy, StreamIdentity};
use crate::histogram::Histogram;
use crate::ids::ConsumerId;

/// The books of one consumer, at one moment.
#[derive(Clone, Debug)]
pub struct ConsumerStatus {
    /// Its number.
    pub id: ConsumerId,
    /// Its name.
    pub name: Box<str>,
    /// One word for what it does: `stopped`, `positioning`, `rebinding`, `restarting`, `running`, `stopping` or `halted`.
    pub phase: &'static str,
    /// The stream that it reads.
    pub stream: Option<StreamIdentity>,
    /// Everything up to this sequence is durably settled.
    pub floor: u64,
    /// The highest sequence delivered.
    pub high: u64,
    /// Messages held: waiting, running, or settled in the batch that is still open.
    pub held: usize,
    /// Their memory, in bytes.
    pub held_bytes: usize,
    /// Lanes with messages in hand: keys, and messages without one.
    pub lanes: usize,
    /// Runs that are out.
    pub running: usize,
    /// Keys that wait for another attempt.
    pub waiting_retry: usize,
    /// Events committed and not known to be published.
    pub outbox_pending: usize,
    /// When the oldest of them was committed: milliseconds since 1970-01-01 UTC.
    pub outbox_oldest_ms: Option<u64>,
    /// Whether nothing of it is held, executing or being committed.
    pub quiet: bool,
    /// Stretches above its floor that are settled, first and last sequence of each; the first few.
    pub settled_above: Vec<(u64, u64)>,
    /// The highest sequence that is settled.
    pub highest_settled: u64,
    /// What a rewind brings again, as far as it is not handled yet.
    pub again: Option<Again>,
    /// Keys that have messages in memory.
    pub keys: usize,
    /// Messages asked for and not delivered yet.
    pub requested: usize,
    /// Parked messages.
    pub parked_rows: u64,
    /// Keys that have any, and parked messages without a key.
    pub parked_lanes: usize,
    /// Those of them that are being brought back.
    pub lanes_releasing: usize,
    /// Who keeps it from working, since when and why.
    pub holds: Vec<(HoldBy, Hold)>,
    /// What it did since the host was started.
    pub counters: Counters,
    /// From a message's publication until its effects were durable, in milliseconds, of all messages applied since then.
    pub end_to_end_ms: Histogram,
}

/// The books of the host, at one moment.
#[derive(Clone, Debug)]
pub struct Status {
    /// Every consumer that the store knows, by its number.
    pub consumers: Vec<ConsumerStatus>,
    /// Whether the host is to stop: nothing new is begun.
    pub draining: bool,
    /// Events in flight to JetStream.
    pub relay_in_flight: usize,
    /// Events that wait for room in the window.
    pub relay_queued: usize,
    /// Events of keys whose last publish was refused.
    pub relay_waiting: usize,
}

impl Core {
    /// Events asked to be published and not answered yet.
    #[must_use]
    pub fn events_in_flight(&self) -> usize {
        self.relay.in_flight()
    }

    /// The books as they are now.
    #[must_use]
    pub fn status(&self) -> Status {
        /// Settled stretches that are told of one consumer.
        const RANGES_MAX: usize = 16;
        let oldest = self.relay.oldest();
        let consumers = self.consumers.iter().map(|(id, state)| ConsumerStatus {
            id: *id,
            name: state.name.clone(),
            phase: state.phase.word(),
            stream: state.stream.clone(),
            floor: state.durable_floor,
            high: state.high(),
            held: state.held(),
            held_bytes: state.held_bytes(),
            lanes: self.lanes.count(*id),
            running: state.running,
            waiting_retry: state.waiting_retry,
            outbox_pending: state.outbox_rows,
            outbox_oldest_ms: oldest.get(id).copied(),
            quiet: state.is_quiet(),
            settled_above: state.ranges(RANGES_MAX),
            highest_settled: state.cursor.highest(),
            again: Some(state.again).filter(|again| again.until > state.durable_floor),
            keys: state.by_key.len(),
            requested: state.requested,
            parked_rows: state.parked_rows,
            parked_lanes: state.parked.len(),
            lanes_releasing: state.releases.under_way + state.held_releases.under_way,
            holds: state.holds.iter().map(|(by, hold)| (*by, hold.clone())).collect(),
            counters: state.counters,
            end_to_end_ms: state.end_to_end_ms.clone(),
        });
        Status {
            consumers: consumers.collect(),
            draining: self.draining,
            relay_in_flight: self.relay.in_flight(),
            relay_queued: self.relay.queued(),
            relay_waiting: self.relay.waiting(),
        }
    }
}
