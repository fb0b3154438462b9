//! The version after a swap: labels its events "b". Needed by the tests of reload, together with `versioned-a`.

#[path = "../../versioned-a/src/versioned.rs"]
mod versioned;

use pelton_sdk::{Message, Result};

pelton_sdk::consumer!(handle);

fn handle(message: Message) -> Result {
    versioned::serve("b", &message)
}
