//! What `pelton.toml` says: the host's own settings.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::effective::{self, Setting};
use super::host_read;
use super::reader::{self, Context};
use super::report::Report;
use crate::telemetry::Format;

/// The environment variable that wins over `nats.server_binary`.
pub(super) const SERVER_VARIABLE: &str = "PELTON_NATS_SERVER";
/// The environment variable that wins over `admin.token_file`: the token itself.
pub const TOKEN_VARIABLE: &str = "PELTON_ADMIN_TOKEN";

/// The host's configuration. Paths are relative to the working directory or absolute, no longer relative to the file.
#[derive(Clone, Debug, PartialEq)]
pub struct HostConfig {
    /// The file that it was read from.
    pub file: PathBuf,
    /// The broker.
    pub nats: NatsConfig,
    /// The data directory.
    pub store: StoreConfig,
    /// The directory with one manifest for each consumer.
    pub consumers: PathBuf,
    /// Whether changes there are applied as they come; otherwise at the start and when `pelton deploy` asks.
    pub watch: bool,
    /// The admin server; none: there is none.
    pub admin: Option<AdminConfig>,
    /// Limits of the host as a whole.
    pub limits: HostLimits,
    /// The log.
    pub log: LogConfig,
    /// Traces.
    pub telemetry: TelemetryConfig,
    /// How registries of components are asked.
    pub oci: OciConfig,
}

/// `[oci]`: how registries of components are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciConfig {
    /// Who the host is to one registry.
    pub login: Option<OciLogin>,
    /// Logins for any number of registries, as `docker login` writes them. None: where docker has it, if it is there.
    pub docker_config: Option<PathBuf>,
    /// Registries that are asked without TLS: hosts, with a port or for all of them.
    pub insecure: Vec<String>,
    /// More authorities to trust, as PEM.
    pub ca_file: Option<PathBuf>,
    /// How long one try to fetch a component may take, in milliseconds. 100 to 3,600,000.
    pub fetch_timeout_ms: u64,
}

impl Default for OciConfig {
    fn default() -> Self {
        Self {
            login: None,
            docker_config: None,
            insecure: ["localhost", "127.0.0.1", "[::1]"].map(Into::into).into(),
            ca_file: None,
            fetch_timeout_ms: 60_000,
        }
    }
}

/// Who the host is to one registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciLogin {
    /// The registry: its host, and its port if that is not the usual one.
    pub registry: String,
    /// The user.
    pub user: String,
    /// The file with the password, or with a token that is taken for one.
    pub password_file: PathBuf,
}

/// `[nats]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsConfig {
    /// Which server.
    pub server: NatsServer,
    /// How the host shows who it is.
    pub credentials: Credentials,
}

/// The server that the host talks to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NatsServer {
    /// One that runs already.
    External {
        /// Its URLs, or those of several servers of a cluster; at least one.
        urls: Vec<String>,
    },
    /// A child of the host, with JetStream in the data directory.
    Embedded {
        /// The server's program: a path, or a name to be looked up on `PATH`.
        binary: PathBuf,
        /// Its port on loopback; 0 is any free port.
        port: u16,
    },
}

/// How the host shows who it is. Secrets stay in files, so that a configuration can be shown and kept anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// The server lets anyone in.
    None,
    /// `credentials_file`: a JWT and its seed, as `nsc` writes them.
    CredsFile(PathBuf),
    /// `nkey_seed_file`: the seed of an NKey.
    NkeySeedFile(PathBuf),
    /// `token_file`: a token.
    TokenFile(PathBuf),
    /// `user` and `password_file`.
    UserPassword {
        /// The user.
        user: String,
        /// The file with the password.
        password_file: PathBuf,
    },
}

/// `[admin]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where it listens; port 0 is any free port. An address that others can reach has a token.
    pub address: SocketAddr,
    /// What every request has to show.
    pub token: AdminToken,
}

