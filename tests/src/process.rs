//! A child process that is known, signalled and cleaned up by its process id.
//!
//! Its output goes to a file, so that nothing is lost when it is killed and nobody has to read while it runs.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// The kernel's unit of CPU time in /proc, in milliseconds (USER_HZ is 100 on every Linux that we can meet).
const TICK_MS: u64 = 10;

/// A running child. Dropped, it is killed and reaped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts a command; its standard output and error are appended to `log`.
    ///
    /// # Errors
    /// The log can't be opened, or the program can't be started.
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("can't open the log {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("can't start {name} ({})", command.get_program().display()))?;
        Ok(Self { child, name: name.to_owned() })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal. A process that has ended already is no error.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.exited()?.is_some() {
            return Ok(());
        }
        signal_pid(self.pid(), signal).with_context(|| format!("can't signal {}", self.name))
    }

    /// The exit status, if it has ended.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("can't ask for the exit status of {}", self.name))
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.child.wait().with_context(|| format!("can't reap {}", self.name))?;
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It is still running after `limit`.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.exited()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("{} is still running after {} s", self.name, limit.as_secs_f32());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What the kernel has counted for it so far.
    ///
    /// # Errors
    /// It has ended.
    pub fn usage(&self) -> Result<Usage> {
        Usage::of(self.pid())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A child that is gone already needs neither; there is nobody to tell about another failure.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Memory and CPU time of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Resident now, in bytes.
    pub resident_bytes: u64,
    /// The most that was ever resident, in bytes.
    pub peak_resident_bytes: u64,
    /// CPU time of all its threads, user and system, in milliseconds.
    pub cpu_ms: u64,
}

impl Usage {
    /// Reads them from /proc.
    ///
    /// # Errors
    /// There is no such process, or /proc is not readable.
    pub fn of(pid: u32) -> Result<Self> {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
        let status = read("status").with_context(|| format!("no process {pid}"))?;
        let kilobytes = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            line.and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0)
        };
        let stat = read("stat").with_context(|| format!("no process {pid}"))?;
        // The second field is the program's name in parentheses and may hold spaces; utime and stime are fields 14 and 15.
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let ticks: u64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(Self {
            resident_bytes: kilobytes("VmRSS") * 1024,
            peak_resident_bytes: kilobytes("VmHWM") * 1024,
            cpu_ms: ticks * TICK_MS,
        })
    }
}

/// Signals a process that is not our child: the server that a host under test has started.
///
/// # Errors
/// There is none, or it is not ours.
pub fn signal_pid(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("not a process id")?;
    kill_process(pid, signal).with_context(|| format!("can't send {signal:?} to process {}", pid.as_raw_nonzero()))
}

/// The processes that `parent` has started and that still run.
#[must_use]
pub fn children_of(parent: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()).collect()
}

/// The last `lines` lines of a log, or a word about why there are none.
#[must_use]
pub fn tail(log: &PathBuf, lines: usize) -> String {
    match fs::read(log) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let all: Vec<&str> = text.lines().collect();
            all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
        }
        Err(error) => format!("(no log: {error})"),
    }
}
