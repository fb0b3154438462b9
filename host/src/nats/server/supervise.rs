//! The server's process: started, watched, started again, stopped; and the one that a killed host left behind.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::ServerError;
use super::files::Files;
use crate::nats::backoff::Backoff;

/// A large store takes its time to recover.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(10);
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// A server that ran this long was a sound one.
const SOUND_AFTER: Duration = Duration::from_secs(30);

/// Starts and watches the server.
pub(super) struct Runner {
    binary: PathBuf,
    files: Files,
    sync_always: bool,
    stop_timeout: Duration,
}

impl Runner {
    pub(super) fn new(binary: PathBuf, files: Files, sync_always: bool, stop_timeout: Duration) -> Self {
        Self { binary, files, sync_always, stop_timeout }
    }

    /// Starts the server and waits until it takes connections. Returns it with its port.
    pub(super) async fn launch(&mut self, port: u16) -> Result<(Child, u16), ServerError> {
        self.files.write_config(port, self.sync_always)?;
        let mut child = self.spawn()?;
        let pid = child.id().unwrap_or_default();
        // Before it is ready: a host that is killed now leaves it behind all the same.
        self.files.remember(pid, port)?;
        let began = Instant::now();
        loop {
            if let Some(port) = self.files.listening(&self.binary, pid) {
                self.files.remember(pid, port)?;
                tracing::info!(port, pid, "embedded nats server is ready");
                return Ok((child, port));
            }
            match timeout(LOOK_EVERY, child.wait()).await {
                Ok(Ok(status)) => return Err(self.not_started(format!("it ended with {status}"))),
                Ok(Err(error)) => return Err(self.not_started(error.to_string())),
                Err(_) if began.elapsed() > READY_TIMEOUT => {
                    return Err(self.not_started(format!("it was not ready within {} s", READY_TIMEOUT.as_secs())));
                }
                Err(_) => {}
            }
        }
    }

    fn spawn(&self) -> Result<Child, ServerError> {
        let log = self.open_log()?;
        let errors = log.try_clone().map_err(|source| ServerError::Files { path: self.files.log(), source })?;
        Command::new(&self.binary)
            .arg("--config")
            .arg(self.files.config())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| ServerError::Unusable {
                binary: self.binary.display().to_string(),
                reason: error.to_string(),
            })
    }

    fn open_log(&self) -> Result<File, ServerError> {
        let path = self.files.log();
        OpenOptions::new().create(true).append(true).open(&path).map_err(|source| ServerError::Files { path, source })
    }

    fn not_started(&self, reason: String) -> ServerError {
        self.files.forget();
        ServerError::NotStarted { reason, log: self.files.log(), tail: self.files.log_tail() }
    }

    /// Starts the server again whenever it ends, until it is told to stop it.
    pub(super) async fn watch(mut self, mut child: Child, port: u16, cancel: CancellationToken) {
        let mut backoff = Backoff::new(FIRST_DELAY, LONGEST_DELAY);
        loop {
            let began = Instant::now();
            tokio::select! {
                biased;
                () = cancel.cancelled() => return self.end(child).await,
                status = child.wait() => match status {
                    Ok(status) => tracing::warn!(%status, port, "embedded nats server ended, starting it again"),
                    Err(error) => tracing::warn!(%error, port, "embedded nats server can't be watched, starting it again"),
                },
            }
            if began.elapsed() > SOUND_AFTER {
                backoff.reset();
            }
            let Some(next) = cancel.run_until_cancelled(self.launch_again(port, &mut backoff)).await else {
                return self.files.forget();
            };
            child = next;
        }
    }

    async fn launch_again(&mut self, port: u16, backoff: &mut Backoff) -> Child {
        loop {
            sleep(backoff.delay()).await;
            match self.launch(port).await {
                Ok((child, _)) => return child,
                Err(error) => tracing::warn!(%error, "embedded nats server doesn't start, trying again"),
            }
        }
    }

    async fn end(&self, mut child: Child) {
        if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw)
            && let Err(error) = kill_process(pid, Signal::TERM)
        {
            tracing::warn!(%error, "can't signal the embedded nats server");
        }
        if timeout(self.stop_timeout, child.wait()).await.is_err() {
            tracing::warn!("embedded nats server doesn't stop and is killed");
            if let Err(error) = child.kill().await {
                tracing::warn!(%error, "can't kill the embedded nats server");
            }
        }
        self.files.forget();
    }
}

/// Stops the server that a killed host left running on this data directory.
pub(super) async fn end_left_behind(files: &Files, patience: Duration) -> Result<(), ServerError> {
    let Some(raw) = files.remembered_pid() else { return Ok(()) };
    let Some(pid) = Pid::from_raw(raw).filter(|_| is_ours(raw, &files.config())) else {
        files.forget();
        return Ok(());
    };
    tracing::info!(pid = raw, "stopping the nats server that an earlier host left behind");
    for signal in [Signal::TERM, Signal::KILL] {
        // It may have ended by itself in the meantime; whether it runs is looked at below.
        let _ = kill_process(pid, signal);
        let began = Instant::now();
        while began.elapsed() < patience {
            if test_kill_process(pid).is_err() || !is_ours(raw, &files.config()) {
                files.forget();
                return Ok(());
            }
            sleep(LOOK_EVERY).await;
        }
    }
    Err(ServerError::LeftBehind { pid: raw })
}

/// Whether the process is a server on our configuration file: a pid may long belong to somebody else.
fn is_ours(pid: i32, config: &Path) -> bool {
    let wanted = config.as_os_str().as_encoded_bytes();
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).or_else(|_| {
        let listed = std::process::Command::new("ps").args(["-o", "command=", "-p", &pid.to_string()]).output();
        listed.map(|output| output.stdout)
    });
    arguments.is_ok_and(|arguments| arguments.windows(wanted.len()).any(|window| window == wanted))
}
