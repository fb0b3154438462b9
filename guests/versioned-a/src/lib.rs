//! The version before a swap: labels its events "a". Needed by the tests of reload, together with `versioned-b`.

mod versioned;

use pelton_sdk::{Message, Result};

pelton_sdk::consumer!(handle);

fn handle(message: Message) -> Result {
    versioned::serve("a", &message)
}
