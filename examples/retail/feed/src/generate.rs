//! Rows of the same shape as the real data, from a seed: a few customers buy most, one line in three has no customer, an invoice has many lines,
//! some lines are cancellations of earlier ones, and some rows occur twice.
//!
//! Always holds: the rows depend on the seed alone, and the rows of a shorter run are the first ones of a longer.

use crate::row::Row;

/// Customers that buy under a number.
const CUSTOMERS: u64 = 950;
/// Products in the catalogue.
const PRODUCTS: u64 = 2_500;
/// The most lines of an invoice.
const INVOICE_LINES_MAX: u64 = 40;
/// How many lines back a cancellation may reach.
const RECENT_LINES: usize = 512;

/// Makes rows without end; take as many as needed.
#[must_use]
pub fn generate(seed: u64) -> Generator {
    Generator {
        seed,
        random: Random(seed),
        number: 0,
        invoice: 536_364,
        minute: 0,
        lines_left: 0,
        customer: String::new(),
        recent: Vec::with_capacity(RECENT_LINES),
    }
}

/// See [`generate`].
#[derive(Clone, Debug)]
pub struct Generator {
    seed: u64,
    random: Random,
    number: u64,
    invoice: u64,
    /// Since the first invoice.
    minute: u64,
    /// Of the invoice at hand.
    lines_left: u64,
    /// Of the invoice at hand; empty if not known.
    customer: String,
    /// A ring of purchases that may yet be cancelled.
    recent: Vec<Row>,
}

impl Iterator for Generator {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        self.number += 1;
        if self.lines_left == 0 {
            self.begin_invoice();
        }
        self.lines_left -= 1;
        let kind = self.random.below(1_000);
        let row = match kind {
            0..17 => self.cancellation(),
            17..29 if self.recent.last().is_some_and(|last| last.invoice_no == self.invoice.to_string()) => {
                self.recent.last().cloned()
            }
            _ => None,
        };
        let row = row.unwrap_or_else(|| self.purchase());
        Some(Row { number: self.number, id: format!("seed-{}-row-{}", self.seed, self.number), ..row })
    }
}

impl Generator {
    fn begin_invoice(&mut self) {
        self.invoice += 1;
        self.minute += self.random.below(6);
        self.lines_left = 1 + self.random.skewed(INVOICE_LINES_MAX);
        self.customer = match self.random.below(100) {
            0..36 => String::new(),
            _ => format!("{}.0", 12_346 + self.random.skewed(CUSTOMERS)),
        };
    }

    fn purchase(&mut self) -> Row {
        let product = self.random.skewed(PRODUCTS);
        // A product has one price: between 0.10 and about 20 pounds, mostly a few.
        let price_pence = 10 + Random(product).skewed(2_000);
        let quantity = match self.random.below(20) {
            0 => 48 + self.random.below(500),
            1..5 => 12 + self.random.below(24),
            _ => 1 + self.random.below(12),
        };
        let row = Row {
            number: self.number,
            id: String::new(),
            invoice_no: self.invoice.to_string(),
            stock_code: (20_000 + product).to_string(),
            description: format!("ARTICLE {product}"),
            quantity: quantity.cast_signed(),
            invoice_date: self.date(),
            unit_price: pounds(price_pence),
            customer_id: self.customer.clone(),
            country: "United Kingdom".to_owned(),
        };
        if self.recent.len() == RECENT_LINES {
            self.recent.remove(0);
        }
        self.recent.push(row.clone());
        row
    }

    /// Takes back an earlier purchase, once, on an invoice of its own.
    fn cancellation(&mut self) -> Option<Row> {
        let count = u64::try_from(self.recent.len()).ok().filter(|count| *count > 0)?;
        let index = usize::try_from(self.random.below(count)).ok()?;
        let bought = self.recent.remove(index);
        Some(Row {
            invoice_no: format!("C{}", self.invoice),
            quantity: -bought.quantity,
            invoice_date: self.date(),
            ..bought
        })
    }

    fn date(&self) -> String {
        let (day, minute) = (self.minute / (12 * 60), self.minute % (12 * 60));
        // Months of 28 days: no calendar is needed for dates that rise.
        let (year, month, day) = (2010 + day / 336, 1 + day / 28 % 12, 1 + day % 28);
        format!("{year}-{month:02}-{day:02} {:02}:{:02}:00", 8 + minute / 60, minute % 60)
    }
}

/// As the real data writes prices: `2.55`, `2.1`, `3.0`.
fn pounds(pence: u64) -> String {
    let text = format!("{}.{:02}", pence / 100, pence % 100);
    match text.strip_suffix('0') {
        Some(shorter) => shorter.to_owned(),
        None => text,
    }
}

/// SplitMix64: small, and the same everywhere.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to `bound` - 1, `bound` being above 0.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// From 0 to `bound` - 1, small ones much more often: the cube of an even distribution.
    fn skewed(&mut self, bound: u64) -> u64 {
        const SCALE: u64 = 1 << 20;
        let even = self.below(SCALE);
        let cube = u128::from(even) * u128::from(even) * u128::from(even);
        let scaled = (cube * u128::from(bound)) >> 60;
        u64::try_from(scaled).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn the_seed_decides_and_a_shorter_run_is_the_beginning_of_a_longer() {
        let rows: Vec<Row> = generate(1).take(2_000).collect();
        assert_eq!(rows[..500], generate(1).take(500).collect::<Vec<_>>());
        assert_ne!(rows[..500], generate(2).take(500).collect::<Vec<_>>());
        assert!(rows.iter().zip(1..).all(|(row, number)| row.number == number));
        assert!(rows.is_sorted_by_key(|row| row.invoice_date.clone()));
    }

    #[test]
    fn the_shape_is_that_of_the_real_data() {
        let rows: Vec<Row> = generate(3).take(50_000).collect();
        let share = |count: usize| count * 1_000 / rows.len();
        let guests = rows.iter().filter(|row| row.customer_id.is_empty()).count();
        assert!((300..450).contains(&share(guests)), "{guests} without a customer");
        let cancellations: Vec<&Row> = rows.iter().filter(|row| row.invoice_no.starts_with('C')).collect();
        assert!((8..25).contains(&share(cancellations.len())), "{} cancellations", cancellations.len());
        assert!(cancellations.iter().all(|row| row.quantity < 0));
        let mut seen: HashMap<String, usize> = HashMap::new();
        let repeated = rows
            .iter()
            .filter(|row| {
                let count = seen.entry(serde_json::to_string(row).unwrap()).or_default();
                *count += 1;
                *count > 1
            })
            .count();
        assert!((4..20).contains(&share(repeated)), "{repeated} rows that are there already");
    }

    #[test]
    fn few_customers_buy_most() {
        let mut lines: HashMap<String, usize> = HashMap::new();
        for row in generate(5).take(50_000).filter(|row| !row.customer_id.is_empty()) {
            *lines.entry(row.customer()).or_default() += 1;
        }
        let mut counts: Vec<usize> = lines.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let (top, all) = (counts.iter().take(100).sum::<usize>(), counts.iter().sum::<usize>());
        assert!(counts.len() > 500 && top * 10 > all * 4, "{} customers, {top} of {all}", counts.len());
    }

    #[test]
    fn prices_are_written_as_in_the_real_data() {
        for (pence, text) in [(255, "2.55"), (210, "2.1"), (300, "3.0"), (7, "0.07"), (0, "0.0")] {
            assert_eq!(pounds(pence), text);
        }
    }
}
