//! A host of one's own: the real binary over a temporary directory with its configuration, consumers and data.
//!
//! The directory outlives the process, so that a test can kill the host and start it again over what it left.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::client::Client;
use crate::http::{Answer, Ask};
use crate::manifest::Manifest;
use crate::process::{Process, Usage, children_of, signal_pid, tail};
use crate::tools::{self, HostBuild};
use crate::wait;

/// How long a host may take until it is ready.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// Lines of the log that are shown when something goes wrong.
const LOG_LINES_SHOWN: usize = 80;

/// How a host is set up.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// Which binary.
    pub build: HostBuild,
    /// The lines below `[nats]`.
    pub nats: String,
    /// More of `pelton.toml`: sections `[store]` (its `path` stays the default), `[limits]`, `[log]`.
    pub extra: String,
    /// The token that its admin server wants.
    pub token: Option<String>,
    /// Environment variables.
    pub environment: Vec<(String, String)>,
    /// Show the log when the host is dropped: the test runner keeps it back unless the test failed.
    pub show_log: bool,
}

impl HostOptions {
    /// The ordinary host on a server at `url`.
    #[must_use]
    pub fn on(url: &str) -> Self {
        Self {
            build: HostBuild::Normal,
            nats: format!("url = \"{url}\""),
            extra: String::new(),
            token: None,
            environment: Vec::new(),
            show_log: true,
        }
    }

    /// The ordinary host with a server of its own.
    #[must_use]
    pub fn embedded() -> Self {
        Self { nats: "embedded = true".to_owned(), ..Self::on("") }
    }

    /// The same with an admin server that wants this token.
    #[must_use]
    pub fn token(self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self }
    }

    /// The same with more lines in `pelton.toml`.
    #[must_use]
    pub fn extra(mut self, lines: &str) -> Self {
        self.extra.push_str(lines);
        self.extra.push('\n');
        self
    }
}

/// A host's directory, and the host if it runs. Dropped, the process is killed and the directory deleted.
#[derive(Debug)]
pub struct Host {
    directory: TempDir,
    binary: PathBuf,
    options: HostOptions,
    process: Option<Process>,
    /// The program, with its arguments, that starts the host; none: it is started directly.
    launcher: Vec<String>,
    /// Servers that the host has started as children: they survive its SIGKILL, so they are remembered here.
    helpers: Vec<u32>,
}

impl Host {
    /// Lays out a directory with no consumers. Nothing is started.
    ///
    /// # Errors
    /// The host can't be built, or the file system refuses.
    pub fn prepare(options: HostOptions) -> Result<Self> {
        let directory = TempDir::with_prefix("pelton-host-")?;
        fs::create_dir(directory.path().join("consumers"))?;
        let host = Self {
            binary: tools::host(options.build)?,
            directory,
            options,
            process: None,
            launcher: Vec::new(),
            helpers: Vec::new(),
        };
        host.write_config()?;
        Ok(host)
    }

    fn write_config(&self) -> Result<()> {
        let options = &self.options;
        let mut admin = "address = \"127.0.0.1:0\"".to_owned();
        if let Some(token) = &options.token {
            self.write("admin.token", token.as_bytes())?;
            admin.push_str("\ntoken_file = \"admin.token\"");
        }
        let text = format!("[nats]\n{}\n\n[admin]\n{admin}\n\n{}\n", options.nats, options.extra);
        self.write("pelton.toml", text.as_bytes())
    }

    /// Replaces the lines below `[nats]`, for the next start.
    ///
    /// # Errors
    /// Of the file system.
    pub fn set_nats(&mut self, lines: &str) -> Result<()> {
        lines.clone_into(&mut self.options.nats);
        self.write_config()
    }

    /// Replaces the environment variables, for the next start.
    pub fn set_environment(&mut self, environment: &[(&str, &str)]) {
        let owned = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.options.environment = owned.collect();
    }

    /// Adds an environment variable, for the next start.
    pub fn add_environment(&mut self, name: &str, value: &str) {
        self.options.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Has the host started by another program, which is given these arguments and then the host's command line. It must leave the host its
    /// process id.
    pub fn set_launcher(&mut self, launcher: &[&str]) {
        self.launcher = launcher.iter().map(|&word| word.to_owned()).collect();
    }

    /// A path below the directory.
    #[must_use]
    pub fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join(below)
    }

    /// Writes a file below the directory in one step, so that a watching host never sees half of it.
    ///
    /// # Errors
    /// Of the file system.
    pub fn write(&self, below: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path(below);
        let beside = path.with_extension("written");
        fs::write(&beside, bytes).with_context(|| format!("can't write {}", beside.display()))?;
        fs::rename(&beside, &path).with_context(|| format!("can't write {}", path.display()))
    }

