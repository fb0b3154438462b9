//! Reads a description that an author wrote, in TOML or JSON, field by field: records what is wrong with the place where it is, and reports
//! fields that nobody asked for with the nearest known one.
//!
//! A [`Fields`] learns the names of its fields by being asked for them, so a reader asks for all of them and ends with [`Fields::finish`].

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};

use super::BadInput;
use crate::config::{article, suggestion};

/// Longest description, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Names and values; a name may occur more than once.
pub(super) type Pairs = Vec<(String, String)>;

/// What was found wrong with one file.
#[derive(Default)]
pub(super) struct Problems {
    found: RefCell<Vec<String>>,
}

impl Problems {
    pub(super) fn report(&self, place: &str, problem: impl AsRef<str>) {
        let problem = problem.as_ref();
        self.found.borrow_mut().push(if place.is_empty() { problem.to_owned() } else { format!("{place}: {problem}") });
    }

    /// # Errors
    /// Everything that was found, if anything was; each line begins with the file's name.
    pub(super) fn conclude(self, file: &str) -> Result<(), BadInput> {
        let found = self.found.into_inner();
        if found.is_empty() {
            return Ok(());
        }
        let lines: Vec<String> = found.iter().map(|problem| format!("{file}: {problem}")).collect();
        Err(BadInput(lines.join("\n")))
    }
}

/// An object of which fields are taken one by one.
#[must_use]
pub(super) struct Fields<'p, 'v> {
    problems: &'p Problems,
    place: String,
    members: BTreeMap<&'v str, &'v Value>,
    asked: Vec<&'static str>,
}

impl<'p, 'v> Fields<'p, 'v> {
    /// The fields of a value; none if it is no object, which is reported.
    pub(super) fn of(problems: &'p Problems, place: &str, value: &'v Value) -> Option<Self> {
        let Value::Object(map) = value else {
            problems.report(place, format!("must be a table of fields; it is {}", kind(value)));
            return None;
        };
        let members = map.iter().map(|(name, value)| (name.as_str(), value)).collect();
        Some(Self { problems, place: place.to_owned(), members, asked: Vec::new() })
    }

    /// How messages name one of its fields.
    pub(super) fn place_of(&self, name: &str) -> String {
        if self.place.is_empty() { name.to_owned() } else { format!("{}.{name}", self.place) }
    }

    pub(super) fn report(&self, name: &str, problem: impl AsRef<str>) {
        self.problems.report(&self.place_of(name), problem);
    }

