//! The `pelton` binary. All it does is in the library, so that the tests can reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    pelton::cli::main()
}
