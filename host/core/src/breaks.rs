//! Guarantees broken on purpose, so that the tests that should notice can be seen to notice.
//!
//! Without the `fault-injection` feature nothing can be broken, and the checks compile to nothing.

/// A guarantee to break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// Tell JetStream that a message is done before the commit that makes it so (G5).
    AckBeforeCommit,
    /// Don't look ids up among the processed ones (G1).
    NoDedup,
    /// Let messages of one key run side by side (G3).
    NoKeyGate,
    /// Give up an outbox row when it is sent, not when it is acknowledged (G4).
    RemoveBeforePuback,
    /// Handle what comes of a key that is held (G3).
    OvertakeParked,
    /// Know nothing of parked messages after a restart (G1).
    ForgetParkedOnCrash,
    /// Take a message for stale that waits for a version before it (G1).
    LoseGap,
    /// Let events leave before the commit that they belong to is durable (G4).
    PublishBeforeCommit,
}

impl Break {
    /// All of them, with the names that the tests use.
    pub const ALL: [(&'static str, Self); 8] = [
        ("ack-before-commit", Self::AckBeforeCommit),
        ("no-dedup", Self::NoDedup),
        ("no-key-gate", Self::NoKeyGate),
        ("remove-before-puback", Self::RemoveBeforePuback),
        ("overtake-parked", Self::OvertakeParked),
        ("forget-parked-on-crash", Self::ForgetParkedOnCrash),
        ("lose-gap", Self::LoseGap),
        ("publish-before-commit", Self::PublishBeforeCommit),
    ];
}

/// Which guarantee is broken in this run; normally none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaks {
    #[cfg(feature = "fault-injection")]
    broken: Option<Break>,
}

impl Breaks {
    /// Breaks one guarantee.
    #[cfg(feature = "fault-injection")]
    #[must_use]
    pub fn one(broken: Break) -> Self {
        Self { broken: Some(broken) }
    }

    /// Whether this guarantee is broken.
    #[cfg(feature = "fault-injection")]
    pub(crate) fn has(self, guarantee: Break) -> bool {
        self.broken == Some(guarantee)
    }

    /// Whether this guarantee is broken: never, in a normal build.
    #[cfg(not(feature = "fault-injection"))]
    #[expect(clippy::unused_self, reason = "the same signature as with the feature")]
    pub(crate) const fn has(self, _: Break) -> bool {
        false
    }
}
