//! Asks WASI for a monotonic clock, to sleep for ten seconds. Needed by the tests of what the host's WASI gives and refuses.

use std::time::Duration;

use pelton_sdk::{Message, Result};

pelton_sdk::consumer!(handle);

fn handle(_message: Message) -> Result {
    std::thread::sleep(Duration::from_secs(10));
    Ok(())
}
