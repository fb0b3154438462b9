//! The ledgers and the bytes of versions on the disk.
//!
//! What always holds: a file is replaced in one step and is on the disk when a call returns; bytes that are read have the digest that they were kept under.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use parking_lot::Mutex;
use pelton_core::ids::Version;
use sha2::{Digest, Sha256};

use super::ledger::{Ledger, State};

/// What the host remembers of all consumers' versions. All calls that write block on the disk.
pub struct Versions {
    components: PathBuf,
    history: PathBuf,
    ledgers: Mutex<BTreeMap<String, Ledger>>,
}

impl Versions {
    /// Reads what there is below `directory`, making it if there is none. A ledger that can't be read is put aside, with an error in the log.
    ///
    /// # Errors
    /// If the directory can't be made, closed to others, or read.
    pub fn open(directory: &Path) -> anyhow::Result<Self> {
        let (components, history) = (directory.join("components"), directory.join("history"));
        for made in [directory, &components, &history] {
            let context = || format!("making {} for versions of plug-ins", made.display());
            if !made.is_dir() {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(made).with_context(context)?;
            }
            fs::set_permissions(made, fs::Permissions::from_mode(0o700)).with_context(context)?;
        }
        let ledgers = Mutex::new(read_ledgers(&history)?);
        Ok(Self { components, history, ledgers })
    }

    /// The ledger of a consumer; an empty one if it has none.
    #[must_use]
    pub fn ledger(&self, consumer: &str) -> Ledger {
        self.ledgers.lock().get(consumer).cloned().unwrap_or_default()
    }

    /// Whether the consumer has a ledger.
    #[must_use]
    pub fn knows(&self, consumer: &str) -> bool {
        self.ledgers.lock().contains_key(consumer)
    }

    /// Changes a ledger. It is changed in memory whatever happens.
    ///
    /// # Errors
    /// If it can't be written: the next start finds it as it was.
    pub fn update(&self, consumer: &str, change: impl FnOnce(&mut Ledger)) -> anyhow::Result<()> {
        // Held while it is written, so that the newest one is what stays.
        let mut ledgers = self.ledgers.lock();
        let ledger = ledgers.entry(consumer.to_owned()).or_default();
        let before = ledger.clone();
        change(ledger);
        if *ledger == before {
            return Ok(());
        }
        let text = serde_json::to_vec_pretty(ledger).context("a ledger of versions can't be written as JSON")?;
        let file = self.history.join(format!("{consumer}.json"));
        replace(&file, &text).with_context(|| format!("writing {}", file.display()))
    }

    /// Forgets a consumer. The bytes of its versions go with the next [`Versions::prune`].
    ///
    /// # Errors
    /// If its ledger can't be removed: then nothing is forgotten.
    pub fn forget(&self, consumer: &str) -> anyhow::Result<()> {
        let mut ledgers = self.ledgers.lock();
        let file = self.history.join(format!("{consumer}.json"));
        if let Err(error) = fs::remove_file(&file)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error).with_context(|| format!("removing {}", file.display()));
        }
        ledgers.remove(consumer);
        Ok(())
    }

    fn file(&self, version: Version) -> PathBuf {
        self.components.join(format!("{version}.wasm"))
    }

    /// Keeps the bytes of a version, if they are not kept already.
    ///
    /// # Errors
    /// If they can't be written.
    pub fn keep(&self, version: Version, bytes: &[u8]) -> anyhow::Result<()> {
        let file = self.file(version);
        let known = fs::metadata(&file).is_ok_and(|metadata| metadata.len() == bytes.len() as u64);
        if known && self.bytes(version).is_ok() {
            return Ok(());
        }
        replace(&file, bytes).with_context(|| format!("keeping the component as {}", file.display()))
    }

    /// The bytes of a version.
    ///
    /// # Errors
    /// If they are not kept, or are not what they were.
    pub fn bytes(&self, version: Version) -> anyhow::Result<Vec<u8>> {
        let file = self.file(version);
        let bytes = fs::read(&file)
            .with_context(|| format!("reading {}, where version {} was kept", file.display(), version.short()))?;
        if Version(Sha256::digest(&bytes).into()) != version {
            bail!("{} is damaged: it no longer has the digest that it is named after", file.display());
        }
        Ok(bytes)
    }

    /// Removes the bytes of versions that no ledger has as one that may serve, and that are not among `used`. Gives back those that stay.
    pub fn prune(&self, mut used: BTreeSet<Version>) -> BTreeSet<Version> {
        let ledgers = self.ledgers.lock();
        let may_serve = ledgers.values().flat_map(Ledger::entries).filter(|entry| entry.state != State::Refused);
        used.extend(may_serve.map(|entry| entry.version));
        let kept: BTreeSet<PathBuf> = used.iter().map(|version| self.file(*version)).collect();
        for entry in fs::read_dir(&self.components).into_iter().flatten().flatten() {
            if !kept.contains(&entry.path()) {
                // It costs room and nothing else.
                _ = fs::remove_file(entry.path());
            }
        }
        used
    }
}

