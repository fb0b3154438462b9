//! What others ask of the deployer, and what it answers.

use pelton_core::ids::Version;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::driver::FailedVersion;

/// Requests that wait for the deployer, of each kind.
const WAITING_MAX: usize = 16;

/// Look at the consumer directory and do what follows, or only say what that would be.
pub struct Deploy {
    /// Only these consumers; empty: all.
    pub only: Vec<String>,
    /// Change nothing.
    pub plan: bool,
    /// Gets the answer.
    pub answer: oneshot::Sender<Report>,
}

/// Bring back a version that served before.
pub struct RollBack {
    /// Whose.
    pub consumer: String,
    /// The first digits of its digest; none: the version before.
    pub to: Option<String>,
    /// Gets the answer.
    pub answer: oneshot::Sender<Result<RolledBack, RollBackRefused>>,
}

/// What became of a request to deploy.
#[derive(Debug, Default)]
pub struct Report {
    /// Whether the consumer directory could be read; otherwise nothing was done.
    pub complete: bool,
    /// What is wrong with files there.
    pub problems: Vec<String>,
    /// What there was to do, by consumer.
    pub outcomes: Vec<Outcome>,
}

/// What there was to do for one consumer.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its name.
    pub consumer: String,
    /// What to do, in one word of the plan; none: nothing.
    pub step: Option<&'static str>,
    /// The version that served before.
    pub from: Option<Version>,
    /// The version that is wanted, if it is known.
    pub to: Option<Version>,
    /// What became of it.
    pub result: Verdict,
    /// Why it was refused or held back.
    pub reason: Option<String>,
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It would be done.
    Planned,
    /// It is done.
    Done,
    /// There was nothing to do.
    Unchanged,
    /// It can't be done as it is; what ran goes on.
    Refused,
    /// The version was taken back, and neither it nor its manifest has changed since.
    HeldBack,
}

impl Verdict {
    /// One word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Done => "done",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
            Self::HeldBack => "held-back",
        }
    }
}

/// A version was brought back.
#[derive(Clone, Copy, Debug)]
pub struct RolledBack {
    /// The version that served.
    pub from: Version,
    /// The version that serves.
    pub to: Version,
    /// Whether the next start will know of it.
    pub durable: bool,
}

/// Why no version was brought back.
#[derive(Debug, Error)]
pub enum RollBackRefused {
    /// It does not run.
    #[error("consumer {0:?} does not run: `pelton consumers` lists those that do")]
    NotRunning(String),
    /// There is none.
    #[error("consumer {0:?} has no version before the one that serves: deploy another one")]
    NoneBefore(String),
    /// No version that ever served begins so.
    #[error(
        "no version of consumer {consumer:?} that served begins with {digits:?}: `pelton versions {consumer}` lists them"
    )]
    Unknown {
        /// Whose.
        consumer: String,
        /// What was asked for.
        digits: String,
    },
    /// Several begin so.
    #[error("several versions of consumer {consumer:?} begin with {digits:?}: give more digits")]
    Ambiguous {
        /// Whose.
        consumer: String,
        /// What was asked for.
        digits: String,
    },
    /// It serves.
    #[error("version {version} of consumer {consumer:?} serves already")]
    Serves {
        /// Whose.
        consumer: String,
        /// Its first digits.
        version: String,
    },
    /// It no longer fits the manifest, or its bytes are gone.
    #[error("version {version} of consumer {consumer:?} can't serve again: {reason}")]
    CantServe {
        /// Whose.
        consumer: String,
        /// Its first digits.
        version: String,
        /// Why.
        reason: String,
    },
    /// Something broke on the way.
    #[error("consumer {consumer:?} could not be rolled back: {reason}")]
    Failed {
        /// Whose.
        consumer: String,
        /// What.
        reason: String,
    },
}

/// Where the deployer is asked.
#[derive(Clone)]
pub struct Desk {
    /// For deployments.
    pub deploys: mpsc::Sender<Deploy>,
    /// For rollbacks, which are served before deployments.
    pub roll_backs: mpsc::Sender<RollBack>,
}

/// The deployer's side.
pub struct Requests {
    pub(super) deploys: mpsc::Receiver<Deploy>,
    pub(super) urgent: Urgent,
}

/// What can't wait until a component is compiled.
pub(super) struct Urgent {
    roll_backs: mpsc::Receiver<RollBack>,
    failed: mpsc::Receiver<FailedVersion>,
}

/// Something that can't wait.
pub(super) enum Pressing {
    RollBack(RollBack),
    Failed(FailedVersion),
}

/// Something that was asked.
pub(super) enum Asked {
    Deploy(Deploy),
    Pressing(Pressing),
}

impl Desk {
    /// A desk, and the deployer's side of it; `failed` brings the versions that failed in their probation.
    #[must_use]
    pub fn open(failed: mpsc::Receiver<FailedVersion>) -> (Self, Requests) {
        let (deploys, for_deploys) = mpsc::channel(WAITING_MAX);
        let (roll_backs, for_roll_backs) = mpsc::channel(WAITING_MAX);
        let urgent = Urgent { roll_backs: for_roll_backs, failed };
        (Self { deploys, roll_backs }, Requests { deploys: for_deploys, urgent })
    }
}

impl Requests {
    /// The next request. Nothing is lost if it is not waited for to the end.
    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            biased;
            pressing = self.urgent.next() => Asked::Pressing(pressing),
            Some(deploy) = self.deploys.recv() => Asked::Deploy(deploy),
        }
    }
}

impl Urgent {
    /// The next one. Nothing is lost if it is not waited for to the end.
    pub(super) async fn next(&mut self) -> Pressing {
        tokio::select! {
            Some(failed) = self.failed.recv() => Pressing::Failed(failed),
            Some(roll_back) = self.roll_backs.recv() => Pressing::RollBack(roll_back),
            // Whoever could ask is gone: the host is on its way out.
            else => std::future::pending().await,
        }
    }
}
