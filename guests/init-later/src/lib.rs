//! Ends its trial well and never ends its instantiation for a message. Needed by the tests of the sandbox: what was verified once may still loop
//! before the handler is called.

use std::hint::black_box;

use pelton_sdk::{Message, Result, context};

/// A module's export of this name is run by the component's instantiation.
#[unsafe(export_name = "_initialize")]
extern "C" fn initialize() {
    // A trial has no message, and its clock stands at 0.
    if context::now_ms() == 0 {
        return;
    }
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

pelton_sdk::consumer!(handle);

fn handle(_message: Message) -> Result {
    Ok(())
}
