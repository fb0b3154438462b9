//! What came over the network, kept in the data directory: `sources/DIGEST.wasm`, and for each source a note that says which of them it was last.
//!
//! What always holds: a note names bytes that were whole and had the right digest when they were kept, and it changes in one step. What the disk has
//! made of them since is checked whenever they are read.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use parking_lot::Mutex;
use pelton_core::ids::Version;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

use super::error::SourceError;
use crate::config::ComponentSource;

/// Sources that no manifest names any more and that are kept all the same, for a manifest that is changed back while its registry is away.
const UNWANTED_MAX: usize = 4;

/// The directory.
pub(super) struct Kept {
    directory: PathBuf,
    /// Largest component, in bytes.
    bytes_max: usize,
    /// Held while notes and components are changed together.
    changing: Mutex<()>,
}

/// What a note says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// The source, as manifests write it.
    source: String,
    /// The digest of the component, in hex.
    sha256: String,
}

impl Kept {
    /// Makes the directory.
    pub(super) fn open(directory: PathBuf, bytes_max: usize) -> Result<Self, SourceError> {
        fs::create_dir_all(&directory).map_err(|error| SourceError::Disk { path: directory.clone(), error })?;
        Ok(Self { directory, bytes_max, changing: Mutex::default() })
    }

    /// The file that changes when another component is kept of a source.
    pub(super) fn note_file(&self, source: &ComponentSource) -> PathBuf {
        self.directory.join(format!("{}.json", stem(source)))
    }

    fn component_file(&self, sha256: &str) -> PathBuf {
        self.directory.join(format!("{sha256}.wasm"))
    }

    fn noted(&self, source: &ComponentSource) -> Option<Note> {
        let text = fs::read(self.note_file(source)).ok()?;
        serde_json::from_slice::<Note>(&text).ok().filter(|note| note.source == source.to_string())
    }

    /// The component that was last kept of a source. Blocks on the disk.
    ///
    /// # Errors
    /// If nothing is kept, or the disk has damaged it.
    pub(super) fn read(&self, source: &ComponentSource) -> anyhow::Result<Vec<u8>> {
        let Some(note) = self.noted(source) else {
            return Err(anyhow!("component {source} was not fetched yet: it starts as soon as it is"));
        };
        let path = self.component_file(&note.sha256);
        let length = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        check_size(length, self.bytes_max).with_context(|| format!("component {source}"))?;
        let bytes = fs::read(&path).with_context(|| {
            format!("component {source} is missing as {}: it starts as soon as it was fetched again", path.display())
        })?;
        if hex(&Sha256::digest(&bytes)) != note.sha256 {
            return Err(anyhow!(
                "component {source} is damaged in {}: it starts as soon as it was fetched again",
                path.display()
            ));
        }
        Ok(bytes)
    }

    /// The version that was last kept of a source, if it is whole.
    pub(super) async fn version_of(self: &Arc<Self>, source: &ComponentSource) -> Result<Option<Version>, SourceError> {
        let (kept, source) = (Arc::clone(self), source.clone());
        let reading = tokio::task::spawn_blocking(move || kept.read(&source).ok());
        Ok(reading.await?.map(|bytes| Version(Sha256::digest(bytes).into())))
    }

    /// Whether these bytes are kept, of whatever source, and whole.
    pub(super) async fn holds(self: &Arc<Self>, version: Version) -> Result<bool, SourceError> {
        let file = self.component_file(&version.to_string());
        let looking = tokio::task::spawn_blocking(move || {
            fs::read(file).is_ok_and(|bytes| Version(Sha256::digest(bytes).into()) == version)
        });
        Ok(looking.await?)
    }

    /// Begins to keep a component. There is one at a time of each source.
    pub(super) async fn receive(&self, source: &ComponentSource) -> Result<Arriving, SourceError> {
        let path = self.directory.join(format!("{}.part", stem(source)));
        let created = async {
            // What was given up may still be written to: it gets none of the new file.
            match tokio::fs::remove_file(&path).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            tokio::fs::File::create_new(&path).await
        };
        let file = created.await.map_err(|error| SourceError::Disk { path: path.clone(), error })?;
        Ok(Arriving { file, path, bytes: 0, bytes_max: self.bytes_max, digest: Sha256::new() })
    }

