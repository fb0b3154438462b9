//! What the simulation can find wrong.

/// Which promise was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// JetStream was told that a message is done before that was durable, or a position or floor passes over one that is not (G5, G1).
    SettledTooEarly,
    /// A message or an id has more than one outcome that counts, or is handled twice at once (G1).
    Twice,
    /// Messages of a key side by side, or not in stream order (G3).
    KeyOrder,
    /// An event left that is not durable, or in the wrong order (G4).
    Publish,
    /// A row was removed that JetStream never got (G4).
    RowRemoved,
    /// A limit was passed (G8).
    Limit,
    /// A message was forgotten, or skipped that should not be (G1).
    Lost,
    /// A paused consumer works, or one that may go on forgets that it was paused.
    Held,
    /// The books do not agree with what happened.
    Books,
    /// Something waits for ever.
    Stuck,
    /// Something is left when nothing is under way (G8).
    Leak,
}

/// A broken promise, with what happened.
#[derive(Clone, Debug)]
pub(super) struct Violation {
    pub(super) broken: Broken,
    /// Only for whoever reads the failure.
    pub(super) what: String,
}

pub(super) type Checked<T = ()> = Result<T, Violation>;

/// An error unless it holds.
pub(super) fn holds(it: bool, broken: Broken, what: impl FnOnce() -> String) -> Checked {
    if it { Ok(()) } else { Err(Violation { broken, what: what() }) }
}
