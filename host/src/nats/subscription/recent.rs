//! The last messages of a stream, read from its store without a consumer: nobody's position moves, and nothing is settled.

use super::Delivery;
use super::in_order::InOrder;
use crate::nats::connect::Connection;
use crate::nats::streams::{StreamError, StreamFacts};

/// Bytes of payloads that are fetched, at most.
const BYTES_MAX: usize = 64 << 20;

/// The last messages of a stream that are on some subjects.
#[derive(Debug)]
pub struct Recent {
    /// The stream.
    pub stream: StreamFacts,
    /// In stream order.
    pub messages: Vec<Delivery>,
}

impl Connection {
    /// Of the last `count` messages of a stream those that are on these subjects; fewer if they are very large.
    ///
    /// # Errors
    /// `Unavailable` if there is no connection at the moment; see [`StreamError`] for the others.
    pub async fn recent(&self, name: &str, subjects: &[Box<str>], count: usize) -> Result<Recent, StreamError> {
        let unavailable = |reason: String| StreamError::Unavailable { stream: name.into(), reason };
        let stream = self.stream(name).await?;
        let session = self.sessions().current().ok_or_else(|| unavailable("there is no nats connection".into()))?;
        let after = stream.last_seq.saturating_sub(count as u64);
        let mut order = InOrder::new(name, subjects, after);
        let (mut messages, mut bytes) = (Vec::new(), 0);
        while messages.len() < count && bytes < BYTES_MAX {
            let Some((stored, _)) = order.next(&session.jetstream).await.map_err(unavailable)? else { break };
            if stored.sequence > stream.last_seq {
                break;
            }
            bytes += stored.payload.len();
            messages.push(Delivery {
                sequence: stored.sequence,
                subject: stored.subject,
                headers: stored.headers,
                payload: stored.payload,
                published_at_ms: stored.stored_ns / 1_000_000,
                pending: 0,
                unreadable: stored.flaw,
            });
        }
        Ok(Recent { stream, messages })
    }
}