    /// Puts a component into the consumers' directory as `NAME.wasm`, replacing one of that name in one step.
    ///
    /// # Errors
    /// Of the file system.
    pub fn component(&self, name: &str, from: &Path) -> Result<()> {
        tools::replace_file(from, &self.path(&format!("consumers/{name}.wasm")))
    }

    /// Puts a guest's component into the consumers' directory, under the guest's name.
    ///
    /// # Errors
    /// The guest can't be built, or the file system refuses.
    pub fn guest(&self, name: &str) -> Result<()> {
        self.component(name, &tools::guest(name)?)
    }

    /// Writes the manifest of a consumer.
    ///
    /// # Errors
    /// Of the file system.
    pub fn manifest(&self, consumer: &str, manifest: &Manifest) -> Result<()> {
        self.write(&format!("consumers/{consumer}.toml"), manifest.text().as_bytes())
    }

    /// Takes the manifest of a consumer from an example, changed in one thing: the component is `CONSUMER.wasm` beside it.
    ///
    /// # Errors
    /// There is none, or it names no component.
    pub fn example_manifest(&self, example: &str, consumer: &str) -> Result<()> {
        let path = tools::root().join(example).join("consumers").join(format!("{consumer}.toml"));
        let text = fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
        let line = text.lines().find(|line| line.starts_with("component ="));
        let line = line.with_context(|| format!("{} names no component", path.display()))?;
        let changed = text.replace(line, &format!("component = \"{consumer}.wasm\""));
        self.write(&format!("consumers/{consumer}.toml"), changed.as_bytes())
    }

    /// Removes the manifest of a consumer.
    ///
    /// # Errors
    /// There is none.
    pub fn remove_manifest(&self, consumer: &str) -> Result<()> {
        Ok(fs::remove_file(self.path(&format!("consumers/{consumer}.toml")))?)
    }

    /// Starts the host without waiting for anything.
    ///
    /// # Errors
    /// The binary can't be started.
    pub fn spawn(&mut self) -> Result<()> {
        // A stale address of a killed host would be asked in vain.
        let _ = fs::remove_file(self.address_file());
        let mut command = match self.launcher.split_first() {
            None => self.command(&self.binary),
            Some((program, arguments)) => {
                let mut command = self.command(Path::new(program));
                command.args(arguments).arg(&self.binary);
                command
            }
        };
        command.arg("run").arg("--config").arg(self.path("pelton.toml"));
        self.process = Some(Process::spawn("pelton", &mut command, &self.log_path())?);
        Ok(())
    }

    /// Starts the host and waits until it is ready.
    ///
    /// # Errors
    /// It ends, or is not ready in time; the error carries its log.
    pub async fn start(&mut self) -> Result<()> {
        self.spawn()?;
        self.ready().await
    }

    /// Waits until the host is ready.
    ///
    /// # Errors
    /// It ends, or is not ready in time; the error carries its log.
    pub async fn ready(&mut self) -> Result<()> {
        let waiting = wait::until("the host is ready", READY_LIMIT, || {
            let ended = self.exited();
            let (address, ask) = (self.address_file(), self.ask("/readyz"));
            async move {
                if let Some(status) = ended? {
                    bail!("the host ended with {status}");
                }
                let Ok(address) = fs::read_to_string(address) else { return Ok(None) };
                Ok(ask.send(&address).await.ok().filter(|answer| answer.status == 200).map(|_| ()))
            }
        });
        let outcome = waiting.await;
        self.remember_helpers();
        outcome.with_context(|| format!("the host's log:\n{}", self.log_tail()))
    }

    fn remember_helpers(&mut self) {
        if let Some(process) = &self.process {
            self.helpers.extend(children_of(process.pid()));
        }
        let written = fs::read_to_string(self.path("data/nats/nats-server.pid"));
        self.helpers.extend(written.ok().and_then(|pid| pid.trim().parse::<u32>().ok()));
    }

    /// The running host's process id.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// The processes that the host has started: the embedded server.
    #[must_use]
    pub fn children(&self) -> Vec<u32> {
        self.pid().map(children_of).unwrap_or_default()
    }

    /// A client of the server that the host has started.
    ///
    /// # Errors
    /// There is none, or it does not answer.
    pub async fn embedded_client(&self) -> Result<Client> {
        Client::connect(&self.embedded_url()?, None).await
    }

    /// Where the server listens that the host has started.
    ///
    /// # Errors
    /// There is none.
    pub fn embedded_url(&self) -> Result<String> {
        let written = fs::read_to_string(self.path("data/nats/nats-server.port"));
        let port = written.context("the host has no server of its own")?;
        Ok(format!("nats://127.0.0.1:{}", port.trim()))
    }

