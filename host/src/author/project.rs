//! A plug-in's directory: `pelton.toml`, the manifests, the cases.

use std::path::{Path, PathBuf};

use super::BadInput;
use crate::config::{HostConfig, Manifest, load_directory};
use crate::wasm::Settings;

/// A directory in which `pelton` commands for authors work.
pub(super) struct Project {
    /// The directory as it was named.
    pub(super) directory: PathBuf,
    /// The consumers, in the order of their names. Never empty.
    pub(super) manifests: Vec<Manifest>,
    /// Largest component that the host would load, in bytes.
    pub(super) component_bytes_max: usize,
}

impl Project {
    /// Reads `pelton.toml`, if there is one, and the manifests.
    ///
    /// # Errors
    /// A [`crate::config::Report`] of all mistakes, or [`BadInput`] if there is nothing.
    pub(super) fn open(directory: &Path) -> anyhow::Result<Self> {
        let file = directory.join("pelton.toml");
        let (consumers, component_bytes_max) = if file.is_file() {
            let config = HostConfig::load(&file)?;
            (config.consumers, config.limits.component_bytes_max)
        } else {
            (directory.join("consumers"), Settings::default().component_bytes_max)
        };
        let advice = "name the directory that holds consumers/NAME.toml, or make one with `pelton new`";
        if !consumers.is_dir() {
            return Err(BadInput(format!("{} is no plug-in's directory: {advice}", directory.display())).into());
        }
        let (manifests, report) = load_directory(&consumers);
        if !report.is_empty() {
            return Err(report.into());
        }
        if manifests.is_empty() {
            return Err(BadInput(format!("{} holds no manifest: {advice}", consumers.display())).into());
        }
        Ok(Self { directory: directory.to_owned(), manifests, component_bytes_max })
    }

    /// The files with cases: `tests/*.toml` and `tests/*.json`, in the order of their names.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn case_files(&self) -> Result<Vec<PathBuf>, BadInput> {
        let directory = self.directory.join("tests");
        let is_case = |path: &PathBuf| {
            let extension = path.extension().and_then(|extension| extension.to_str());
            matches!(extension, Some("toml" | "json")) && path.is_file()
        };
        let entries = std::fs::read_dir(&directory).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_case).collect();
        files.sort();
        if files.is_empty() {
            let text = format!("{} holds no cases: write one in TOML or JSON there", directory.display());
            return Err(BadInput(text));
        }
        Ok(files)
    }

    /// The manifest of the consumer of this name; of the only one, if no name is given.
    ///
    /// # Errors
    /// If it can't be told, in words.
    pub(super) fn manifest(&self, name: Option<&str>) -> Result<&Manifest, String> {
        let names = || self.manifests.iter().map(|manifest| manifest.name.as_str()).collect::<Vec<_>>().join(", ");
        match (name, self.manifests.as_slice()) {
            (None, [only]) => Ok(only),
            (None, _) => Err(format!("add consumer = \"NAME\" at the top: there are {}", names())),
            (Some(name), manifests) => manifests
                .iter()
                .find(|manifest| manifest.name == name)
                .ok_or_else(|| format!("no consumer {name:?}; there are: {}", names())),
        }
    }
}

/// The file of a consumer's component.
///
/// # Errors
/// If it comes from elsewhere: what an author builds is a file.
pub(super) fn component_file(manifest: &Manifest) -> Result<&Path, BadInput> {
    let problem = || {
        let name = &manifest.name;
        BadInput(format!("consumer {name}: its component is not a file: name the file that is built as \"component\""))
    };
    manifest.component.path().ok_or_else(problem)
}

/// The bytes of a component.
///
/// # Errors
/// If they can't be read, or are too many.
pub(super) fn read_component(file: &Path, bytes_max: usize) -> Result<Vec<u8>, BadInput> {
    let unreadable = |why: &dyn std::fmt::Display| {
        BadInput(format!("component {} can't be read: {why}; build it first, or correct its path", file.display()))
    };
    let length = std::fs::metadata(file).map_err(|error| unreadable(&error))?.len();
    if usize::try_from(length).is_ok_and(|length| length > bytes_max) {
        return Err(unreadable(&format!("it has {length} bytes, and {bytes_max} are the most")));
    }
    std::fs::read(file).map_err(|error| unreadable(&error))
}
