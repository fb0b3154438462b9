//! Reads TOML field by field: records what is wrong, goes on with what is right, and at the end of each section reports the
//! fields that nobody asked for.
//!
//! A [`Section`] learns the names of its fields by being asked for them, so a parser has to ask for all of them, whatever
//! their values are, and end with [`Section::finish`].

mod numbers;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::effective::{self, Given};
use super::report::{Code, Place, Problem, Report};

/// Longest configuration file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// More syntax errors than this are not told: they follow from each other.
const SYNTAX_ERRORS_MAX: usize = 10;
/// Names that are less alike than this are not proposed.
const LIKENESS_MIN: f64 = 0.8;

/// A value and where it begins in the text.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    /// Bytes before it.
    pub(super) offset: usize,
}

/// One file being read, and what was found wrong with it.
pub(super) struct Context<'t> {
    pub(super) file: &'t Path,
    text: &'t str,
    problems: RefCell<Vec<Problem>>,
    known: RefCell<BTreeSet<String>>,
    given: RefCell<Given>,
}

/// Reads a file that must be text of bearable size.
pub(super) fn read_file(file: &Path, help: &str) -> Result<String, Report> {
    let unreadable = |code, message| {
        let problem = Problem { code, file: file.into(), place: None, message, help: help.into() };
        Report::from(vec![problem])
    };
    let length = std::fs::metadata(file)
        .map_err(|error| unreadable(Code::FileUnreadable, format!("the file can't be read: {error}")))?
        .len();
    if length > FILE_BYTES_MAX {
        let message = format!("the file has {length} bytes; {FILE_BYTES_MAX} are the most");
        return Err(unreadable(Code::FileUnreadable, message));
    }
    let bytes = std::fs::read(file)
        .map_err(|error| unreadable(Code::FileUnreadable, format!("the file can't be read: {error}")))?;
    String::from_utf8(bytes)
        .map_err(|error| unreadable(Code::InvalidToml, format!("the file is not UTF-8 text: {}", error.utf8_error())))
}

impl<'t> Context<'t> {
    pub(super) fn new(file: &'t Path, text: &'t str) -> Self {
        Self { file, text, problems: RefCell::default(), known: RefCell::default(), given: RefCell::default() }
    }

    /// The file's top level; none if it is not TOML, which is then reported.
    pub(super) fn root<'c>(&'c self) -> Option<Section<'c, 't>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in errors.iter().take(SYNTAX_ERRORS_MAX) {
            let offset = error.span().map_or(0, |span| span.start);
            let help = "correct the syntax (toml.io has the format); nothing else in this file was checked";
            self.report(Code::InvalidToml, offset, error.message(), help);
        }
        if errors.is_empty() { Some(Section::new(self, String::new(), 0, table.into_inner())) } else { None }
    }

    pub(super) fn report(&self, code: Code, offset: usize, message: impl Into<String>, help: impl Into<String>) {
        self.problems.borrow_mut().push(Problem {
            code,
            file: self.file.into(),
            place: Some(self.place(offset)),
            message: message.into(),
            help: help.into(),
        });
    }

    pub(super) fn place(&self, offset: usize) -> Place {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(line_start..).map_or(0, |text| text.chars().count()) + 1;
        Place { line: before.bytes().filter(|byte| *byte == b'\n').count() + 1, column }
    }

    /// The names of all fields that were asked for, each after its section's name and a dot.
    pub(super) fn known_fields(&self) -> BTreeSet<String> {
        self.known.borrow().clone()
    }

    /// The values of the file that were asked for, by their names.
    pub(super) fn given(&self) -> Given {
        self.given.borrow().clone()
    }

    fn note_given(&self, name: String, value: &At<DeValue<'_>>) {
        if let Some(plain) = effective::plain(&value.value) {
            self.given.borrow_mut().insert(name, (plain, self.place(value.offset).line));
        }
    }

    pub(super) fn into_report(self) -> Report {
        Report::from(self.problems.into_inner())
    }
}

/// A table of which fields are taken one by one.
#[must_use]
pub(super) struct Section<'c, 't> {
    context: &'c Context<'t>,
    /// How messages name it, brackets included; empty for the file's top level.
    title: String,
    /// How settings name it: its name, and the number of an item of a list of sections.
    path: String,
    pub(super) offset: usize,
    fields: BTreeMap<String, Field<'t>>,
    asked: Vec<&'static str>,
}

struct Field<'t> {
    name_offset: usize,
    value: At<DeValue<'t>>,
}