    /// The exit status, if the host has ended.
    ///
    /// # Errors
    /// It was never started.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        self.process.as_mut().context("the host was never started")?.exited()
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.remember_helpers();
        self.process.take().map_or(Ok(()), |mut process| process.kill())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.as_mut().context("the host does not run")?.signal(signal)
    }

    /// Waits until the host has ended.
    ///
    /// # Errors
    /// It is still running after `limit`; the error carries its log.
    pub async fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        let process = self.process.as_mut().context("the host does not run")?;
        let outcome = process.wait(limit).await;
        outcome.with_context(|| format!("the host's log:\n{}", self.log_tail()))
    }

    /// SIGTERM, and the status with which it ends.
    ///
    /// # Errors
    /// It does not end within half a minute.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let status = self.wait_exit(Duration::from_secs(30)).await?;
        self.process = None;
        Ok(status)
    }

    /// Runs another command of the binary, for example `check`, over this directory.
    ///
    /// # Errors
    /// The binary can't be started.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.command(&self.binary);
        command.args(arguments).arg("--config").arg(self.path("pelton.toml"));
        command.output().context("can't start pelton")
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.directory.path()).env("NO_COLOR", "1").env_remove("PELTON_LOG");
        if let Ok(server) = tools::nats_server() {
            command.env("PELTON_NATS_SERVER", server);
        }
        command.envs(self.options.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Asks the admin address.
    ///
    /// # Errors
    /// The host does not answer.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.ask(path).send(&self.address()?).await
    }

    /// Where the admin server listens.
    ///
    /// # Errors
    /// The host has not said so.
    pub fn address(&self) -> Result<String> {
        fs::read_to_string(self.address_file()).context("the host has not written its admin address")
    }

    /// A request to the admin server, with the token that the host wants.
    #[must_use]
    pub fn ask(&self, path: &str) -> Ask {
        let ask = Ask::get(path);
        self.options.token.iter().fold(ask, |ask, token| ask.token(token))
    }

    /// What `/status` tells.
    ///
    /// # Errors
    /// The host does not answer with JSON.
    pub async fn status(&self) -> Result<Value> {
        let answer = self.get("/status").await?;
        serde_json::from_str(&answer.body).with_context(|| format!("/status is no JSON: {}", answer.body))
    }

    /// A consumer's part of `/status`; null if there is none of this name.
    ///
    /// # Errors
    /// The host does not answer with JSON.
    pub async fn consumer_status(&self, consumer: &str) -> Result<Value> {
        let status = self.status().await?;
        let all = status.get("consumers").and_then(Value::as_array).cloned().unwrap_or_default();
        Ok(all.into_iter().find(|entry| entry["name"] == consumer).unwrap_or_default())
    }

    /// The dead letters of a consumer.
    ///
    /// # Errors
    /// The host does not answer with a list.
    pub async fn dead_letters(&self, consumer: &str) -> Result<Vec<Value>> {
        let answer = self.get(&format!("/dead-letters?consumer={consumer}&limit=1000")).await?;
        serde_json::from_str(&answer.body).with_context(|| format!("/dead-letters is no JSON list: {}", answer.body))
    }

    /// Waits until a consumer has this many dead letters, and gives them.
    ///
    /// # Errors
    /// It has not within `limit`; the error carries the host's log.
    pub async fn wait_dead_letters(&self, consumer: &str, count: usize, limit: Duration) -> Result<Vec<Value>> {
        let what = format!("consumer {consumer} has {count} dead letters");
        let waiting = wait::until(&what, limit, || async {
            let letters = self.dead_letters(consumer).await?;
            Ok((letters.len() >= count).then_some(letters))
        });
        waiting.await.with_context(|| format!("the host's log:\n{}", self.log_tail()))
    }

    /// Waits until the log holds a text.
    ///
    /// # Errors
    /// It does not within `limit`; the error carries the log.
    pub async fn wait_log(&self, text: &str, limit: Duration) -> Result<()> {
        let what = format!("the log holds {text:?}");
        let waiting = wait::until(&what, limit, || async { Ok(self.log().contains(text).then_some(())) });
        waiting.await.with_context(|| format!("the host's log:\n{}", self.log_tail()))
    }

    /// Everything that the host has logged, over all its starts.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(self.log_path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last lines of the log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(&self.log_path(), LOG_LINES_SHOWN)
    }

    /// Memory and CPU time.
    ///
    /// # Errors
    /// It does not run.
    pub fn usage(&self) -> Result<Usage> {
        self.process.as_ref().context("the host does not run")?.usage()
    }

    fn address_file(&self) -> PathBuf {
        self.path("data/admin.address")
    }

    fn log_path(&self) -> PathBuf {
        self.path("host.log")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.remember_helpers();
        self.process = None;
        // Only a server that runs over this directory is ours: the number may belong to someone else by now.
        let data = self.directory.path().display().to_string();
        for pid in &self.helpers {
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&arguments).contains(&data) {
                let _ = signal_pid(*pid, Signal::KILL);
            }
        }
        if self.options.show_log {
            print!("--- the host's log\n{}\n---\n", tail(&self.log_path(), 4 * LOG_LINES_SHOWN));
        }
    }
}
