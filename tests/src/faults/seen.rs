//! What the host tells about itself, as far as the rows ask.

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::host::Host;

/// One consumer of `/status`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Consumer {
    pub(super) phase: String,
    /// The digest of the component that serves.
    pub(super) version: Option<String>,
    /// Everything up to this sequence is durably settled.
    pub(super) floor: u64,
    /// Messages in hand.
    pub(super) held: u64,
    /// Messages applied since the host was started.
    pub(super) applied: u64,
    /// Events that wait to be published.
    pub(super) outbox_pending: u64,
    /// Messages that were applied before under another sequence.
    pub(super) duplicates: u64,
    /// Deliveries that were had before.
    pub(super) redelivered: u64,
    /// What keeps it from its work.
    pub(super) problems: Vec<String>,
}

/// A consumer as it is now.
pub(super) async fn consumer(host: &Host, name: &str) -> Result<Consumer> {
    let status = host.consumer_status(name).await?;
    serde_json::from_value(status)
        .with_context(|| format!("/status does not tell of consumer {name} what was expected"))
}

/// An item of `/dead-letters`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct DeadLetter {
    pub(super) sequence: u64,
    /// When it was given up: RFC 3339, UTC.
    pub(super) at: String,
}

/// All dead letters of a consumer, by sequence.
pub(super) async fn dead_letters(host: &Host, name: &str) -> Result<Vec<DeadLetter>> {
    let letters = host.dead_letters(name).await?.into_iter().map(serde_json::from_value);
    let letters: Result<Vec<DeadLetter>, _> = letters.collect();
    let mut letters = letters.context("/dead-letters does not tell what was expected")?;
    letters.sort_by_key(|letter| letter.sequence);
    Ok(letters)
}

/// Why the last event was refused, while one waits because of that.
pub(super) async fn last_refusal(host: &Host) -> Result<Option<String>> {
    #[derive(Deserialize)]
    struct Status {
        outbox: Outbox,
    }
    #[derive(Deserialize)]
    struct Outbox {
        last_refusal: Option<String>,
    }
    let status: Status = serde_json::from_value(host.status().await?).context("/status does not tell of the outbox")?;
    Ok(status.outbox.last_refusal)
}
