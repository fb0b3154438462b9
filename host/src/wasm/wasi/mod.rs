//! The part of WASI 0.2 that a plug-in may import: enough for the standard libraries of guest languages, and nothing that reaches outside.
//!
//! Written here against the bindings of `wasmtime-wasi` instead of taken from it whole: its own streams, clocks and polls may block, and
//! its synchronous form starts a tokio runtime for that. Here nothing blocks. Wall clock and randomness are those of the attempt, the
//! monotonic clock counts its readings, the output streams end in the log, and everything else is empty or refused.

mod cli;
mod clocks;
mod filesystem;
mod io;
mod random;

use wasmtime::component::{HasSelf, Linker};
use wasmtime_wasi::filesystem::WasiFilesystem;
use wasmtime_wasi::p2::bindings as wasi;

use self::filesystem::Files;
use super::attempt::Attempt;

/// The packages of WASI that are linked.
pub(super) const PACKAGES: [&str; 5] = ["wasi:io", "wasi:cli", "wasi:clocks", "wasi:random", "wasi:filesystem"];

/// What WASI remembers of an attempt.
pub(super) struct Wasi {
    /// The state of the random generator.
    random: u64,
    /// How far the monotonic clock is, in nanoseconds.
    monotonic_ns: u64,
    /// Only there once a guest has asked for a file.
    files: Option<Box<Files>>,
}

impl Wasi {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: seed, monotonic_ns: 0, files: None }
    }

    /// That of the instance's next attempt: all but the resources that the instance may hold begins anew.
    pub(super) fn go_on(&mut self, seed: u64) -> Self {
        Self { files: self.files.take(), ..Self::new(seed) }
    }
}

/// Links the interfaces of [`PACKAGES`].
pub(super) fn add_to_linker(linker: &mut Linker<Attempt>) -> wasmtime::Result<()> {
    type Own = HasSelf<Attempt>;
    fn own(attempt: &mut Attempt) -> &mut Attempt {
        attempt
    }
    wasi::sync::io::error::add_to_linker::<_, Own>(linker, own)?;
    wasi::sync::io::poll::add_to_linker::<_, Own>(linker, own)?;
    wasi::sync::io::streams::add_to_linker::<_, Own>(linker, own)?;
    wasi::clocks::wall_clock::add_to_linker::<_, Own>(linker, own)?;
    wasi::clocks::monotonic_clock::add_to_linker::<_, Own>(linker, own)?;
    wasi::random::random::add_to_linker::<_, Own>(linker, own)?;
    wasi::random::insecure::add_to_linker::<_, Own>(linker, own)?;
    wasi::random::insecure_seed::add_to_linker::<_, Own>(linker, own)?;
    wasi::cli::environment::add_to_linker::<_, Own>(linker, own)?;
    wasi::cli::exit::add_to_linker::<_, Own>(linker, own)?;
    wasi::cli::stdin::add_to_linker::<_, Own>(linker, own)?;
    wasi::cli::stdout::add_to_linker::<_, Own>(linker, own)?;
    wasi::cli::stderr::add_to_linker::<_, Own>(linker, own)?;
    wasi::cli::terminal_input::add_to_linker::<_, Own>(linker, own)?;
    wasi::cli::terminal_output::add_to_linker::<_, Own>(linker, own)?;
    wasi::cli::terminal_stdin::add_to_linker::<_, Own>(linker, own)?;
    wasi::cli::terminal_stdout::add_to_linker::<_, Own>(linker, own)?;
    wasi::cli::terminal_stderr::add_to_linker::<_, Own>(linker, own)?;
    wasi::filesystem::preopens::add_to_linker::<_, Own>(linker, own)?;
    wasi::sync::filesystem::types::add_to_linker::<_, WasiFilesystem>(linker, filesystem::view)
}