    /// What came becomes what is kept of the source; without anything that came, what is kept already with this version. Blocks on the disk.
    pub(super) fn note(
        &self,
        source: &ComponentSource,
        version: Version,
        arrived: Option<Arrived>,
    ) -> Result<(), SourceError> {
        let note = Note { source: source.to_string(), sha256: version.to_string() };
        let _changing = self.changing.lock();
        if let Some(Arrived { path }) = &arrived {
            let to = self.component_file(&note.sha256);
            fs::rename(path, &to).map_err(|error| SourceError::Disk { path: to, error })?;
        } else if self.noted(source).as_ref() == Some(&note) {
            return Ok(());
        }
        let path = self.note_file(source);
        self.replace(&path, &note).map_err(|error| SourceError::Disk { path, error })
    }

    fn replace(&self, path: &Path, note: &Note) -> io::Result<()> {
        let beside = path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(&serde_json::to_vec(note)?)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        // Both renames: that of the component came before.
        File::open(&self.directory)?.sync_all()
    }

    /// Deletes what no source needs that is wanted or was so lately. Blocks on the disk.
    pub(super) fn prune(&self, wanted: &BTreeSet<ComponentSource>) -> io::Result<()> {
        let _changing = self.changing.lock();
        let stems: BTreeSet<String> = wanted.iter().map(stem).collect();
        let (mut notes, mut unwanted, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let is_note = path.extension().is_some_and(|extension| extension == "json");
            let is_wanted = path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| stems.contains(stem));
            match (is_note, is_wanted) {
                (true, true) => notes.push(path),
                (true, false) => unwanted.push((path.metadata()?.modified()?, path)),
                // What is coming, of a source that is wanted.
                (false, true) => {}
                (false, false) => others.push(path),
            }
        }
        unwanted.sort();
        let excess = unwanted.len().saturating_sub(UNWANTED_MAX);
        for (_, note) in unwanted.drain(..excess) {
            fs::remove_file(note)?;
        }
        notes.extend(unwanted.into_iter().map(|(_, note)| note));
        let named = |note: PathBuf| serde_json::from_slice::<Note>(&fs::read(note).ok()?).ok().map(|note| note.sha256);
        let needed: BTreeSet<String> = notes.into_iter().filter_map(named).collect();
        for file in others {
            if file.file_stem().and_then(|stem| stem.to_str()).is_none_or(|stem| !needed.contains(stem)) {
                fs::remove_file(file)?;
            }
        }
        Ok(())
    }
}

/// A component that is being fetched. Dropped, it leaves nothing but a file that the next one of its source overwrites.
pub(super) struct Arriving {
    file: tokio::fs::File,
    path: PathBuf,
    bytes: u64,
    bytes_max: usize,
    digest: Sha256,
}

impl Arriving {
    /// Refuses what is announced as too large before any of it comes.
    pub(super) fn announce(&self, bytes: u64) -> Result<(), SourceError> {
        check_size(bytes, self.bytes_max)
    }

    /// The next bytes.
    pub(super) async fn take(&mut self, bytes: &[u8]) -> Result<(), SourceError> {
        self.bytes += bytes.len() as u64;
        check_size(self.bytes, self.bytes_max)?;
        self.digest.update(bytes);
        let written = self.file.write_all(bytes).await;
        written.map_err(|error| SourceError::Disk { path: self.path.clone(), error })
    }

    /// The end: what came must be this version.
    pub(super) async fn finish(self, expected: Version) -> Result<Arrived, SourceError> {
        let came = Version(self.digest.finalize().into());
        if came != expected {
            return Err(SourceError::WrongDigest { expected: expected.to_string(), came: came.to_string() });
        }
        let mut file = self.file;
        let written = async {
            file.flush().await?;
            file.sync_all().await
        };
        written.await.map_err(|error| SourceError::Disk { path: self.path.clone(), error })?;
        Ok(Arrived { path: self.path })
    }
}

/// Whole, and with the right digest.
pub(super) struct Arrived {
    path: PathBuf,
}

fn check_size(bytes: u64, bytes_max: usize) -> Result<(), SourceError> {
    if bytes > bytes_max as u64 { Err(SourceError::TooLarge { bytes, most: bytes_max }) } else { Ok(()) }
}

fn stem(source: &ComponentSource) -> String {
    let digest = hex(&Sha256::digest(source.to_string()));
    // Shorter than that of a component, so that one is never taken for the other.
    digest.get(..32).unwrap_or_default().to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // A string takes everything.
        _ = write!(text, "{byte:02x}");
        text
    })
}
