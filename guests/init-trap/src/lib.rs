//! Traps while it is instantiated, before any message. Needed by the tests of verification: it must never serve, nor harm the host.

use pelton_sdk::{Message, Result};

/// A module's export of this name is run by the component's instantiation.
#[unsafe(export_name = "_initialize")]
extern "C" fn initialize() {
    std::process::abort();
}

pelton_sdk::consumer!(handle);

fn handle(_message: Message) -> Result {
    Ok(())
}
