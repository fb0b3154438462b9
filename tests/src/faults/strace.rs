//! Faults of the system calls themselves, made by strace.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::host::Host;
use crate::process::signal_pid;

/// Has the host started under strace with this injection, for example `fdatasync:error=EIO:when=7`. Calls are counted in each thread for itself.
pub(super) fn inject(host: &mut Host, call: &str, fault: &str) -> Result<()> {
    available()?;
    let output = host.path("strace.log").display().to_string();
    // As a grandchild, so that the host keeps its parent and its exit status; stopping at no other call than these.
    let (trace, fault) = (format!("trace={call}"), format!("inject={call}:{fault}"));
    host.set_launcher(&["strace", "-D", "-f", "-qq", "--seccomp-bpf", "-o", &output, "-e", &trace, "-e", &fault]);
    Ok(())
}

/// How many calls were tampered with so far.
pub(super) fn injected(host: &Host) -> usize {
    let lines = std::fs::read_to_string(host.path("strace.log")).unwrap_or_default();
    lines.lines().filter(|line| line.contains("(INJECTED)") || line.contains("(DELAYED)")).count()
}

/// Ends strace, and leaves the host running without it.
pub(super) fn detach(host: &mut Host) -> Result<()> {
    host.set_launcher(&[]);
    let pid = host.pid().context("the host runs")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:")?.trim().parse::<u32>().ok());
    let tracer = tracer.filter(|tracer| *tracer > 0).context("nobody traces the host")?;
    signal_pid(tracer, Signal::TERM)
}

/// Whether there is a strace, and whether it may trace.
fn available() -> Result<()> {
    let tried =
        Command::new("strace").args(["-f", "--seccomp-bpf", "-o"]).arg(Path::new("/dev/null")).arg("true").output();
    let tried = tried.context("needs strace on PATH (Debian package strace)")?;
    let errors = String::from_utf8_lossy(&tried.stderr);
    ensure!(tried.status.success(), "needs a strace 5.3 or newer that may trace (ptrace permitted): {}", errors.trim());
    Ok(())
}
