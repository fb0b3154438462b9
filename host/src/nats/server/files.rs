//! What the embedded server has in the data directory: its configuration (written anew at each start), its streams, its log, its pid, and its port.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::Deserialize;

use super::ServerError;

/// Longest part of the log that an error shows, in bytes.
const TAIL_BYTES_MAX: usize = 2_000;
/// Past this the log is begun anew at the next start of the host; one older one is kept.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Paths below `DATA/nats`, all absolute.
#[derive(Clone, Debug)]
pub(super) struct Files {
    directory: PathBuf,
}

/// The one that nats-server writes once it listens.
#[derive(Deserialize)]
struct PortsFile {
    #[serde(default)]
    nats: Vec<String>,
}

impl Files {
    pub(super) fn prepare(data_directory: &Path) -> Result<Self, ServerError> {
        let directory = data_directory.join("nats");
        let failed = |source| ServerError::Files { path: directory.clone(), source };
        fs::create_dir_all(directory.join("ports")).map_err(failed)?;
        fs::create_dir_all(directory.join("jetstream")).map_err(failed)?;
        let files = Self { directory: directory.canonicalize().map_err(failed)? };
        if fs::metadata(files.log()).is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
            fs::rename(files.log(), files.log().with_extension("log.1")).map_err(failed)?;
        }
        Ok(files)
    }

    pub(super) fn config(&self) -> PathBuf {
        self.directory.join("nats-server.conf")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.directory.join("nats-server.log")
    }

    fn pid(&self) -> PathBuf {
        self.directory.join("nats-server.pid")
    }

    fn last_port(&self) -> PathBuf {
        self.directory.join("nats-server.port")
    }

    /// Where the server with this pid says which port it got.
    fn ports(&self, binary: &Path, pid: u32) -> PathBuf {
        let program = binary.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.directory.join("ports").join(format!("{program}_{pid}.ports"))
    }

    /// Writes the configuration. Port 0 lets the server take a free one.
    pub(super) fn write_config(&self, port: u16, sync_always: bool) -> Result<(), ServerError> {
        let listen = if port == 0 { -1 } else { i32::from(port) };
        let text = format!(
            "# Written by pelton at every start of its embedded server; changes are lost.\n\
             server_name: \"pelton-embedded\"\n\
             listen: \"127.0.0.1:{listen}\"\n\
             ports_file_dir: {ports}\n\
             log_file: {log}\n\
             jetstream {{\n  store_dir: {store}\n{sync}}}\n",
            ports = quoted(&self.directory.join("ports")),
            log = quoted(&self.log()),
            store = quoted(&self.directory.join("jetstream")),
            sync = if sync_always { "  sync_interval: always\n" } else { "" },
        );
        self.write(&self.config(), &text)
    }

    /// The configured port, else the one of last time if it is free, else 0.
    pub(super) fn choose_port(&self, configured: u16) -> u16 {
        if configured != 0 {
            return configured;
        }
        let last = fs::read_to_string(self.last_port()).ok().and_then(|text| text.trim().parse().ok());
        last.filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).unwrap_or(0)
    }

    /// The port on which the server with this pid takes connections; none as long as it doesn't.
    pub(super) fn listening(&self, binary: &Path, pid: u32) -> Option<u16> {
        let text = fs::read(self.ports(binary, pid)).ok()?;
        // Half-written: not yet.
        let ports: PortsFile = serde_json::from_slice(&text).ok()?;
        ports.nats.iter().find_map(|url| url.rsplit(':').next()?.parse().ok())
    }

    /// Remembers a server for the next start of the host.
    pub(super) fn remember(&self, pid: u32, port: u16) -> Result<(), ServerError> {
        self.write(&self.pid(), &pid.to_string())?;
        self.write(&self.last_port(), &port.to_string())
    }

    /// The pid of the server that was last remembered.
    pub(super) fn remembered_pid(&self) -> Option<i32> {
        fs::read_to_string(self.pid()).ok()?.trim().parse().ok().filter(|pid| *pid > 1)
    }

    /// The server has ended.
    pub(super) fn forget(&self) {
        let file = self.pid();
        if let Err(error) = fs::remove_file(&file)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %file.display(), %error, "can't remove the pid file of nats-server");
        }
    }

    /// The last lines of the log.
    pub(super) fn log_tail(&self) -> String {
        let text = fs::read(self.log()).unwrap_or_default();
        let tail = text.get(text.len().saturating_sub(TAIL_BYTES_MAX)..).unwrap_or_default();
        String::from_utf8_lossy(tail).into_owned()
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), ServerError> {
        fs::write(path, text).map_err(|source| ServerError::Files { path: path.to_path_buf(), source })
    }
}

/// A string of nats-server's configuration language.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('\\', "\\\\").replace('"', "\\\""))
}
