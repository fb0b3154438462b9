//! What order-counter does with a message, without anything of the host: the benchmark hands the same work to what a plug-in is compared with, so that all of
//! them read, compute and write the same bytes.
//!
//! The event is in the form of the `ledger` plug-in's: it tells the key's count and a fold of all numbers before it, so that a reader of the events knows whether each
//! message was applied once and in order.

use serde::{Deserialize, Serialize};

/// Bytes of a key's state unless the message asks for more.
const STATE_BYTES: usize = 100;

/// The fold before the first message; 64-bit FNV-1a.
const FOLD_START: u64 = 0xcbf2_9ce4_8422_2325;
const FOLD_PRIME: u64 = 0x0000_0100_0000_01b3;

/// A message's payload; what else it holds makes it large.
#[derive(Deserialize)]
struct Order {
    /// The number within the key, from 1.
    n: u64,
    /// Bytes of state to keep.
    #[serde(default)]
    state_bytes: usize,
}

/// The state of a key.
#[derive(Serialize, Deserialize)]
struct Counter<'a> {
    count: u64,
    last: u64,
    chain: u64,
    #[serde(borrow)]
    pad: &'a str,
}

#[derive(Serialize)]
struct Counted<'a> {
    key: &'a str,
    id: &'a str,
    sequence: u64,
    n: u64,
    count: u64,
    chain: &'a str,
}

/// What one message leads to.
pub(crate) struct Done {
    /// The key's state from now on.
    pub(crate) state: Vec<u8>,
    /// The payload of the one event.
    pub(crate) event: Vec<u8>,
}

/// Handles a message: its payload, the key's state before it (none: the key is new), and what identifies it.
///
/// # Errors
/// The payload or the state is not the JSON that it should be.
pub(crate) fn handle(
    payload: &[u8],
    before: Option<&[u8]>,
    key: &str,
    id: &str,
    sequence: u64,
) -> Result<Done, serde_json::Error> {
    let order: Order = serde_json::from_slice(payload)?;
    let before: Option<Counter> = before.map(serde_json::from_slice).transpose()?;
    let (count, chain) = before.map_or((0, FOLD_START), |counter| (counter.count, counter.chain));
    let (count, chain) = (count + 1, fold(chain, order.n));
    let mut counter = Counter { count, last: order.n, chain, pad: "" };
    let bare = serde_json::to_vec(&counter)?;
    let pad = "-".repeat(order.state_bytes.max(STATE_BYTES).saturating_sub(bare.len()));
    counter.pad = &pad;
    let state = serde_json::to_vec(&counter)?;
    let chain = format!("{chain:016x}");
    let event = serde_json::to_vec(&Counted { key, id, sequence, n: order.n, count, chain: &chain })?;
    Ok(Done { state, event })
}

fn fold(chain: u64, n: u64) -> u64 {
    n.to_le_bytes().iter().fold(chain, |chain, byte| (chain ^ u64::from(*byte)).wrapping_mul(FOLD_PRIME))
}
