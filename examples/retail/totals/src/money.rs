//! Sums of money in whole pence: no floating point, and no sum that wraps.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What a customer has bought so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Total {
    /// Purchases less cancellations.
    pub(crate) total_pence: i64,
    /// Lines added up, cancellations included.
    pub(crate) lines: u64,
    /// How many of them were cancellations.
    pub(crate) cancellations: u64,
}

/// A line that can't be added up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum MoneyError {
    /// Not a decimal number with at most two digits behind the point.
    Price(String),
    /// The sum does not fit.
    TooLarge,
}

impl fmt::Display for MoneyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Price(text) => write!(formatter, "the unit price \"{text}\" is not an amount in pounds and pence"),
            Self::TooLarge => formatter.write_str("the amount does not fit 64 bits of pence"),
        }
    }
}

impl Error for MoneyError {}

impl Total {
    /// The total with one more line.
    pub(crate) fn with(&self, amount_pence: i64, is_cancellation: bool) -> Result<Self, MoneyError> {
        Ok(Self {
            total_pence: self.total_pence.checked_add(amount_pence).ok_or(MoneyError::TooLarge)?,
            lines: self.lines + 1,
            cancellations: self.cancellations + u64::from(is_cancellation),
        })
    }
}

/// Quantity times unit price.
pub(crate) fn amount_pence(quantity: i64, unit_price: &str) -> Result<i64, MoneyError> {
    quantity.checked_mul(pence(unit_price)?).ok_or(MoneyError::TooLarge)
}

/// The pence of a decimal number of pounds: `2.55`, `2.1`, `-11062.06`, `3`.
fn pence(text: &str) -> Result<i64, MoneyError> {
    let wrong = || MoneyError::Price(text.to_owned());
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let (pounds, pence) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(pounds) || !is_number(pence) || pence.len() > 2 {
        return Err(wrong());
    }
    let tens = if pence.len() == 1 { 10 } else { 1 };
    let pounds: i64 = pounds.parse().map_err(|_| MoneyError::TooLarge)?;
    let pence: i64 = pence.parse().map_err(|_| wrong())?;
    pounds
        .checked_mul(100)
        .and_then(|sum| sum.checked_add(pence * tens))
        .map(|sum| sign * sum)
        .ok_or(MoneyError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_read_to_the_penny() {
        for (text, expected) in
            [("2.55", 255), ("2.1", 210), ("0.0", 0), ("3", 300), ("-11062.06", -1_106_206), ("0.07", 7)]
        {
            assert_eq!(pence(text), Ok(expected), "{text}");
        }
        for text in ["", ".", "1.", ".5", "1.234", "1,5", "+1", "1e3", "NaN", "--1", "1.-5"] {
            assert_eq!(pence(text), Err(MoneyError::Price(text.to_owned())), "{text}");
        }
        assert_eq!(pence("99999999999999999999"), Err(MoneyError::TooLarge));
    }

    #[test]
    fn cancellations_take_from_the_total_and_are_counted() {
        let total = Total::default().with(amount_pence(6, "2.55").unwrap(), false).unwrap();
        let total = total.with(amount_pence(-2, "2.55").unwrap(), true).unwrap();
        assert_eq!(total, Total { total_pence: 1_020, lines: 2, cancellations: 1 });
    }

    #[test]
    fn a_sum_that_does_not_fit_is_an_error() {
        assert_eq!(amount_pence(i64::MAX, "0.02"), Err(MoneyError::TooLarge));
        let full = Total { total_pence: i64::MAX, ..Total::default() };
        assert_eq!(full.with(1, false), Err(MoneyError::TooLarge));
    }
}
