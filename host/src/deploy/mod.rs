//! Deployment: what the consumer directory says becomes what runs. Start and reload are one path.

mod change;
mod declare;
mod deployer;
mod forms;
mod look;
mod outcome;
mod prepare;
mod refused;
mod rehearse;
mod request;
mod resolve;
mod rollback;
mod watch;

pub use deployer::{Applied, Dependencies, Deployer, RETRY_AFTER};
pub(crate) use forms::{load_terms, rules};
pub use request::{Deploy, Desk, Outcome, Report, Requests, RollBack, RollBackRefused, RolledBack, Verdict};
pub use watch::{WatchError, Watched, Watcher};
