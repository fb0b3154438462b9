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

#[cfg(test)]
mod tests {
    use pelton_sdk::testing::{Host, message};

    use super::*;

    #[test]
    fn a_customer_is_told_of_once_at_the_threshold() {
        let mut host = Host::new(handle).emits("retail.notifications.*").config("threshold_pence", 1_000);
        for total in [999, 1_000, 900, 1_001] {
            let total = format!("{{\"total_pence\":{total},\"lines\":1}}");
            host.handle(&message("retail.totals.17850").key("17850").text(&total)).applied();
        }
        assert_eq!(host.events().len(), 1);
        assert_eq!(host.events()[0].subject, "retail.notifications.17850");
        assert_eq!(host.state("17850", "notified"), Some(true));
    }
}
