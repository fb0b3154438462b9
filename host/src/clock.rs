//! The host's only clock. Everything that decides gets the time from here.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use pelton_core::time::Now;

/// Wall time and a monotonic tick that started with the host.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
}

impl Clock {
    /// A clock whose tick begins now.
    #[must_use]
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// The time now. A wall clock before 1970 counts as 1970.
    #[must_use]
    pub fn now(&self) -> Now {
        let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Now {
            tick_ms: millis(self.started.elapsed()),
            wall_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis),
        }
    }
}