impl<'c, 't> Section<'c, 't> {
    fn new(context: &'c Context<'t>, title: String, offset: usize, table: DeTable<'t>) -> Self {
        let fields = table.into_iter().map(|(name, value)| {
            let value_offset = value.span().start;
            let value = At { value: value.into_inner(), offset: value_offset };
            (name.get_ref().to_string(), Field { name_offset: name.span().start, value })
        });
        let path = title.trim_matches(['[', ']']).to_owned();
        Self { context, title, path, offset, fields: fields.collect(), asked: Vec::new() }
    }

    /// The name of one of its fields among the settings.
    fn setting(&self, field: &str) -> String {
        if self.path.is_empty() { field.to_owned() } else { format!("{}.{field}", self.path) }
    }

    /// How messages name one of its fields.
    pub(super) fn name_of(&self, field: &str) -> String {
        if self.title.is_empty() { format!("\"{field}\"") } else { format!("\"{field}\" in {}", self.title) }
    }

    fn take(&mut self, name: &'static str) -> Option<At<DeValue<'t>>> {
        self.take_field(name).map(|field| field.value)
    }

    fn take_field(&mut self, name: &'static str) -> Option<Field<'t>> {
        self.asked.push(name);
        self.context.known.borrow_mut().insert(format!("{}.{name}", self.title.trim_matches(['[', ']'])));
        let field = self.fields.remove(name);
        if let Some(field) = &field {
            self.context.note_given(self.setting(name), &field.value);
        }
        field
    }

    fn wrong_type(&self, name: &str, wanted: &str, given: &At<DeValue<'t>>) {
        let message = format!("{} must be {wanted}; it is {}", self.name_of(name), article(given.value.type_str()));
        self.context.report(Code::WrongType, given.offset, message, format!("write {wanted}"));
    }

    /// Whether none of these fields is there, whatever its value.
    pub(super) fn has_none_of(&self, names: &[&str]) -> bool {
        names.iter().all(|name| !self.fields.contains_key(*name))
    }

    /// Those of these fields that are there, whatever their values.
    pub(super) fn those_of(&self, names: &[&'static str]) -> Vec<&'static str> {
        names.iter().copied().filter(|name| self.fields.contains_key(*name)).collect()
    }

    /// Whether there is a field that existed once: reported as the unknown one that it is now, with what took its place.
    pub(super) fn gone(&mut self, name: &str, help: &str) -> bool {
        let Some(field) = self.fields.remove(name) else { return false };
        let message = format!("unknown field {}", self.name_of(name));
        self.context.report(Code::UnknownField, field.name_offset, message, help);
        true
    }

    fn check_there(&self, name: &str, help: &str) {
        if !self.fields.contains_key(name) {
            self.context.report(Code::MissingField, self.offset, format!("{} is missing", self.name_of(name)), help);
        }
    }

    /// A text that is not empty and must be there, which is reported if it is not.
    pub(super) fn required_text(&mut self, name: &'static str, help: &str) -> Option<At<String>> {
        self.check_there(name, help);
        self.text(name)
    }

    /// A list of texts that must be there and hold at least one.
    pub(super) fn required_texts(&mut self, name: &'static str, help: &str) -> Option<Vec<At<String>>> {
        self.check_there(name, help);
        let given = self.take(name)?;
        let offset = given.offset;
        let texts = self.as_texts(name, given)?;
        if texts.is_empty() {
            self.context.report(Code::InvalidText, offset, format!("{} is empty", self.name_of(name)), help);
        }
        Some(texts)
    }

    /// A text that is not empty.
    pub(super) fn text(&mut self, name: &'static str) -> Option<At<String>> {
        let given = self.take(name)?;
        self.as_text(name, given)
    }

    fn as_text(&self, name: &str, given: At<DeValue<'t>>) -> Option<At<String>> {
        match given.value {
            DeValue::String(text) if text.is_empty() => {
                let message = format!("{} is empty", self.name_of(name));
                self.context.report(Code::InvalidText, given.offset, message, "give it a value or remove the line");
                None
            }
            DeValue::String(text) => Some(At { value: text.into_owned(), offset: given.offset }),
            _ => {
                self.wrong_type(name, "a string", &given);
                None
            }
        }
    }

    /// A list of texts, none of which is empty.
    pub(super) fn texts(&mut self, name: &'static str) -> Option<Vec<At<String>>> {
        let given = self.take(name)?;
        self.as_texts(name, given)
    }

    fn as_texts(&self, name: &str, given: At<DeValue<'t>>) -> Option<Vec<At<String>>> {
        let DeValue::Array(items) = given.value else {
            self.wrong_type(name, "a list of strings", &given);
            return None;
        };
        let texts = items.into_iter().filter_map(|item| {
            let offset = item.span().start;
            self.as_text(name, At { value: item.into_inner(), offset })
        });
        Some(texts.collect())
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, name: &'static str) -> Option<At<bool>> {
        let given = self.take(name)?;
        if let DeValue::Boolean(value) = given.value {
            return Some(At { value, offset: given.offset });
        }
        self.wrong_type(name, "true or false", &given);
        None
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, name: &'static str, choices: &[(&'static str, T)]) -> Option<At<T>> {
        let given = self.text(name)?;
        let chosen = choices.iter().find(|(word, _)| *word == given.value);
        if chosen.is_none() {
            let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            let message = format!("{} can't be \"{}\"", self.name_of(name), given.value);
            let help = suggestion(&given.value, &words).unwrap_or_else(|| format!("choose {}", listed(&words, "or")));
            self.context.report(Code::InvalidChoice, given.offset, message, help);
        }
        chosen.map(|(_, value)| At { value: *value, offset: given.offset })
    }

    /// A section; an empty one if it is not there.
    pub(super) fn section(&mut self, name: &'static str) -> Self {
        self.optional_section(name)
            .unwrap_or_else(|| Section::new(self.context, format!("[{name}]"), self.offset, DeTable::new()))
    }

    /// A section that must be there, which is reported if it is not.
    pub(super) fn required_section(&mut self, name: &'static str, help: &str) -> Option<Self> {
        if !self.fields.contains_key(name) {
            self.context.report(Code::MissingField, self.offset, format!("section [{name}] is missing"), help);
        }
        self.optional_section(name)
    }

    /// A section, if it is there.
    pub(super) fn optional_section(&mut self, name: &'static str) -> Option<Self> {
        let Field { name_offset, value } = self.take_field(name)?;
        if let DeValue::Table(table) = value.value {
            return Some(Section::new(self.context, format!("[{name}]"), name_offset, table));
        }
        self.wrong_type(name, &format!("a section [{name}]"), &value);
        None
    }

    /// Sections that may occur any number of times.
    pub(super) fn sections(&mut self, name: &'static str) -> Vec<Self> {
        let Some(given) = self.take(name) else { return Vec::new() };
        let wanted = format!("a section [[{name}]], in two pairs of brackets");
        let DeValue::Array(items) = given.value else {
            self.wrong_type(name, &wanted, &given);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (number, item) in items.into_iter().enumerate() {
            let offset = item.span().start;
            match item.into_inner() {
                DeValue::Table(table) => {
                    let section = Section::new(self.context, format!("[[{name}]]"), offset, table);
                    sections.push(Section { path: format!("{name}.{number}"), ..section });
                }
                value => self.wrong_type(name, &wanted, &At { value, offset }),
            }
        }
        sections
    }

    /// Takes all fields of a section whose names are free, as text.
    pub(super) fn free_texts(mut self) -> BTreeMap<String, String> {
        let mut texts = BTreeMap::new();
        for (name, field) in std::mem::take(&mut self.fields) {
            self.context.note_given(self.setting(&name), &field.value);
            match plain_text(&field.value.value) {
                Some(text) => {
                    texts.insert(name, text);
                }
                None => self.wrong_type(&name, "a string, a number, true or false", &field.value),
            }
        }
        texts
    }

    /// Reports the fields that nobody asked for.
    pub(super) fn finish(self) {
        for (name, field) in &self.fields {
            let help = suggestion(name, &self.asked).unwrap_or_else(|| {
                let place = if self.title.is_empty() { "at the top level" } else { self.title.as_str() };
                format!("fields {place}: {}", self.asked.join(", "))
            });
            let message = format!("unknown field {}", self.name_of(name));
            self.context.report(Code::UnknownField, field.name_offset, message, help);
        }
    }
}

/// Integers in another radix are written in decimal; all else is as it stands in the file.
fn plain_text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(integer) => {
            i128::from_str_radix(integer.as_str(), integer.radix()).ok().map(|value| value.to_string())
        }
        DeValue::Float(float) => Some(float.as_str().into()),
        DeValue::Boolean(value) => Some(value.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// Which of the known names was meant, as a question; none if none is near.
pub(crate) fn suggestion(given: &str, known: &[&str]) -> Option<String> {
    let likeness = |name: &str| strsim::jaro_winkler(given, name);
    let nearest = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(nearest) >= LIKENESS_MIN).then(|| format!("did you mean \"{nearest}\"?"))
}

/// Words in quotes with commas between them, and `last` before the last.
pub(super) fn listed(words: &[&str], last: &str) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((end, rest)) if !rest.is_empty() => format!("{} {last} {end}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// The kind of a value with its article.
pub(crate) fn article(kind: &str) -> String {
    if kind.starts_with(['a', 'i']) { format!("an {kind}") } else { format!("a {kind}") }
}
