//! The ledger of one consumer: its versions, in the order of their last change.
//!
//! What always holds: at most one version serves; a version has one entry; the one that serves, and the one before it, are never forgotten.

use pelton_core::ids::Version;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Entries of a ledger; older ones are forgotten.
const ENTRIES_MAX: usize = 20;
/// Longest reason that is kept, in bytes.
const REASON_BYTES_MAX: usize = 2_000;

/// What became of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It serves.
    Serving,
    /// It served, until another one took its place.
    Served,
    /// It was not accepted.
    Refused,
    /// It served, and was taken back.
    RolledBack,
}

impl State {
    /// One word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Served => "served",
            Self::Refused => "refused",
            Self::RolledBack => "rolled-back",
        }
    }
}

/// A version, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The digest of its bytes.
    #[serde(with = "hex")]
    pub version: Version,
    /// What it is now.
    pub state: State,
    /// Since when: milliseconds since 1970-01-01 UTC.
    pub since_ms: u64,
    /// Why it was refused or taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A version that is not deployed although it is what the manifest's component holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HeldBack {
    #[serde(with = "hex")]
    version: Version,
    /// The digest of the manifest under which it was taken back.
    #[serde(with = "hex")]
    manifest: Version,
}

/// The versions of one consumer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    entries: Vec<Entry>,
    held_back: Vec<HeldBack>,
}

impl Ledger {
    /// All entries, the one that changed last at the end.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The version that serves, or served when the host ended.
    #[must_use]
    pub fn serving(&self) -> Option<Version> {
        self.entries.iter().rfind(|entry| entry.state == State::Serving).map(|entry| entry.version)
    }

    /// The version that served before it and was not taken back.
    #[must_use]
    pub fn previous(&self) -> Option<Version> {
        self.entries.iter().rfind(|entry| entry.state == State::Served).map(|entry| entry.version)
    }

    /// The entry of a version.
    #[must_use]
    pub fn entry(&self, version: Version) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.version == version)
    }

    /// Whether the version was taken back under this manifest, so that neither has changed since.
    #[must_use]
    pub fn is_held_back(&self, version: Version, manifest: Version) -> bool {
        self.held_back.iter().any(|held| held.version == version && held.manifest == manifest)
    }

    /// This version serves. If it did not before, then by its manifest: what was taken back before is no longer what that says.
    pub(crate) fn serves(&mut self, version: Version, at_ms: u64) {
        if self.serving() != Some(version) {
            self.held_back.clear();
            self.take_over(version, at_ms, State::Served, None);
        }
    }

    /// The version was not accepted. If it serves, it goes on under the rules that it has.
    pub(crate) fn refused(&mut self, version: Version, reason: &str, at_ms: u64) {
        if self.serving() != Some(version) {
            self.note(version, State::Refused, at_ms, Some(reason));
        }
    }

    /// The version that serves is taken back and another one serves. It stays so while the manifest and its component are as they are.
    pub(crate) fn rolled_back(&mut self, to: Version, manifest: Version, reason: &str, at_ms: u64) {
        self.held_back.retain(|held| held.version != to);
        if let Some(version) = self.serving().filter(|from| *from != to) {
            self.held_back.retain(|held| held.version != version);
            self.held_back.push(HeldBack { version, manifest });
            let excess = self.held_back.len().saturating_sub(ENTRIES_MAX);
            self.held_back.drain(..excess);
        }
        self.take_over(to, at_ms, State::RolledBack, Some(reason));
    }

    fn take_over(&mut self, version: Version, at_ms: u64, becomes: State, reason: Option<&str>) {
        match self.serving() {
            Some(serving) if serving == version => return,
            Some(serving) => self.note(serving, becomes, at_ms, reason),
            None => {}
        }
        self.note(version, State::Serving, at_ms, None);
    }

    fn note(&mut self, version: Version, state: State, since_ms: u64, reason: Option<&str>) {
        self.entries.retain(|entry| entry.version != version);
        let reason = reason
            .map(|reason| reason.get(..reason.floor_char_boundary(REASON_BYTES_MAX)).unwrap_or_default().to_owned());
        self.entries.push(Entry { version, state, since_ms, reason });
        while let Some(oldest) = self.excess() {
            self.entries.remove(oldest);
        }
    }

    /// The entry to be forgotten next. A file that is written slowly may be refused in many forms: refused versions never take more than half of the ledger.
    fn excess(&self) -> Option<usize> {
        let is_refused = |entry: &Entry| entry.state == State::Refused;
        if self.entries.iter().filter(|entry| is_refused(entry)).count() > ENTRIES_MAX / 2 {
            return self.entries.iter().position(is_refused);
        }
        if self.entries.len() <= ENTRIES_MAX {
            return None;
        }
        let needed = [self.serving(), self.previous()];
        self.entries.iter().position(|entry| !needed.contains(&Some(entry.version)))
    }
}

