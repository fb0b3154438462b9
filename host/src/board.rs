//! The board: what deployment and subscriptions say about each consumer, for `status` and readiness.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use pelton_core::ids::Version;

/// One consumer's entry.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// The version that serves; none: none was ever accepted.
    pub version: Option<Version>,
    /// Why the last deployment was refused.
    pub deployment: Option<String>,
    /// Why the source of its component can't be asked at the moment.
    pub source: Option<String>,
    /// What an audit found if the consumer's instances can't be reused.
    pub isolation: Option<String>,
    /// Why its stream can't be read at the moment.
    pub subscription: Option<String>,
    /// Why streams that it declares could not be created, by their names.
    pub streams: BTreeMap<Box<str>, String>,
    /// Messages of the stream that were not delivered yet, as JetStream said with the last delivery.
    pub pending: u64,
}

/// All entries, by the consumer's name.
#[derive(Debug, Default)]
pub struct Board {
    entries: Mutex<BTreeMap<Box<str>, Entry>>,
    /// What is wrong with the sources of components, by the consumer's name. Apart, because it outlives stops and starts.
    sources: Mutex<BTreeMap<Box<str>, String>>,
    /// What is wrong with files that belong to no consumer that runs.
    files: Mutex<Vec<String>>,
}

impl Board {
    /// Changes a consumer's entry, making one if there is none.
    pub fn note(&self, name: &str, change: impl FnOnce(&mut Entry)) {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get_mut(name) {
            change(entry);
        } else {
            let mut entry = Entry::default();
            change(&mut entry);
            entries.insert(name.into(), entry);
        }
    }

    /// Forgets a consumer that was stopped.
    pub fn forget(&self, name: &str) {
        self.entries.lock().remove(name);
    }

    /// Forgets all consumers that are not known.
    pub fn keep(&self, known: impl Fn(&str) -> bool) {
        self.entries.lock().retain(|name, _| known(name));
    }

    /// All entries as they are now.
    #[must_use]
    pub fn entries(&self) -> BTreeMap<Box<str>, Entry> {
        let mut entries = self.entries.lock().clone();
        for (name, trouble) in &*self.sources.lock() {
            if let Some(entry) = entries.get_mut(name) {
                entry.source = Some(trouble.clone());
            }
        }
        entries
    }

    /// Replaces what is wrong with the source of a consumer's component.
    pub fn set_source(&self, name: &str, trouble: Option<String>) {
        let mut sources = self.sources.lock();
        match trouble {
            Some(trouble) => _ = sources.insert(name.into(), trouble),
            None => _ = sources.remove(name),
        }
    }

    /// Replaces what is wrong with the files of the consumer directory.
    pub fn set_file_problems(&self, problems: Vec<String>) {
        *self.files.lock() = problems;
    }

    /// What is wrong with the files of the consumer directory.
    #[must_use]
    pub fn file_problems(&self) -> Vec<String> {
        self.files.lock().clone()
    }
}
