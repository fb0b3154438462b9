//! Running totals in, one notification per customer out: when the total reaches the threshold for the first time, from
//! `retail.totals.CUSTOMER` to `retail.notifications.CUSTOMER`.
//!
//! The ordering key is the customer, so the first total at or above the threshold is the first in the order in which they were committed. A total
//! that falls below it and rises again is no news.

use pelton_sdk::{Failure, Message, Result, context, outbox, state};
use serde::{Deserialize, Serialize};

/// An event of `totals`, of whichever version: the fields that are needed here.
#[derive(Deserialize)]
struct NewTotal {
    total_pence: i64,
    lines: u64,
}

#[derive(Serialize)]
struct Notification<'a> {
    customer: &'a str,
    total_pence: i64,
    threshold_pence: i64,
    lines: u64,
}

pelton_sdk::consumer!(handle);

fn handle(message: Message) -> Result {
    let customer = message.key.as_deref().ok_or_else(|| Failure::reject("the manifest names no ordering key"))?;
    let NewTotal { total_pence, lines } = message.json()?;
    let threshold_pence = context::config_parsed("threshold_pence")?.unwrap_or(100_000);
    if total_pence < threshold_pence || state::get::<bool>("notified")?.unwrap_or(false) {
        return Ok(());
    }
    state::set("notified", &true)?;
    let notification = Notification { customer, total_pence, threshold_pence, lines };
    outbox::emit(format!("retail.notifications.{customer}"), &notification)?;
    Ok(())
}
