//! Time as the core sees it: given with every event, never asked for.

/// The moment at which an event is handled.
///
/// Delays run on `tick_ms`, which never jumps; what is written down and survives a restart uses `wall_ms`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a monotonic clock; its zero means nothing.
    pub tick_ms: u64,
    /// Milliseconds since 1970-01-01 UTC.
    pub wall_ms: u64,
}
