//! What benchmarks that are programs of their own share: what the kernel says of their process, and their arguments.

use anyhow::{Context, Result};

/// The arguments. Cargo adds an option of its own, which is none of them.
pub(crate) fn arguments() -> impl Iterator<Item = String> {
    std::env::args().skip(1).filter(|argument| !argument.starts_with("--"))
}

/// CPU time of this process, user and system, in seconds; the kernel counts it in hundredths.
pub(crate) fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The second field is the program's name in parentheses and may hold spaces; utime and stime are fields 14 and 15.
    let fields = stat.rsplit_once(')').context("/proc/self/stat has a name")?.1.split_whitespace();
    let ticks = fields.skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(ticks as f64 / 100.0)
}
