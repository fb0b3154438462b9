//! What the kernel has counted for a process: CPU time, peak memory, bytes written.

use std::fs;

use anyhow::{Context, Result};

use super::figures::{CPU_US, PEAK_MB, Reading, WRITTEN_BYTES, reading};
use crate::process::{Usage, children_of};

/// A process's counters at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meter {
    /// CPU time of all threads, user and system, in milliseconds.
    pub(crate) cpu_ms: u64,
    /// The most that was ever resident, in bytes.
    pub(crate) peak_bytes: u64,
    /// Resident now, in bytes.
    pub(crate) resident_bytes: u64,
    /// What the process has had written to disk, in bytes.
    pub(crate) written_bytes: u64,
}

impl Meter {
    /// Reads them from /proc.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let usage = Usage::of(pid)?;
        let io = fs::read_to_string(format!("/proc/{pid}/io"))
            .with_context(|| format!("can't read what process {pid} has written"))?;
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes:")?.trim().parse().ok());
        Ok(Self {
            cpu_ms: usage.cpu_ms,
            peak_bytes: usage.peak_resident_bytes,
            resident_bytes: usage.resident_bytes,
            written_bytes: written.context("/proc tells no write_bytes")?,
        })
    }

    /// CPU time and bytes written of a process and of those that it has started, added up.
    pub(crate) fn of_family(pid: u32) -> Result<Self> {
        let mut sum = Self::of(pid)?;
        // One that has just ended is counted no more; those that matter live as long as the measurement.
        for child in children_of(pid).into_iter().filter_map(|child| Self::of(child).ok()) {
            sum.cpu_ms += child.cpu_ms;
            sum.written_bytes += child.written_bytes;
        }
        Ok(sum)
    }

    /// What it came to since `before`, by message.
    pub(crate) fn since(&self, before: &Self, messages: u64) -> Reading {
        reading([
            (CPU_US, us_per_message(self.cpu_ms.saturating_sub(before.cpu_ms), messages)),
            (PEAK_MB, megabytes(self.peak_bytes)),
            (WRITTEN_BYTES, self.written_bytes.saturating_sub(before.written_bytes) as f64 / messages.max(1) as f64),
        ])
    }
}

/// Milliseconds over so many messages, in microseconds for each.
pub(crate) fn us_per_message(cpu_ms: u64, messages: u64) -> f64 {
    cpu_ms as f64 * 1_000.0 / messages.max(1) as f64
}

/// Bytes in megabytes of 1,000,000.
pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_writes_is_counted() {
        // A file system in memory counts too: the kernel counts pages that are made dirty.
        let before = Meter::of(std::process::id()).unwrap();
        let file = tempfile::NamedTempFile::new_in(crate::tools::target()).unwrap();
        fs::write(file.path(), vec![1_u8; 1 << 20]).unwrap();
        let after = Meter::of(std::process::id()).unwrap();
        assert!(after.written_bytes >= before.written_bytes + (1 << 20), "{before:?} {after:?}");
        assert!(after.peak_bytes >= after.resident_bytes && after.resident_bytes > 0);
    }
}
