//! The host's configuration and the consumers' manifests: raw TOML becomes types that can't be wrong.
//!
//! All mistakes of a file are reported at once, each with a stable code, its place and the way out ([`Report`]). Fields that nobody
//! knows are refused. What the files hold is shown, with every default, in `host/config.example/`.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use pelton::config::{HostConfig, load_directory};
//!
//! let config = HostConfig::load(Path::new("pelton.toml"))?;
//! let (manifests, mistakes) = load_directory(&config.consumers);
//! eprint!("{mistakes}");
//! for manifest in manifests {
//!     println!("{} reads {}", manifest.name, manifest.subscription.stream);
//! }
//! # Ok::<(), pelton::config::Report>(())
//! ```

mod component;
mod directory;
mod effective;
mod host;
mod host_read;
mod manifest;
mod manifest_read;
mod reader;
mod report;
mod values;

#[cfg(test)]
mod tests;

pub use component::{ComponentSource, InvalidSource, ObjectSource, OciPick, OciSource};
pub use directory::load_directory;
pub use effective::{Setting, Source};
pub use host::{
    AdminConfig, AdminToken, Credentials, HostConfig, HostLimits, LogConfig, NatsConfig, NatsServer, OciConfig,
    OciLogin, StoreConfig, TOKEN_VARIABLE, TelemetryConfig,
};
pub use manifest::{
    DeployRules, IdSource, Key, Manifest, Payload, Retention, RunLimits, Start, StreamSpec, Subscription, VersionSource,
};
pub(crate) use reader::{article, suggestion};
pub use report::{Code, Place, Problem, Report};
pub use values::{InvalidPointer, JsonPointer};