fn read_ledgers(history: &Path) -> anyhow::Result<BTreeMap<String, Ledger>> {
    let context = || format!("reading {}", history.display());
    let mut ledgers = BTreeMap::new();
    for entry in fs::read_dir(history).with_context(context)? {
        let file = entry.with_context(context)?.path();
        if file.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let Some(consumer) = file.file_stem().and_then(|stem| stem.to_str()) else { continue };
        let text = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        match serde_json::from_slice(&text) {
            Ok(ledger) => _ = ledgers.insert(consumer.to_owned(), ledger),
            Err(error) => {
                let aside = file.with_extension("damaged");
                tracing::error!(consumer, file = %file.display(), aside = %aside.display(), %error,
                    "the ledger of a consumer's versions is damaged: it is put aside, and nothing is known of versions before this start");
                fs::rename(&file, &aside).with_context(|| format!("putting {} aside", file.display()))?;
            }
        }
    }
    Ok(ledgers)
}

/// Replaces a file in one step; it is on the disk afterwards.
fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = file.with_extension("new");
    let mut new = File::create(&beside)?;
    new.write_all(bytes)?;
    new.sync_all()?;
    fs::rename(&beside, file)?;
    let directory = file.parent().unwrap_or_else(|| Path::new("."));
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(bytes: &[u8]) -> Version {
        Version(Sha256::digest(bytes).into())
    }

    #[test]
    fn a_ledger_outlives_the_host() {
        let root = tempfile::tempdir().unwrap();
        let versions = Versions::open(&root.path().join("versions")).unwrap();
        versions.update("orders", |ledger| ledger.serves(version(b"one"), 5)).unwrap();
        let again = Versions::open(&root.path().join("versions")).unwrap();
        assert_eq!(again.ledger("orders").serving(), Some(version(b"one")));
        assert!(again.knows("orders") && !again.knows("others"));
    }

    #[test]
    fn a_consumer_that_is_forgotten_has_no_versions_any_more() {
        let root = tempfile::tempdir().unwrap();
        let versions = Versions::open(root.path()).unwrap();
        versions.update("orders", |ledger| ledger.serves(version(b"one"), 5)).unwrap();
        versions.forget("orders").unwrap();
        versions.forget("nobody").unwrap();
        assert!(!versions.knows("orders") && !Versions::open(root.path()).unwrap().knows("orders"));
    }

    #[test]
    fn a_damaged_ledger_is_put_aside_and_the_others_are_read() {
        let root = tempfile::tempdir().unwrap();
        let versions = Versions::open(root.path()).unwrap();
        versions.update("a", |ledger| ledger.serves(version(b"one"), 5)).unwrap();
        fs::write(root.path().join("history/b.json"), "{\"entries\":[{").unwrap();
        let again = Versions::open(root.path()).unwrap();
        assert!(again.knows("a") && !again.knows("b"));
        assert!(root.path().join("history/b.damaged").is_file());
    }

    #[test]
    fn bytes_come_back_whole_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let versions = Versions::open(root.path()).unwrap();
        versions.keep(version(b"one"), b"one").unwrap();
        assert_eq!(versions.bytes(version(b"one")).unwrap(), b"one");
        let file = root.path().join("components").join(format!("{}.wasm", version(b"one")));
        fs::write(&file, b"two").unwrap();
        assert!(versions.bytes(version(b"one")).unwrap_err().to_string().contains("damaged"));
        versions.keep(version(b"one"), b"one").unwrap();
        assert_eq!(versions.bytes(version(b"one")).unwrap(), b"one", "repaired");
    }

    #[test]
    fn what_no_ledger_needs_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let versions = Versions::open(root.path()).unwrap();
        for bytes in [b"one", b"two", b"bad", b"run"] {
            versions.keep(version(bytes), bytes).unwrap();
        }
        versions.update("a", |ledger| ledger.serves(version(b"one"), 1)).unwrap();
        versions.update("a", |ledger| ledger.serves(version(b"two"), 2)).unwrap();
        versions.update("a", |ledger| ledger.refused(version(b"bad"), "broken", 3)).unwrap();
        let kept = versions.prune(BTreeSet::from([version(b"run")]));
        assert_eq!(kept.len(), 3);
        assert!(versions.bytes(version(b"bad")).is_err());
        assert!([b"one", b"two", b"run"].iter().all(|bytes| versions.bytes(version(*bytes)).is_ok()));
    }
}
