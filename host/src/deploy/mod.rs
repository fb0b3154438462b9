//! Deployment: what the consumer directory says becomes what runs. Start and reload are one path.

mod declare;
mod deployer;
mod forms;
mod look;
mod refused;
mod watch;

pub use deployer::{Applied, Dependencies, Deployer, RETRY_AFTER};
pub(crate) use forms::{load_terms, rules};
pub use watch::{WatchError, Watched, Watcher};
