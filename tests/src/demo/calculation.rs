//! What the chain must come to, calculated from the published rows alone, and compared with what came out.
//!
//! Nothing of the plug-ins is used: money is counted here in its own way, from the text of the price.

use std::collections::{BTreeMap, HashSet};

use anyhow::Result;
use retail_feed::Row;
use serde::Deserialize;

use crate::reader::Stored;

/// Differences that are kept in words.
const DETAILS_MAX: usize = 10;

/// An event of `totals`, of either version.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct TotalEvent {
    customer: String,
    total_pence: i64,
    lines: u64,
    cancellations: u64,
    invoice: String,
    amount_pence: i64,
    pub(super) currency: Option<String>,
}

/// An event of `notify`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
struct Notification {
    customer: String,
    total_pence: i64,
    threshold_pence: i64,
    lines: u64,
}

/// What differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Rows without an event, and notifications that are missing.
    pub lost: u64,
    /// Rows, or notifications, with more than one event.
    pub doubled: u64,
    /// Events of a customer that left before an earlier one.
    pub out_of_order: u64,
    /// Events that say something else than the calculation.
    pub wrong: u64,
    /// Some of it in words.
    pub details: Vec<String>,
}

impl Findings {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.lost + self.doubled + self.out_of_order + self.wrong
    }

    fn note(&mut self, detail: String) {
        if self.details.len() < DETAILS_MAX {
            self.details.push(detail);
        }
    }
}

/// What must come out.
#[derive(Debug, Default)]
pub(super) struct Calculation {
    /// Each customer's events, in order.
    totals: BTreeMap<String, Vec<TotalEvent>>,
    threshold_pence: i64,
}

impl Calculation {
    /// Calculates from the rows in the order in which they were published.
    pub(super) fn new(rows: &[Row], threshold_pence: i64) -> Self {
        let mut totals: BTreeMap<String, Vec<TotalEvent>> = BTreeMap::new();
        for row in rows {
            let Some(amount_pence) = price_pence(&row.unit_price).and_then(|price| price.checked_mul(row.quantity))
            else {
                continue;
            };
            let events = totals.entry(row.customer()).or_default();
            let before = events.last().map_or((0, 0), |last| (last.total_pence, last.cancellations));
            let is_cancellation = row.invoice_no.starts_with('C') || row.quantity < 0;
            events.push(TotalEvent {
                customer: row.customer(),
                total_pence: before.0 + amount_pence,
                lines: events.len() as u64 + 1,
                cancellations: before.1 + u64::from(is_cancellation),
                invoice: row.invoice_no.clone(),
                amount_pence,
                currency: None,
            });
        }
        Self { totals, threshold_pence }
    }

    /// How many events `totals` must emit.
    pub(super) fn events(&self) -> u64 {
        self.totals.values().map(|events| events.len() as u64).sum()
    }

    /// How many notifications there must be.
    pub(super) fn notifications(&self) -> u64 {
        self.totals.values().filter_map(|events| self.notification(events)).count() as u64
    }

    fn notification(&self, events: &[TotalEvent]) -> Option<Notification> {
        let first = events.iter().find(|event| event.total_pence >= self.threshold_pence)?;
        Some(Notification {
            customer: first.customer.clone(),
            total_pence: first.total_pence,
            threshold_pence: self.threshold_pence,
            lines: first.lines,
        })
    }

    /// Compares every event of `totals`; says how many rows were applied exactly once, and how many events each version emitted.
    pub(super) fn compare_totals(&self, stored: &[Stored], findings: &mut Findings) -> Result<(u64, [u64; 2])> {
        let mut by_customer: BTreeMap<String, Vec<TotalEvent>> = BTreeMap::new();
        let mut versions = [0; 2];
        for message in different(stored) {
            let event: TotalEvent = message.json()?;
            let [first, second] = &mut versions;
            *(if event.currency.is_none() { first } else { second }) += 1;
            by_customer.entry(event.customer.clone()).or_default().push(TotalEvent { currency: None, ..event });
        }
        let mut applied_once = 0;
        for (customer, expected) in &self.totals {
            applied_once +=
                compare_customer(customer, expected, by_customer.get(customer).map_or(&[], Vec::as_slice), findings);
        }
        for customer in by_customer.keys().filter(|customer| !self.totals.contains_key(*customer)) {
            findings.wrong += 1;
            findings.note(format!("there are totals of customer {customer}, of whom nothing was published"));
        }
        Ok((applied_once, versions))
    }

    /// Compares every notification.
    pub(super) fn compare_notifications(&self, stored: &[Stored], findings: &mut Findings) -> Result<()> {
        let mut expected: HashSet<Notification> =
            self.totals.values().filter_map(|events| self.notification(events)).collect();
        let mut seen = HashSet::new();
        for message in different(stored) {
            let notification: Notification = message.json()?;
            if !seen.insert(notification.customer.clone()) {
                findings.doubled += 1;
                findings.note(format!("customer {} was notified again", notification.customer));
            } else if !expected.remove(&notification) {
                findings.wrong += 1;
                findings.note(format!("not as calculated: {notification:?}"));
            }
        }
        for missing in expected.iter().filter(|missing| !seen.contains(&missing.customer)) {
            findings.lost += 1;
            findings.note(format!("missing: {missing:?}"));
        }
        Ok(())
    }
}

/// The messages without those that came again under a known id.
fn different(stored: &[Stored]) -> impl Iterator<Item = &Stored> {
    let mut ids = HashSet::new();
    stored.iter().filter(move |message| ids.insert(message.id().unwrap_or_default().to_owned()))
}