/// Where the admin server's token is. Never the token itself, so that a configuration can be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminToken {
    /// Nobody is asked for one: only this machine can reach the address.
    None,
    /// `token_file`.
    File(PathBuf),
    /// The environment variable [`TOKEN_VARIABLE`].
    Environment,
}

/// `[store]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// The data directory: commit log, view, lock, and the embedded server's streams.
    pub path: PathBuf,
    /// Memory for what is kept of the view, in bytes: its page cache and filters of processed ids. 1 MiB to 64 GiB.
    pub cache_bytes: usize,
    /// What may be executed and not yet folded into the view, in bytes; pulls wait at it. A checkpoint begins when half of it is in memory, or half of it was
    /// appended to the commit log. 1 MiB to 16 GiB.
    pub overlay_bytes_max: usize,
    /// Bytes that have to be free on the data directory's disk, else nothing new is begun; 0: nobody looks. At most 1 TiB.
    pub free_bytes_min: u64,
    /// Longest time between two checkpoints, in milliseconds. 100 to 3,600,000.
    pub checkpoint_interval_ms: u64,
    /// How long the ids of processed messages are remembered, in hours. 24 to 8,760.
    pub processed_ids_hours: u64,
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostLimits {
    /// Threads that run plug-ins; 0 is one for each core. At most 64.
    pub executor_threads: usize,
    /// Events published and not yet acknowledged by JetStream. 1 to 65,536.
    pub relay_in_flight_max: usize,
    /// Largest component, in bytes. 64 KiB to 1 GiB.
    pub component_bytes_max: usize,
    /// How long a graceful stop may take, in milliseconds. At most 600,000.
    pub drain_ms: u64,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// What is logged. The environment variable `PELTON_LOG` wins over it.
    pub filter: String,
    /// In which form.
    pub format: Format,
}

/// `[telemetry]`
#[derive(Clone, Debug, PartialEq)]
pub struct TelemetryConfig {
    /// The base URL of the collector that traces are sent to; none: the environment names one, or there are no traces.
    pub otlp_endpoint: Option<String>,
    /// The part of traces that is recorded, of those that begin here. 0 to 1.
    pub sample_ratio: f64,
}

impl HostConfig {
    /// Reads and checks the host's configuration; files with credentials must be there. The environment variables
    /// `PELTON_NATS_SERVER` and `PELTON_ADMIN_TOKEN` win over `nats.server_binary` and `admin.token_file`.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn load(file: &Path) -> Result<Self, Report> {
        Self::load_settings(file).map(|(config, _)| config)
    }

    /// The same, and all settings one by one with where each value is from.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn load_settings(file: &Path) -> Result<(Self, Vec<Setting>), Report> {
        let text = reader::read_file(file, "name the host's configuration with --config FILE")?;
        let given = |name| std::env::var_os(name).filter(|given| !given.is_empty());
        let token_given = given(TOKEN_VARIABLE).is_some();
        let context = Context::new(file, &text);
        let mut config = host_read::read(&context, token_given);
        let mut from_environment = Vec::new();
        if let Some(NatsServer::Embedded { binary, .. }) = config.as_mut().map(|config| &mut config.nats.server)
            && let Some(given) = given(SERVER_VARIABLE)
        {
            *binary = given.into();
            from_environment.push(("nats.server_binary", SERVER_VARIABLE, binary.display().to_string().into()));
        }
        if config.as_ref().is_some_and(|config| config.admin.is_some()) && token_given {
            from_environment.push(("admin.token", TOKEN_VARIABLE, "(secret)".into()));
        }
        let settings = effective::of_host(&context, &from_environment);
        let report = context.into_report();
        let config = config.filter(|_| report.is_empty()).ok_or(report)?;
        Ok((config, settings))
    }

    #[cfg(test)]
    pub(super) fn parse(file: &Path, text: &str) -> Result<Self, Report> {
        let context = Context::new(file, text);
        let config = host_read::read(&context, false);
        let report = context.into_report();
        config.filter(|_| report.is_empty()).ok_or(report)
    }
}
