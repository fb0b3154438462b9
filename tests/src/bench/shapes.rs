//! The main work in other shapes: larger state, and fewer or more executor threads.

use anyhow::Result;

use super::compare::measured;
use super::figures::Case;
use super::pelton::{Isolation, Pelton};
use super::scale::Scale;
use super::stage::Stage;
use super::work::Work;

pub(crate) const VALUES: &str = "values";
pub(crate) const THREADS: &str = "threads";

/// Bytes of a key's state, and the case's name.
const STATE_BYTES: [(usize, &str); 4] =
    [(100, "100-B"), (1 << 10, "1-KiB"), (16 << 10, "16-KiB"), (64 << 10, "64-KiB")];

/// State that all messages of a case write, in bytes, at most: large states get fewer messages.
const WRITTEN_MAX: u64 = 1 << 30;

/// Executor threads, and the case's name.
const EXECUTORS: [(u32, &str); 2] = [(1, "1"), (2, "2")];

/// The work with larger and larger states.
///
/// # Errors
/// The host does not come up, does not finish, or does the work wrongly.
pub(crate) async fn values(scale: Scale) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (state_bytes, name) in STATE_BYTES {
        let messages = scale.messages().min(scale.of(WRITTEN_MAX / state_bytes as u64));
        let stage = Stage::with(&Work { state_bytes, ..Work::uniform(messages) }).await?;
        let about = format!("{state_bytes} bytes of state a key, {messages} messages, isolation fresh");
        cases.push(measured(scale, &stage, VALUES, name, &about, &Pelton::with(Isolation::Fresh)).await?);
    }
    Ok(cases)
}

/// The work with one executor thread and with two.
///
/// # Errors
/// The host does not come up, does not finish, or does the work wrongly.
pub(crate) async fn threads(scale: Scale) -> Result<Vec<Case>> {
    let stage = Stage::with(&Work::uniform(scale.messages())).await?;
    let mut cases = Vec::new();
    for (threads, name) in EXECUTORS {
        let pelton = Pelton::with(Isolation::Fresh).host(&format!("[limits]\nexecutor_threads = {threads}\n"));
        let about = format!("{threads} executor threads on the whole main path, isolation fresh");
        cases.push(measured(scale, &stage, THREADS, name, &about, &pelton).await?);
    }
    Ok(cases)
}
