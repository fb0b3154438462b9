//! The host's only clock. Everything that decides gets the time from here.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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
        Now { tick_ms: millis(self.started.elapsed()), wall_ms: self.wall_ms() }
    }

    /// The wall time alone, for those who need no tick: each clock is read for itself, and in a virtual machine that is dear.
    #[must_use]
    pub fn wall_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis).saturating_add_signed(set_ahead_ms())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Measures how long something takes. The start of one is also the end of what came before it, so that a row of things costs one read of the clock each.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Begins to measure.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Microseconds since then.
    #[must_use]
    pub fn elapsed_us(&self) -> u64 {
        self.until_us(Self::start())
    }

    /// Microseconds from its start to that of a later one; 0 if that is the earlier.
    #[must_use]
    pub fn until_us(&self, later: Self) -> u64 {
        u64::try_from(later.0.saturating_duration_since(self.0).as_micros()).unwrap_or(u64::MAX)
    }
}

/// How far a test has set the wall clock ahead, in milliseconds: what the file says that `PELTON_CLOCK_OFFSET_FILE` names, read now and then.
#[cfg(feature = "fault-injection")]
fn set_ahead_ms() -> i64 {
    use std::sync::LazyLock;

    use parking_lot::Mutex;

    const READ_EVERY: Duration = Duration::from_millis(20);
    static FILE: LazyLock<Option<std::path::PathBuf>> =
        LazyLock::new(|| std::env::var_os("PELTON_CLOCK_OFFSET_FILE").map(Into::into));
    static LAST: Mutex<Option<(Instant, i64)>> = Mutex::new(None);

    let Some(file) = FILE.as_deref() else { return 0 };
    let mut last = LAST.lock();
    if let Some((read, offset)) = *last
        && read.elapsed() < READ_EVERY
    {
        return offset;
    }
    let offset = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    *last = Some((Instant::now(), offset));
    offset
}

/// Nobody sets the clock of a normal build.
#[cfg(not(feature = "fault-injection"))]
const fn set_ahead_ms() -> i64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_until_a_later_stopwatch_adds_up_and_never_runs_backwards() {
        let first = Stopwatch::start();
        let [second, third] = [3, 10].map(|ms| Stopwatch(first.0 + Duration::from_millis(ms)));
        assert_eq!(first.until_us(second) + second.until_us(third), first.until_us(third));
        assert_eq!((first.until_us(third), third.until_us(first)), (10_000, 0));
    }

    #[test]
    fn the_wall_time_alone_is_that_of_now() {
        let clock = Clock::start();
        let (before, wall_ms, after) = (clock.now().wall_ms, clock.wall_ms(), clock.now().wall_ms);
        assert!(before <= wall_ms && wall_ms <= after, "{before} {wall_ms} {after}");
    }
}