/// Versions as hex digits.
mod hex {
    use super::{Deserialize, Deserializer, Serializer, Version};

    pub(super) fn serialize<S: Serializer>(version: &Version, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(version)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Version, D::Error> {
        let text = String::deserialize(deserializer)?;
        Version::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no digest")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: Version = Version([9; 32]);

    fn version(n: u8) -> Version {
        Version([n; 32])
    }

    fn states(ledger: &Ledger) -> Vec<(u8, State)> {
        ledger.entries().iter().map(|entry| (entry.version.0[0], entry.state)).collect()
    }

    #[test]
    fn the_version_before_is_the_last_one_that_served_and_was_not_taken_back() {
        let mut ledger = Ledger::default();
        ledger.serves(version(1), 10);
        assert_eq!((ledger.serving(), ledger.previous()), (Some(version(1)), None));
        ledger.serves(version(2), 20);
        ledger.refused(version(3), "broken", 30);
        assert_eq!((ledger.serving(), ledger.previous()), (Some(version(2)), Some(version(1))));
        ledger.serves(version(4), 40);
        ledger.rolled_back(version(2), MANIFEST, "worse", 50);
        assert_eq!((ledger.serving(), ledger.previous()), (Some(version(2)), Some(version(1))));
        assert_eq!(
            states(&ledger),
            [(1, State::Served), (3, State::Refused), (4, State::RolledBack), (2, State::Serving)]
        );
        assert_eq!(ledger.entry(version(4)).and_then(|entry| entry.reason.as_deref()), Some("worse"));
    }

    #[test]
    fn a_version_that_was_taken_back_stays_away_until_the_manifest_changes_or_another_one_serves() {
        let mut ledger = Ledger::default();
        ledger.serves(version(1), 1);
        ledger.serves(version(2), 2);
        ledger.serves(version(3), 3);
        ledger.rolled_back(version(2), MANIFEST, "", 4);
        ledger.rolled_back(version(1), MANIFEST, "", 5);
        assert!(ledger.is_held_back(version(3), MANIFEST) && ledger.is_held_back(version(2), MANIFEST));
        assert!(!ledger.is_held_back(version(3), Version([8; 32])), "the manifest has changed");
        ledger.rolled_back(version(3), MANIFEST, "it was right after all", 6);
        assert!(!ledger.is_held_back(version(3), MANIFEST) && ledger.is_held_back(version(1), MANIFEST));
        ledger.serves(version(4), 7);
        assert!(!ledger.is_held_back(version(1), MANIFEST));
    }

    #[test]
    fn a_version_that_serves_is_not_refused_by_a_manifest_that_it_does_not_fit() {
        let mut ledger = Ledger::default();
        ledger.serves(version(1), 1);
        ledger.refused(version(1), "not granted", 2);
        assert_eq!(states(&ledger), [(1, State::Serving)]);
    }

    #[test]
    fn old_versions_are_forgotten_but_not_the_two_that_are_needed() {
        let mut ledger = Ledger::default();
        ledger.serves(version(1), 1);
        ledger.serves(version(2), 2);
        for n in 3..100 {
            ledger.refused(version(n), "broken", n.into());
        }
        assert_eq!(ledger.entries().len(), 2 + ENTRIES_MAX / 2, "what was refused takes half of it");
        assert_eq!((ledger.serving(), ledger.previous()), (Some(version(2)), Some(version(1))));
        for n in 100..150 {
            ledger.serves(version(n), n.into());
        }
        assert_eq!(ledger.entries().len(), ENTRIES_MAX);
        assert_eq!((ledger.serving(), ledger.previous()), (Some(version(149)), Some(version(148))));
    }

    #[test]
    fn it_is_read_as_it_is_written() {
        let mut ledger = Ledger::default();
        ledger.serves(version(1), 1);
        ledger.serves(version(2), 2);
        ledger.rolled_back(version(1), MANIFEST, "worse", 3);
        let text = serde_json::to_string(&ledger).unwrap();
        assert_eq!(serde_json::from_str::<Ledger>(&text).unwrap(), ledger);
        assert!(text.contains(&"02".repeat(32)) && text.contains("rolled-back"), "{text}");
    }
}