    /// Whatever is there.
    pub(super) fn value(&mut self, name: &'static str) -> Option<&'v Value> {
        self.asked.push(name);
        self.members.remove(name)
    }

    fn wrong_type(&self, name: &str, wanted: &str, value: &Value) {
        self.report(name, format!("must be {wanted}; it is {}", kind(value)));
    }

    pub(super) fn text(&mut self, name: &'static str) -> Option<&'v str> {
        let value = self.value(name)?;
        if value.as_str().is_none() {
            self.wrong_type(name, "a string", value);
        }
        value.as_str()
    }

    /// A text that is reported if it is missing.
    pub(super) fn required_text(&mut self, name: &'static str, help: &str) -> Option<&'v str> {
        if !self.members.contains_key(name) {
            self.report(name, format!("is missing: {help}"));
        }
        self.text(name)
    }

    pub(super) fn number(&mut self, name: &'static str) -> Option<u64> {
        let value = self.value(name)?;
        if value.as_u64().is_none() {
            self.wrong_type(name, "a whole number from 0", value);
        }
        value.as_u64()
    }

    pub(super) fn list(&mut self, name: &'static str) -> Option<&'v [Value]> {
        let value = self.value(name)?;
        if value.as_array().is_none() {
            self.wrong_type(name, "a list", value);
        }
        value.as_array().map(Vec::as_slice)
    }

    pub(super) fn texts(&mut self, name: &'static str) -> Option<Vec<String>> {
        let list = self.list(name)?;
        let texts = list.iter().enumerate().filter_map(|(index, item)| {
            if item.as_str().is_none() {
                self.wrong_type(&format!("{name}[{index}]"), "a string", item);
            }
            item.as_str().map(str::to_owned)
        });
        Some(texts.collect())
    }

    /// An object whose fields have free names.
    pub(super) fn object(&mut self, name: &'static str) -> Option<&'v Map<String, Value>> {
        let value = self.value(name)?;
        if value.as_object().is_none() {
            self.wrong_type(name, "a table", value);
        }
        value.as_object()
    }

    /// Names with a text each, or with a list of texts for a name that occurs more than once.
    pub(super) fn pairs(&mut self, name: &'static str) -> Option<Pairs> {
        let mut pairs = Vec::new();
        for (field, value) in self.object(name)? {
            let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            for value in values {
                match value.as_str() {
                    Some(text) => pairs.push((field.clone(), text.to_owned())),
                    None => self.wrong_type(&format!("{name}.{field}"), "a string or a list of strings", value),
                }
            }
        }
        Some(pairs)
    }

    pub(super) fn section(&mut self, name: &'static str) -> Option<Self> {
        let place = self.place_of(name);
        let value = self.value(name)?;
        Self::of(self.problems, &place, value)
    }

    /// The fields of an item of one of its lists.
    pub(super) fn item(&self, place: &str, value: &'v Value) -> Option<Self> {
        Self::of(self.problems, place, value)
    }

    /// Reports the fields that nobody asked for.
    pub(super) fn finish(self) {
        for name in self.members.keys() {
            let help = suggestion(name, &self.asked).unwrap_or_else(|| format!("there are: {}", self.asked.join(", ")));
            self.report(name, format!("unknown field; {help}"));
        }
    }
}

fn kind(value: &Value) -> String {
    article(match value {
        Value::Null => return "null".to_owned(),
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "table",
    })
}

/// The value of a file: JSON if its name ends with `.json`, else TOML.
///
/// # Errors
/// If it can't be read or is neither.
pub(super) fn read_file(file: &Path) -> Result<Value, BadInput> {
    let text = read_text(file)?;
    let flaw = |problem: String| BadInput(format!("{}: {problem}", file.display()));
    if file.extension().is_some_and(|extension| extension == "json") {
        return serde_json::from_str(&text).map_err(|error| flaw(format!("not JSON: {error}")));
    }
    let table = DeTable::parse(&text).map_err(|error| flaw(format!("not TOML: {}", error.to_string().trim_end())))?;
    from_table(table.into_inner()).map_err(flaw)
}

/// The text of a file of bearable size.
///
/// # Errors
/// If it can't be read.
pub(super) fn read_text(file: &Path) -> Result<String, BadInput> {
    let unreadable = |error: &dyn std::fmt::Display| BadInput(format!("{} can't be read: {error}", file.display()));
    let length = std::fs::metadata(file).map_err(|error| unreadable(&error))?.len();
    if length > FILE_BYTES_MAX {
        return Err(unreadable(&format!("it has {length} bytes; {FILE_BYTES_MAX} are the most")));
    }
    std::fs::read_to_string(file).map_err(|error| unreadable(&error))
}

fn from_table(table: DeTable<'_>) -> Result<Value, String> {
    let members = table.into_iter().map(|(name, value)| {
        let name = name.into_inner().into_owned();
        let value = from_toml(value.into_inner()).map_err(|problem| format!("{name}: {problem}"))?;
        Ok((name, value))
    });
    members.collect::<Result<Map<String, Value>, String>>().map(Value::Object)
}

fn from_toml(value: DeValue<'_>) -> Result<Value, String> {
    match value {
        DeValue::String(text) => Ok(Value::String(text.into_owned())),
        DeValue::Boolean(value) => Ok(Value::Bool(value)),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map(Value::from)
            .or_else(|_| u64::from_str_radix(integer.as_str(), integer.radix()).map(Value::from))
            .map_err(|_| format!("{} does not fit 64 bits", integer.as_str())),
        DeValue::Float(float) => (float.as_str().parse().ok())
            .and_then(serde_json::Number::from_f64)
            .map(Value::Number)
            .ok_or_else(|| format!("{} is no number that JSON has", float.as_str())),
        DeValue::Datetime(time) => Err(format!("write the time {time} as a string")),
        DeValue::Array(items) => {
            items.into_iter().map(|item| from_toml(item.into_inner())).collect::<Result<_, _>>().map(Value::Array)
        }
        DeValue::Table(table) => from_table(table),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of(text: &str) -> String {
        let value: Value = serde_json::from_str(text).unwrap();
        let problems = Problems::default();
        let mut fields = Fields::of(&problems, "message", &value).unwrap();
        fields.required_text("subject", "name one");
        fields.number("sequence");
        fields.pairs("headers");
        fields.finish();
        problems.conclude("x.json").map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn what_is_wrong_is_told_by_its_place_and_all_at_once() {
        assert_eq!(problems_of(r#"{"subject":"a","headers":{"x":["1","2"]}}"#), "");
        let text = problems_of(r#"{"sequence":-1,"headers":{"x":7},"subjekt":"a","zzz":1}"#);
        for part in [
            "x.json: message.subject: is missing: name one",
            "message.sequence: must be a whole number from 0; it is a number",
            "message.headers.x: must be a string or a list of strings; it is a number",
            "message.subjekt: unknown field; did you mean \"subject\"?",
            "message.zzz: unknown field; there are: subject, sequence, headers",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn toml_becomes_the_json_that_it_says() {
        let read = |text: &str| from_table(DeTable::parse(text).unwrap().into_inner());
        let value = read("a = 0x10\nb = [1.5, true]\nc = { d = \"x\" }\ne = 18446744073709551615").unwrap();
        assert_eq!(value.to_string(), r#"{"a":16,"b":[1.5,true],"c":{"d":"x"},"e":18446744073709551615}"#);
        assert!(read("a = { b = inf }").unwrap_err().starts_with("a: b: inf is no number"));
        assert!(read("a = 1979-05-27").unwrap_err().contains("as a string"));
    }
}
