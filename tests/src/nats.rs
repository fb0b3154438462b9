//! A nats-server of one's own: a child on a free loopback port, its streams in a temporary directory.
//!
//! It can be killed, frozen and started again on the same port over the same streams, as a broker in the field would come back.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::client::Client;
use crate::process::{Process, tail};
use crate::{tools, wait};

/// How long a server may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(20);

/// How a server is set up.
#[derive(Clone, Debug, Default)]
pub struct NatsOptions {
    /// Every stored message is synced before it is acknowledged, so that a killed *machine* would lose none.
    pub sync_always: bool,
    /// More of the server's own configuration format: accounts, limits.
    pub extra: String,
    /// User and password with which the harness itself connects, if `extra` asks for any.
    pub login: Option<(String, String)>,
}

/// A running server. Dropped, it is killed and its streams are deleted.
#[derive(Debug)]
pub struct NatsServer {
    process: Option<Process>,
    directory: TempDir,
    options: NatsOptions,
    port: u16,
}

impl NatsServer {
    /// Starts a server with JetStream and waits until it answers.
    ///
    /// # Errors
    /// There is no server binary, or it does not come up.
    pub async fn start() -> Result<Self> {
        Self::with(NatsOptions::default()).await
    }

    /// Starts a server with options.
    ///
    /// # Errors
    /// There is no server binary, or it does not come up.
    pub async fn with(options: NatsOptions) -> Result<Self> {
        let mut server = Self::stopped(options)?;
        server.start_again().await?;
        Ok(server)
    }

    /// A server that has its port, but does not run yet.
    ///
    /// # Errors
    /// Of the file system, or no port is free.
    pub fn stopped(options: NatsOptions) -> Result<Self> {
        let directory = TempDir::with_prefix("pelton-nats-")?;
        Ok(Self { process: None, directory, options, port: free_port()? })
    }

    /// Where clients connect.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Where clients connect, on the loopback interface.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it keeps a stream.
    #[must_use]
    pub fn stream_directory(&self, stream: &str) -> PathBuf {
        self.directory.path().join("streams/jetstream/$G/streams").join(stream)
    }

    /// The running server's process id.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Where the server keeps a stream, for who sets it back while the server is stopped.
    #[must_use]
    pub fn stream_path(&self, stream: &str) -> PathBuf {
        self.directory.path().join("streams/jetstream/$G/streams").join(stream)
    }

    /// A client of the harness's own.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn client(&self) -> Result<Client> {
        Client::connect(&self.url(), self.options.login.as_ref()).await
    }

    /// Starts the server on its port, over the streams that it left.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn start_again(&mut self) -> Result<()> {
        let config = self.directory.path().join("nats.conf");
        fs::write(&config, self.config()).context("can't write the server's configuration")?;
        let mut command = Command::new(tools::nats_server()?);
        command.arg("--config").arg(&config);
        let log = self.log_path();
        let process = self.process.insert(Process::spawn("nats-server", &mut command, &log)?);
        let (port, what) = (self.port, format!("nats-server answers on port {}", self.port));
        let up = wait::until(&what, START_LIMIT, || {
            let ended = process.exited();
            async move {
                if let Some(status) = ended? {
                    bail!("nats-server ended with {status}");
                }
                Ok(tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok())
            }
        });
        up.await.with_context(|| format!("nats-server's log:\n{}", tail(&log, 30)))?;
        Ok(())
    }

    /// SIGKILL: nothing is flushed that was not.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), |mut process| process.kill())
    }

    /// Stops it the proper way.
    ///
    /// # Errors
    /// It does not end in time.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::TERM)?;
            process.wait(START_LIMIT).await?;
        }
        Ok(())
    }

    /// SIGSTOP: connections stay open and nothing answers.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn freeze(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), |process| process.signal(Signal::STOP))
    }

    /// SIGCONT: goes on as if no time had passed.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn thaw(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), |process| process.signal(Signal::CONT))
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("nats.log")
    }

    fn config(&self) -> String {
        let store = self.directory.path().join("streams");
        let sync = if self.options.sync_always { "sync_interval: always" } else { "" };
        format!(
            "listen: \"127.0.0.1:{}\"\njetstream {{\n  store_dir: \"{}\"\n  {sync}\n}}\n{}\n",
            self.port,
            store.display(),
            self.options.extra
        )
    }
}

/// A loopback port that nobody listens on now.
///
/// # Errors
/// None is free.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on the loopback interface")?;
    Ok(listener.local_addr()?.port())
}
