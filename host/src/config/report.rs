//! What is wrong with configuration files, in a form that the operator can act on.

use std::fmt;
use std::path::{Path, PathBuf};

/// The kind of a mistake. Its number never changes its meaning, so that it can be looked up and filtered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Code {
    /// PC001: a configuration file can't be read.
    FileUnreadable = 1,
    /// PC002: a configuration file is not TOML.
    InvalidToml = 2,
    /// PC003: a field that does not exist.
    UnknownField = 3,
    /// PC004: a field or section is required and not there.
    MissingField = 4,
    /// PC005: a value of another type than the field's.
    WrongType = 5,
    /// PC006: a number outside its range, or two numbers that don't fit each other.
    OutOfRange = 6,
    /// PC007: a text that is none of the field's choices.
    InvalidChoice = 7,
    /// PC008: a text that can't be what it should be: empty, too long, or with characters that are not allowed.
    InvalidText = 8,
    /// PC009: not a NATS subject or subject pattern.
    InvalidSubject = 9,
    /// PC010: a subject that belongs to the broker itself.
    ReservedSubject = 10,
    /// PC011: fields that exclude each other, or that have no effect together.
    Conflict = 11,
    /// PC012: not the URL of a server.
    InvalidUrl = 12,
    /// PC013: not an address that can be listened on, or one that others can reach although there is no token.
    InvalidAddress = 13,
    /// PC014: not a JSON pointer.
    InvalidPointer = 14,
    /// PC015: a file that the configuration names is missing or can't be read.
    NamedFileUnreadable = 15,
    /// PC016: the file's name can't be a consumer's name.
    InvalidConsumerName = 16,
    /// PC017: subject patterns that must not overlap do.
    SubjectsOverlap = 17,
    /// PC018: two manifests declare one stream in different ways.
    StreamDeclaredTwice = 18,
    /// PC019: two consumers want the same messages of a work-queue stream, which gives each message to one only.
    WorkQueueShared = 19,
    /// PC020: a subscription for subjects that its declared stream does not hold.
    SubjectOutsideStream = 20,
    /// PC021: not a log filter.
    InvalidFilter = 21,
    /// PC022: the directory of the manifests can't be read, so nothing is known about any of them.
    DirectoryUnreadable = 22,
    /// PC023: not a source that a component can come from.
    InvalidComponent = 23,
}

impl Code {
    /// All codes, in the order of their numbers.
    pub const ALL: [Self; 23] = [
        Self::FileUnreadable,
        Self::InvalidToml,
        Self::UnknownField,
        Self::MissingField,
        Self::WrongType,
        Self::OutOfRange,
        Self::InvalidChoice,
        Self::InvalidText,
        Self::InvalidSubject,
        Self::ReservedSubject,
        Self::Conflict,
        Self::InvalidUrl,
        Self::InvalidAddress,
        Self::InvalidPointer,
        Self::NamedFileUnreadable,
        Self::InvalidConsumerName,
        Self::SubjectsOverlap,
        Self::StreamDeclaredTwice,
        Self::WorkQueueShared,
        Self::SubjectOutsideStream,
        Self::InvalidFilter,
        Self::DirectoryUnreadable,
        Self::InvalidComponent,
    ];
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PC{:03}", *self as u16)
    }
}

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its kind.
    pub code: Code,
    /// The file or directory, named as the user named it.
    pub file: PathBuf,
    /// Where in the file; none if it concerns the file as a whole.
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// The way out.
    pub help: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(place) = self.place {
            write!(f, "{place}:")?;
        }
        writeln!(f, " error[{}]: {}", self.code, self.message)?;
        writeln!(f, "  help: {}", self.help)
    }
}

/// All mistakes that were found, in the order of their files and places. Its text is two lines for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    problems: Vec<Problem>,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// The mistakes, sorted by file and place.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whether there is a mistake of this kind.
    #[must_use]
    pub fn has(&self, code: Code) -> bool {
        self.problems.iter().any(|problem| problem.code == code)
    }

    /// The mistakes of one file.
    pub fn of_file<'a>(&'a self, file: &'a Path) -> impl Iterator<Item = &'a Problem> {
        self.problems.iter().filter(move |problem| problem.file == file)
    }

    /// Adds the mistakes of another report.
    pub fn merge(&mut self, other: Self) {
        self.problems.extend(other.problems);
        self.problems.sort_by(|a, b| (&a.file, a.place, a.code).cmp(&(&b.file, b.place, b.code)));
    }
}

impl From<Vec<Problem>> for Report {
    fn from(problems: Vec<Problem>) -> Self {
        let mut report = Self::default();
        report.merge(Self { problems });
        report
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problems.iter().try_for_each(|problem| problem.fmt(f))
    }
}

impl std::error::Error for Report {}
