//! Imports `wasi:sockets`, which no consumer is granted. Needed by the tests of verification: it must be refused by name before it serves.

use std::net::TcpStream;

use pelton_sdk::{Message, Result};

pelton_sdk::consumer!(handle);

fn handle(message: Message) -> Result {
    let _connection = TcpStream::connect(message.text()?)?;
    Ok(())
}
