//! Traps while it is instantiated, before any message. Needed by the tests of verification: it must never serve, nor harm the host.

use pelton_sdk::{Message, Result};

/// Called by the module's `_initialize`, which instantiation runs.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = trap;

extern "C" fn trap() {
    std::process::abort();
}

pelton_sdk::consumer!(handle);

fn handle(_message: Message) -> Result {
    Ok(())
}
