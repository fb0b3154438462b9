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
        let wall_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis);
        Now { tick_ms: millis(self.started.elapsed()), wall_ms: wall_ms.saturating_add_signed(set_ahead_ms()) }
    }
}

/// Measures how long something takes.
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
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// How far a test has set the wall clock ahead, in milliseconds: what the file says that `PELTON_CLOCK_OFFSET_FILE` names, read now and then.
#[cfg(feature = "fault-injection")]
fn set_ahead_ms() -> i64 {
    use std::sync::LazyLock;
    use std::time::Duration;

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
