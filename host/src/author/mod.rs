//! What a plug-in's author works with: make a plug-in, build it, run one message without a broker, and run its cases.
//!
//! Everything here goes through the real sandbox and the real transaction, over state that is held in memory for one attempt. Nothing here is
//! ever part of a running host.

mod bench;
mod build;
mod cases;
mod dev;
mod diff;
mod effects;
mod entries;
mod expect;
mod fields;
mod invoke;
mod memory;
mod message;
mod print;
mod project;
mod template;
mod testing;
mod watch;

pub use build::build;
pub use dev::dev;
pub use effects::Effects;
pub use expect::Difference;
pub use invoke::{Given, invoke};
pub use message::Described;
pub use template::{Created, LANGUAGES, NewOptions, create};
pub use testing::{CaseResult, TestOptions, TestReport, test};

/// What an author gave can't be used: the text names the thing, and the way out.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadInput(pub(crate) String);
