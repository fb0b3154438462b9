//! Invoice lines in, each customer's running total out: `retail.lines.CUSTOMER` to `retail.totals.CUSTOMER`.
//!
//! The ordering key is the customer. A cancellation is a line like any other, with a negative quantity. What can't be added up (a price that is no
//! decimal number, a sum beyond what fits) is a dead letter. The feature `v2` makes the second version, whose events say their currency.

mod money;

use money::Total;
use pelton_sdk::{Failure, Message, Result, outbox, state};
use serde::{Deserialize, Serialize};

/// A row of the CSV: the columns that are needed here.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    invoice_no: String,
    quantity: i64,
    unit_price: String,
}

#[derive(Serialize)]
struct NewTotal<'a> {
    customer: &'a str,
    #[serde(flatten)]
    total: &'a Total,
    invoice: &'a str,
    amount_pence: i64,
    #[cfg(feature = "v2")]
    currency: &'static str,
}

pelton_sdk::consumer!(handle);

fn handle(message: Message) -> Result {
    let customer = message.key.as_deref().ok_or_else(|| Failure::reject("the manifest names no ordering key"))?;
    let line: Line = message.json()?;
    let amount_pence = money::amount_pence(line.quantity, &line.unit_price)?;
    let is_cancellation = line.invoice_no.starts_with('C') || line.quantity < 0;
    let before: Total = state::get("total")?.unwrap_or_default();
    let total = before.with(amount_pence, is_cancellation)?;
    state::set("total", &total)?;
    let event = NewTotal {
        customer,
        total: &total,
        invoice: &line.invoice_no,
        amount_pence,
        #[cfg(feature = "v2")]
        currency: "GBP",
    };
    outbox::emit(format!("retail.totals.{customer}"), &event)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use pelton_sdk::testing::{Host, message};

    use super::*;

    #[test]
    fn lines_of_a_customer_add_up_and_one_that_cannot_be_read_changes_nothing() {
        let mut host = Host::new(handle).emits("retail.totals.*");
        let mut send = |quantity: i64, price: &str| {
            let line = format!("{{\"InvoiceNo\":\"1\",\"Quantity\":{quantity},\"UnitPrice\":\"{price}\"}}");
            host.handle(&message("retail.lines.17850").key("17850").text(&line)).outcome.kind()
        };
        assert_eq!([send(6, "2.55"), send(-2, "2.55"), send(1, "two")], ["applied", "applied", "reject"]);
        let total = Total { total_pence: 1_020, lines: 2, cancellations: 1 };
        assert_eq!(host.state("17850", "total"), Some(total));
        assert_eq!(host.events().len(), 2);
    }
}
