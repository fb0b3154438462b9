//! Why a key is where it is: what the core knows of it, for an operator.

use std::sync::Arc;

use super::consumer::Phase;
use super::core::Core;
use super::lanes::LaneState;
use super::parking::ParkState;
use crate::batch::{Hold, HoldBy};
use crate::ids::ConsumerId;
use crate::message::FailedAttempt;
use crate::parked::{ParkCause, ParkLane};

/// What the core knows of one key of one consumer, at one moment.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// One word for what the consumer does, as in [`super::ConsumerStatus`].
    pub phase: &'static str,
    /// Who keeps the consumer from working.
    pub holds: Vec<(HoldBy, Hold)>,
    /// Its messages in memory; none: there are none.
    pub running: Option<KeyRunning>,
    /// Its parked messages; none: there are none.
    pub parked: Option<KeyParked>,
}

/// The messages of a key that are in memory.
#[derive(Clone, Debug)]
pub struct KeyRunning {
    /// What its lane does.
    pub doing: LaneDoing,
    /// How many messages are in it.
    pub messages: usize,
    /// The sequence of the first.
    pub sequence: u64,
    /// How often that was tried.
    pub attempts: u32,
    /// Its last failed attempt.
    pub last_failure: Option<FailedAttempt>,
}

/// What a lane does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneDoing {
    /// An executor has it.
    Running,
    /// It may be handled, and waits for this.
    Ready(WaitsFor),
    /// It waits for its next attempt, for so many milliseconds.
    Backoff {
        /// From now on.
        for_ms: u64,
    },
    /// The id of its first message is being handled in another lane.
    Blocked,
}

/// What a lane waits for that could go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitsFor {
    /// Its turn on an executor.
    Turn,
    /// Its consumer is paused, or probes with one message at a time.
    Consumer,
    /// The rate of its consumer allows the next attempt in so many milliseconds.
    Rate {
        /// From now on.
        for_ms: u64,
    },
    /// As many keys of its consumer are handled as may be at a time.
    Keys {
        /// So many.
        keys_max: usize,
    },
    /// Another message of its consumer, since all of them share their state.
    SharedState,
    /// Effects that are in memory and not durable or not folded yet.
    Memory,
    /// Room on the disk of the store.
    Disk,
}

/// The parked messages of a key.
#[derive(Clone, Debug)]
pub struct KeyParked {
    /// How many there are.
    pub rows: u64,
    /// How many of them were set aside while their key goes on.
    pub aside: u64,
    /// Whether all that comes is parked behind them.
    pub held: bool,
    /// Why the key is held, if one of them holds it.
    pub cause: Option<ParkCause>,
    /// In how many milliseconds they are brought back by themselves; none: only something else brings them back.
    pub released_in_ms: Option<u64>,
    /// They are being brought back now, or wait for their turn to be.
    pub being_released: bool,
}

impl Core {
    /// What there is to say about a key now; none if there is no such consumer.
    #[must_use]
    pub fn explain(&self, consumer: ConsumerId, key: &str) -> Option<Explanation> {
        let state = self.consumers.get(&consumer)?;
        let key: Arc<str> = key.into();
        let in_ms = |tick_ms: u64| tick_ms.saturating_sub(self.now.tick_ms);
        let running = state.by_key.get(&key).and_then(|id| {
            let lane = self.lanes.get(*id)?;
            let first = lane.queue.front()?;
            Some(KeyRunning {
                doing: match &lane.state {
                    LaneState::Ready => LaneDoing::Ready(self.waits_for(consumer)),
                    LaneState::Running { .. } => LaneDoing::Running,
                    LaneState::Backoff { until_tick_ms, .. } => LaneDoing::Backoff { for_ms: in_ms(*until_tick_ms) },
                    LaneState::Blocked => LaneDoing::Blocked,
                },
                messages: lane.queue.len(),
                sequence: first.message.sequence,
                attempts: first.calls,
                last_failure: first.history.back().cloned(),
            })
        });
        let parked = state.parked.get(&ParkLane::Key(key)).map(|book| KeyParked {
            rows: book.rows,
            aside: book.aside,
            held: book.held,
            cause: book.cause,
            released_in_ms: book.until_tick_ms.map(in_ms),
            being_released: book.state != ParkState::Waiting,
        });
        let holds = state.holds.iter().map(|(by, hold)| (*by, hold.clone())).collect();
        Some(Explanation { phase: state.phase.word(), holds, running, parked })
    }
}

impl Phase {
    /// One word for it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Positioning => "positioning",
            Self::Rebinding => "rebinding",
            Self::Restarting => "restarting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Halted => "halted",
            Self::Suspended => "suspended",
        }
    }
}
