//! The floor: what broker and client library cost on their own. Messages are consumed with ack-all and as many events published, of the size that the work's
//! events have; nothing is read, kept or checked.
//!
//! Acknowledgements of the events come to one inbox and are only counted, which costs the client less than a future for each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use async_nats::jetstream::consumer::AckPolicy;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::Semaphore;

use super::Task;

/// Events in flight.
const WINDOW: usize = 4_096;

/// Messages that one ack settles.
const ACK_EVERY: u64 = 500;

/// Bytes of an event of the work.
const EVENT_BYTES: usize = 110;

pub(super) async fn run(task: &Task, ids: bool) -> Result<()> {
    let client = super::connect(task).await?;
    let inbox = client.new_inbox();
    let acks = client.subscribe(inbox.clone()).await.context("an inbox for acknowledgements")?;
    let room = Arc::new(Semaphore::new(WINDOW));
    let acked = Arc::new(AtomicU64::new(0));
    let counting = tokio::spawn({
        let (room, acked) = (Arc::clone(&room), Arc::clone(&acked));
        let mut acks = acks.ready_chunks(1_024);
        async move {
            while let Some(chunk) = acks.next().await {
                room.add_permits(chunk.len());
                acked.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            }
        }
    });
    let payload = Bytes::from(vec![b'x'; EVENT_BYTES]);
    let mut messages = super::messages(&client, task, AckPolicy::All, 10_000).await?;
    let (mut taken, mut published) = (0_u64, 0_u64);
    while taken < task.messages {
        let message = messages.next().await.context("the pull has ended")?.context("a message of the work")?;
        taken += 1;
        if taken.is_multiple_of(ACK_EVERY) || taken == task.messages {
            message.ack().await.map_err(|error| anyhow::anyhow!("can't acknowledge: {error}"))?;
        }
        // As many events as the work has, spread over the messages.
        if published < taken * task.events / task.messages {
            published += 1;
            room.acquire().await.context("the window is open")?.forget();
            let subject = format!("out.{}", message.subject);
            if ids {
                let mut headers = async_nats::HeaderMap::new();
                headers.insert("Nats-Msg-Id", format!("contestant:{taken}").as_str());
                client.publish_with_reply_and_headers(subject, inbox.clone(), headers, payload.clone()).await?;
            } else {
                client.publish_with_reply(subject, inbox.clone(), payload.clone()).await?;
            }
        }
    }
    while acked.load(Ordering::Relaxed) < task.events {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    counting.abort();
    Ok(())
}
