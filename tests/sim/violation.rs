//! What the simulation can find wrong.

/// Which promise was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Broken {
    /// A message or an id has more than one outcome that counts.
    Twice,
    /// A key's messages side by side, or one of them before its turn.
    KeyOrder,
    /// The broker was told that a message is done, or a position passes over one, and that is not durable.
    SettledTooEarly,
    /// A message has an outcome that it may not have.
    Outcome,
    /// An attempt, or a reader, sees another state than the fold of what was applied.
    State,
    /// An event left that is not committed, under another id, or out of its turn.
    Published,
    /// An event that was committed is given up and was not stored.
    EventLost,
    /// What a start finds is not what was durable.
    Recovered,
    /// A stream went backwards, and the consumer went on.
    Backwards,
    /// The books disagree with what happened.
    Books,
    /// A limit was passed.
    Limit,
    /// Something waits for ever, or lag is left.
    Stuck,
    /// Something is left in memory when nothing is under way.
    Leak,
    /// The core or the store panicked.
    Panicked,
}

/// A broken promise, with what happened.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) broken: Broken,
    /// Only for whoever reads the failure.
    pub(crate) what: String,
}

impl Violation {
    /// What happened, up to a length that can be read.
    pub(crate) fn brief(&self) -> &str {
        const LENGTH: usize = 2_500;
        let end = (0..=LENGTH.min(self.what.len())).rev().find(|end| self.what.is_char_boundary(*end)).unwrap_or(0);
        &self.what[..end]
    }
}

pub(crate) type Checked<T = ()> = Result<T, Violation>;

/// An error unless it holds.
pub(crate) fn holds(it: bool, broken: Broken, what: impl FnOnce() -> String) -> Checked {
    if it { Ok(()) } else { Err(Violation { broken, what: what() }) }
}

/// What is there, or an error.
pub(crate) fn there<T>(it: Option<T>, broken: Broken, what: impl FnOnce() -> String) -> Checked<T> {
    it.ok_or_else(|| Violation { broken, what: what() })
}
