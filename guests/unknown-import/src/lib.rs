//! Imports an interface that no host of this kind has. Needed by the tests of verification: it must be refused by the import's name.

use pelton_sdk::{Failure, Message, Result};

wit_bindgen::generate!({
    inline: "
        package acme:db@1.0.0;

        interface sql {
            query: func(text: string) -> u32;
        }

        world needs-sql {
            import sql;
        }
    ",
});

pelton_sdk::consumer!(handle);

fn handle(message: Message) -> Result {
    match acme::db::sql::query(&message.id) {
        0 => Err(Failure::reject("no rows")),
        _ => Ok(()),
    }
}
