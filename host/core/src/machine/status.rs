//! What an operator can see of the core.

use super::consumer::{Counters, Phase};
use super::core::Core;
use crate::batch::StreamIdentity;
use crate::ids::ConsumerId;

/// The books of one consumer, at one moment.
#[derive(Clone, Debug)]
pub struct ConsumerStatus {
    /// Its number.
    pub id: ConsumerId,
    /// Its name.
    pub name: Box<str>,
    /// One word for what it does: `stopped`, `positioning`, `rebinding`, `running`, `stopping` or `halted`.
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
    /// Runs that are out.
    pub running: usize,
    /// Keys that wait for another attempt.
    pub waiting_retry: usize,
    /// Events committed and not known to be published.
    pub outbox_pending: usize,
    /// What it did since the host was started.
    pub counters: Counters,
}

/// The books of the host, at one moment.
#[derive(Clone, Debug)]
pub struct Status {
    /// Every consumer that the store knows, by its number.
    pub consumers: Vec<ConsumerStatus>,
    /// Events in flight to JetStream.
    pub relay_in_flight: usize,
    /// Events that wait for room in the window.
    pub relay_queued: usize,
    /// Events of keys whose last publish was refused.
    pub relay_waiting: usize,
}

impl Core {
    /// The books as they are now.
    #[must_use]
    pub fn status(&self) -> Status {
        let consumers = self.consumers.iter().map(|(id, state)| ConsumerStatus {
            id: *id,
            name: state.name.clone(),
            phase: match state.phase {
                Phase::Stopped => "stopped",
                Phase::Positioning => "positioning",
                Phase::Rebinding => "rebinding",
                Phase::Running => "running",
                Phase::Stopping => "stopping",
                Phase::Halted => "halted",
            },
            stream: state.stream.clone(),
            floor: state.durable_floor,
            high: state.high(),
            held: state.held(),
            held_bytes: state.held_bytes(),
            running: state.running,
            waiting_retry: state.waiting_retry,
            outbox_pending: state.outbox_rows,
            counters: state.counters,
        });
        Status {
            consumers: consumers.collect(),
            relay_in_flight: self.relay.in_flight(),
            relay_queued: self.relay.queued(),
            relay_waiting: self.relay.waiting(),
        }
    }
}
