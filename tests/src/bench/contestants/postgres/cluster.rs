//! A PostgreSQL server of one's own: in a temporary directory, on a loopback port, ended with the value.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use super::TABLES;
use crate::bench::meter::Meter;
use crate::nats::free_port;
use crate::process::{Process, tail};
use crate::{tools, wait};

/// Where Debian keeps the programs of each version, in folders that are named by it.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The database's superuser.
const USER: &str = "pelton";

/// PostgreSQL does not run as root; then this user, who owns nothing, runs it.
const NOBODY: u32 = 65_534;

/// How long the server may take to start or to stop.
const LIMIT: Duration = Duration::from_secs(30);

/// A running server. Dropped, it is stopped and its directory deleted.
pub(crate) struct Cluster {
    process: Process,
    port: u16,
    version: String,
    _directory: TempDir,
}

impl Cluster {
    /// The programs of a PostgreSQL server, if there is one: on PATH, or where Debian keeps them.
    pub(crate) fn find() -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let on_path = std::env::split_paths(&path).filter_map(|folder| folder.join("postgres").canonicalize().ok());
        let on_path = on_path.filter_map(|program| program.parent().map(Path::to_path_buf));
        let mut versions: Vec<PathBuf> =
            std::fs::read_dir(DEBIAN).into_iter().flatten().flatten().map(|e| e.path()).collect();
        let number = |folder: &PathBuf| folder.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
        versions.sort_by_key(|folder| std::cmp::Reverse(number(folder)));
        let debian = versions.into_iter().map(|folder| folder.join("bin"));
        on_path.chain(debian).find(|folder| folder.join("postgres").is_file() && folder.join("initdb").is_file())
    }

    /// Makes a new cluster with the programs in this folder, and starts it.
    ///
    /// # Errors
    /// It does not come up.
    pub(crate) async fn start(programs: &Path) -> Result<Self> {
        let directory = TempDir::with_prefix("pelton-postgres-")?;
        let as_root = rustix::process::getuid().is_root();
        if as_root {
            chown(directory.path(), Some(NOBODY), Some(NOBODY)).context("giving a directory to PostgreSQL")?;
        }
        let command = |program: &str| {
            let mut command = Command::new(programs.join(program));
            command.current_dir(directory.path()).env_clear().env("PATH", programs).env("TZ", "UTC");
            if as_root {
                command.uid(NOBODY).gid(NOBODY);
            }
            command
        };
        let data = directory.path().join("data");
        let mut initdb = command("initdb");
        initdb.args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--username", USER, "--pgdata"]);
        tools::run("making a PostgreSQL cluster", initdb.arg(&data))?;
        let version = tools::run("asking PostgreSQL for its version", command("postgres").arg("--version"))?;
        let port = free_port()?;
        let mut server = command("postgres");
        server.arg("-D").arg(&data).args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
        server.args(["-c", "unix_socket_directories="]);
        let log = directory.path().join("log");
        let process = Process::spawn("postgres", &mut server, &log)?;
        let mut cluster = Self { process, port, version: version.trim().to_owned(), _directory: directory };
        cluster.wait_up().await.with_context(|| format!("PostgreSQL's log:\n{}", tail(&log, 30)))?;
        Ok(cluster)
    }

    async fn wait_up(&mut self) -> Result<()> {
        let port = self.port;
        let process = &mut self.process;
        wait::until("PostgreSQL answers", LIMIT, || {
            let ended = process.exited();
            async move {
                anyhow::ensure!(ended?.is_none(), "PostgreSQL has ended");
                Ok(connect(port).await.ok().map(|_| ()))
            }
        })
        .await
    }

    /// What it says of itself.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Where it listens, on the loopback interface.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Makes the tables anew, so that nothing is left of a run before.
    ///
    /// # Errors
    /// The server refuses.
    pub(crate) async fn clear(&self) -> Result<()> {
        let database = connect(self.port).await?;
        let drop = "DROP TABLE IF EXISTS processed, state, outbox;";
        database.batch_execute(&format!("{drop}{TABLES}")).await.context("making the tables")
    }

    /// CPU time and bytes written of all its processes that run now.
    ///
    /// # Errors
    /// It does not run.
    pub(crate) fn meter(&self) -> Result<Meter> {
        Meter::of_family(self.process.pid())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The fast shutdown, which also gives its shared memory back; killed, it would leave that behind.
        let asked = self.process.signal(Signal::INT);
        let deadline = Instant::now() + LIMIT;
        while asked.is_ok() && Instant::now() < deadline && matches!(self.process.exited(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A connection; its other half lives in a task until the server ends it.
pub(super) async fn connect(port: u16) -> Result<Client> {
    let settings = format!("host=127.0.0.1 port={port} user={USER} dbname=postgres");
    let (client, connection) = tokio_postgres::connect(&settings, NoTls).await.context("connecting to PostgreSQL")?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            eprintln!("the connection to PostgreSQL has ended: {error}");
        }
    });
    Ok(client)
}
