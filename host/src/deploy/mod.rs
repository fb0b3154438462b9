//! Deployment: what the consumer directory says becomes what runs. Start and reload are one path.

mod deployer;
mod forms;
mod watch;

pub use deployer::{Dependencies, Deployer};
pub use watch::{WatchError, Watcher};
