//! Fields that hold numbers, each within a range that is told when it is left.

use std::fmt::Display;
use std::ops::RangeInclusive;

use toml::de::DeValue;

use super::{At, Section, suggestion};
use crate::config::report::Code;

impl<'t> Section<'_, 't> {
    /// A whole number within a range; `unit` is a word in the plural.
    pub(in crate::config) fn number(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
        unit: &str,
    ) -> Option<At<u64>> {
        let given = self.take(name)?;
        let value = self.as_number(name, &given, range, unit, "a whole number")?;
        Some(At { value, offset: given.offset })
    }

    /// The same, or a word that stands for none.
    pub(in crate::config) fn number_or_word(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
        unit: &str,
        word: &str,
    ) -> Option<At<Option<u64>>> {
        let given = self.take(name)?;
        let offset = given.offset;
        let wanted = format!("a whole number or \"{word}\"");
        let value = match &given.value {
            DeValue::String(text) if text == word => None,
            DeValue::String(text) => {
                let message = format!("{} can't be \"{text}\"", self.name_of(name));
                let help = suggestion(text, &[word]).unwrap_or_else(|| format!("write {wanted}"));
                self.context.report(Code::InvalidChoice, offset, message, help);
                return None;
            }
            _ => {
                let unit = if unit.is_empty() { format!("or \"{word}\"") } else { format!("{unit}, or \"{word}\"") };
                Some(self.as_number(name, &given, range, &unit, &wanted)?)
            }
        };
        Some(At { value, offset })
    }

    fn as_number(
        &self,
        name: &str,
        given: &At<DeValue<'t>>,
        range: RangeInclusive<u64>,
        unit: &str,
        wanted: &str,
    ) -> Option<u64> {
        let DeValue::Integer(integer) = &given.value else {
            self.wrong_type(name, wanted, given);
            return None;
        };
        let value = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
        let value = value.and_then(|value| u64::try_from(value).ok()).filter(|value| range.contains(value));
        if value.is_none() {
            self.out_of_range(name, &range, unit, given.offset, integer);
        }
        value
    }

    /// The same, with a default.
    pub(in crate::config) fn number_or(
        &mut self,
        name: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
        unit: &str,
    ) -> At<u64> {
        self.number(name, range, unit).unwrap_or(At { value: default, offset: self.offset })
    }

    /// The same, for counts and sizes of what is held in memory.
    pub(in crate::config) fn size_or(
        &mut self,
        name: &'static str,
        default: usize,
        range: RangeInclusive<u64>,
        unit: &str,
    ) -> usize {
        self.number(name, range, unit).and_then(|at| usize::try_from(at.value).ok()).unwrap_or(default)
    }

    /// A number, whole or not, within a range.
    pub(in crate::config) fn float_or(&mut self, name: &'static str, default: f64, range: RangeInclusive<f64>) -> f64 {
        let Some(given) = self.take(name) else { return default };
        let text = match &given.value {
            DeValue::Float(float) => float.as_str(),
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str(),
            _ => {
                self.wrong_type(name, "a number", &given);
                return default;
            }
        };
        // What is not a number (`nan`) is in no range.
        let value = text.parse::<f64>().ok().filter(|value| range.contains(value));
        if value.is_none() {
            self.out_of_range(name, &range, "", given.offset, &text);
        }
        value.unwrap_or(default)
    }

    fn out_of_range<T: Display>(
        &self,
        name: &str,
        range: &RangeInclusive<T>,
        unit: &str,
        offset: usize,
        given: &impl Display,
    ) {
        let (first, last) = (range.start(), range.end());
        let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
        let message = format!("{} must be from {first} to {last}{unit}; it is {given}", self.name_of(name));
        self.context.report(Code::OutOfRange, offset, message, format!("choose a value from {first} to {last}"));
    }
}
