//! What a careful engineer writes first: one loop over the messages; for each one a durable transaction in redb that looks the id up, changes the key's state and
//! marks the id; then its event, published and awaited; then the ack.
//!
//! It keeps order per key, because it does one message at a time. What it lacks of Pelton's guarantees: an event is lost if the process dies between the
//! transaction and the publish.

use anyhow::{Context, Result};
use async_nats::jetstream::{self, consumer::AckPolicy};
use futures_util::StreamExt;
use redb::{Database, ReadableTable, TableDefinition};

use super::{Delivery, Task, order_counter};

const STATE: TableDefinition<&str, &[u8]> = TableDefinition::new("state");
const PROCESSED: TableDefinition<&str, u64> = TableDefinition::new("processed");

pub(super) async fn run(task: &Task) -> Result<()> {
    let client = super::connect(task).await?;
    let jetstream = jetstream::new(client.clone());
    let database = Database::create(task.directory.join("state.redb")).context("creating the database")?;
    let mut messages = super::messages(&client, task, AckPolicy::Explicit, 1_000).await?;
    for _ in 0..task.messages {
        let message = messages.next().await.context("the pull has ended")?.context("a message of the work")?;
        let delivery = Delivery::of(&message)?;
        if let Some(event) = apply(&database, &delivery, &message.payload)? {
            let published =
                jetstream.publish_with_headers(delivery.subject.clone(), delivery.event_headers(), event.into());
            published.await.context("publishing an event")?.await.context("an event was not stored")?;
        }
        message.ack().await.map_err(|error| anyhow::anyhow!("can't acknowledge: {error}"))?;
    }
    client.flush().await.context("sending the last acknowledgements")
}

/// One transaction. None: the message was handled before.
fn apply(database: &Database, delivery: &Delivery, payload: &[u8]) -> Result<Option<Vec<u8>>> {
    let transaction = database.begin_write()?;
    {
        let mut processed = transaction.open_table(PROCESSED)?;
        if processed.insert(delivery.id.as_str(), delivery.sequence)?.is_some() {
            // Dropped, the transaction leaves nothing.
            return Ok(None);
        }
    }
    let done = {
        let mut state = transaction.open_table(STATE)?;
        let done = {
            let before = state.get(delivery.key.as_str())?;
            let before = before.as_ref().map(redb::AccessGuard::value);
            order_counter::handle(payload, before, &delivery.key, &delivery.id, delivery.sequence)?
        };
        state.insert(delivery.key.as_str(), done.state.as_slice())?;
        done
    };
    transaction.commit().context("committing a transaction")?;
    Ok(Some(done.event))
}
