//! Never ends its instantiation. Needed by the tests of verification: it must never serve, nor hold up the host.

use std::hint::black_box;

use pelton_sdk::{Message, Result};

/// A module's export of this name is run by the component's instantiation.
#[unsafe(export_name = "_initialize")]
extern "C" fn initialize() {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

pelton_sdk::consumer!(handle);

fn handle(_message: Message) -> Result {
    Ok(())
}
