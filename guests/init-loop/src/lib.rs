//! Never ends its instantiation. Needed by the tests of verification: it must never serve, nor hold up the host.

use std::hint::black_box;

use pelton_sdk::{Message, Result};

/// Called by the module's `_initialize`, which instantiation runs.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = spin;

extern "C" fn spin() {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

pelton_sdk::consumer!(handle);

fn handle(_message: Message) -> Result {
    Ok(())
}
