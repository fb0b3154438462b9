//! `cargo xtask crash`: kills the host, and now and then the server, at random moments under load, and lets the checker say whether
//! anything was lost, doubled, reordered, left unpublished, or came out of nowhere.
//!
//! Two consumers run side by side: one on a stream with limits retention, where the host's own cursor says how far it is, and one on
//! a work-queue stream, where the acks do, so that an ack before the commit loses a message.

mod points;
mod rounds;

use serde::Serialize;

use crate::checker::Violations;

pub use points::points;
pub use rounds::rounds;

/// The deliberate breaks of a guarantee that the host can be built with.
pub const BREAKS: [&str; 4] = ["ack-before-commit", "no-dedup", "no-key-gate", "remove-before-puback"];

/// The places at which a host built for it can be made to die.
pub const POINTS: [&str; 8] = [
    "before-commit",
    "after-commit",
    "before-settle",
    "after-settle",
    "before-publish",
    "after-publish",
    "after-puback",
    "after-row-removal",
];

/// What to do.
#[derive(Clone, Debug)]
pub struct CrashOptions {
    /// How often the host is killed.
    pub rounds: u64,
    /// The seed of every random choice.
    pub seed: u64,
    /// A guarantee to break on purpose; the run ends at the first violation.
    pub broken: Option<String>,
}

/// How it went; printed as one line of JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CrashReport {
    /// Rounds done.
    pub rounds: u64,
    /// Messages published and acknowledged, repetitions not counted.
    pub messages: u64,
    /// What was wrong.
    #[serde(flatten)]
    pub violations: Violations,
    /// The seed to repeat it with.
    pub seed: u64,
}