/// Compares one customer's events; says how many are exactly as they must be.
fn compare_customer(customer: &str, expected: &[TotalEvent], found: &[TotalEvent], findings: &mut Findings) -> u64 {
    let mut seen = HashSet::new();
    let mut applied_once = 0;
    let mut last = 0;
    for event in found {
        let wanted = usize::try_from(event.lines).ok().and_then(|lines| expected.get(lines.checked_sub(1)?));
        if !seen.insert(event.lines) {
            findings.doubled += 1;
            findings.note(format!("customer {customer}: line {} was applied again", event.lines));
        } else if wanted != Some(event) {
            findings.wrong += 1;
            findings.note(format!("customer {customer}: {event:?}, calculated: {wanted:?}"));
        } else {
            applied_once += 1;
        }
        if event.lines < last {
            findings.out_of_order += 1;
            findings.note(format!(
                "customer {customer}: the event of line {} left behind that of line {last}",
                event.lines
            ));
        }
        last = event.lines;
    }
    let missing = (1..=expected.len() as u64).filter(|line| !seen.contains(line)).count() as u64;
    if missing > 0 {
        findings.lost += missing;
        findings.note(format!("customer {customer}: {missing} of {} lines have no event", expected.len()));
    }
    applied_once
}

/// A price in pence: the digits without the point, filled up to two behind it.
fn price_pence(text: &str) -> Option<i64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 2 || (text.contains('.') && part.is_empty()) {
        return None;
    }
    let digits = format!("{whole}{part}{}", "0".repeat(2 - part.len()));
    let plain = digits.strip_prefix('-').unwrap_or(&digits);
    let is_number = !plain.is_empty() && plain.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(sequence: u64, body: &str) -> Stored {
        let headers = vec![("Nats-Msg-Id".to_owned(), format!("event-{sequence}"))];
        Stored { sequence, stored_at_ms: 0, subject: "x".to_owned(), headers, payload: body.to_owned().into() }
    }

    fn event(line: u64, total: i64, amount: i64) -> String {
        format!(
            "{{\"customer\":\"c\",\"total_pence\":{total},\"lines\":{line},\"cancellations\":0,\"invoice\":\"1\",\"amount_pence\":{amount}}}"
        )
    }

    /// Three lines of one customer: 1.00, 2.00, 3.00.
    fn calculation() -> Calculation {
        let mut row: Row = retail_feed::generate(1).next().unwrap();
        (row.quantity, row.invoice_no, row.customer_id) = (1, "1".to_owned(), "c".to_owned());
        let rows = ["1.0", "2.00", "3"].map(|price| Row { unit_price: price.to_owned(), ..row.clone() });
        Calculation::new(&rows, 300)
    }

    fn compare(bodies: &[String]) -> (u64, Findings) {
        let stored: Vec<Stored> = bodies.iter().zip(1..).map(|(body, sequence)| message(sequence, body)).collect();
        let mut findings = Findings::default();
        let (applied, _) = calculation().compare_totals(&stored, &mut findings).unwrap();
        findings.details.clear();
        (applied, findings)
    }

    #[test]
    fn what_is_as_calculated_is_counted() {
        let found = compare(&[event(1, 100, 100), event(2, 300, 200), event(3, 600, 300)]);
        assert_eq!(found, (3, Findings::default()));
        assert_eq!((calculation().events(), calculation().notifications()), (3, 1));
    }

    #[test]
    fn each_kind_of_difference_is_found() {
        let all = [event(1, 100, 100), event(2, 300, 200), event(3, 600, 300)];
        let [first, second, third] = all.clone();
        let lost = compare(&[first.clone(), third.clone()]);
        assert_eq!(lost, (2, Findings { lost: 1, ..Findings::default() }));
        let doubled = compare(&[first.clone(), second.clone(), second.clone(), third.clone()]);
        assert_eq!(doubled, (3, Findings { doubled: 1, ..Findings::default() }));
        let disordered = compare(&[first.clone(), third, second.clone()]);
        assert_eq!(disordered, (3, Findings { out_of_order: 1, ..Findings::default() }));
        let wrong = compare(&[first, second, event(3, 601, 300)]);
        assert_eq!(wrong, (2, Findings { wrong: 1, ..Findings::default() }));
    }

    #[test]
    fn notifications_are_compared_whole() {
        let body =
            |total: i64| format!("{{\"customer\":\"c\",\"total_pence\":{total},\"threshold_pence\":300,\"lines\":2}}");
        let findings_of = |bodies: &[String]| {
            let stored: Vec<Stored> = bodies.iter().zip(1..).map(|(body, sequence)| message(sequence, body)).collect();
            let mut findings = Findings::default();
            calculation().compare_notifications(&stored, &mut findings).unwrap();
            (findings.lost, findings.doubled, findings.wrong)
        };
        assert_eq!(findings_of(&[body(300)]), (0, 0, 0));
        assert_eq!(findings_of(&[]), (1, 0, 0));
        assert_eq!(findings_of(&[body(300), body(300)]), (0, 1, 0));
        assert_eq!(findings_of(&[body(301)]), (0, 0, 1));
    }

    #[test]
    fn prices_are_counted_in_pence() {
        let cases = [
            ("2.55", Some(255)),
            ("2.1", Some(210)),
            ("3", Some(300)),
            ("-1.5", Some(-150)),
            ("free", None),
            ("1.234", None),
            ("1.", None),
        ];
        for (text, pence) in cases {
            assert_eq!(price_pence(text), pence, "{text}");
        }
    }
}
