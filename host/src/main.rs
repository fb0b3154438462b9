//! The `pelton` binary. All it does is in the library, so that the tests can reach it.

use std::process::ExitCode;

/// What one thread allocates another one frees: deliveries, runs, outcomes, batches. The C library's allocator took a third of the host's CPU time for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    pelton::cli::main()
}
