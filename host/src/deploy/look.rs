//! One look at the consumer directory: what is wanted, and what of it can't be used.
//!
//! Components are read for their digests only; whoever loads one reads it again, so that a look holds one component at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use pelton_core::ids::Version;
use pelton_core::plan::Form;

use super::forms::form;
use crate::config::{self, Code, Manifest, Report};
use crate::wasm::Plugin;

/// A manifest with the form that it has with its component.
pub(super) struct Wanted {
    pub(super) manifest: Manifest,
    pub(super) form: Form,
    /// The digest of the manifest's text.
    pub(super) text: Version,
    pub(super) from: Source,
}

/// Where the bytes of the wanted version are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Where the manifest says.
    Manifest,
    /// Among those that the host kept, because the manifest's can't serve or may not.
    Kept,
}

/// A manifest whose component can't be used.
pub(super) struct Bare {
    pub(super) manifest: Manifest,
    pub(super) text: Version,
}

/// What the directory says, read once.
#[derive(Default)]
pub(super) struct Look {
    /// Whether the directory could be read; otherwise nothing is known, and everything goes on as it is.
    pub(super) complete: bool,
    pub(super) wanted: BTreeMap<String, Wanted>,
    /// Consumers whose files can't be used as they are: what runs of them goes on.
    pub(super) unusable: BTreeMap<String, String>,
    /// Those of them whose manifests are right.
    pub(super) bare: BTreeMap<String, Bare>,
    /// Problems of files, as text.
    pub(super) problems: Vec<String>,
    /// Every file whose change matters.
    pub(super) files: BTreeSet<PathBuf>,
}

/// Reads all manifests and their components. Blocks on the disk.
pub(super) fn look(directory: &Path, component_bytes_max: usize) -> Look {
    let (manifests, report) = config::load_directory(directory);
    let mut look = Look { complete: !report.has(Code::DirectoryUnreadable), ..Look::default() };
    // A file that is not there stands for its directory: that is what is watched.
    look.files.insert(directory.join("*.toml"));
    note_unusable(&mut look, &report);
    for manifest in manifests {
        look.files.insert(manifest.component.clone());
        let text = text_of(&manifest);
        let name = manifest.name.clone();
        match read_component(&manifest, component_bytes_max) {
            Ok(bytes) => {
                let form = form(&manifest, Plugin::version_of(&bytes));
                look.wanted.insert(name, Wanted { manifest, form, text, from: Source::Manifest });
            }
            Err(why) => {
                let problem = format!("{}: {why:#}", manifest.file.display());
                look.problems.push(problem.clone());
                look.unusable.insert(name.clone(), problem);
                look.bare.insert(name, Bare { manifest, text });
            }
        }
    }
    look
}

fn note_unusable(look: &mut Look, report: &Report) {
    let nameless = |file: &Path| {
        report
            .of_file(file)
            .any(|problem| matches!(problem.code, Code::DirectoryUnreadable | Code::InvalidConsumerName))
    };
    for problem in report.problems() {
        let text = problem.to_string().trim_end().to_owned();
        look.problems.push(text.clone());
        if nameless(&problem.file) {
            continue;
        }
        if let Some(name) = problem.file.file_stem().and_then(|stem| stem.to_str()) {
            let known = look.unusable.entry(name.to_owned()).or_default();
            if !known.is_empty() {
                known.push('\n');
            }
            known.push_str(&text);
        }
    }
}

/// The digest of the manifest's text as it is now: if it has changed since it was read, another look is on its way.
fn text_of(manifest: &Manifest) -> Version {
    Plugin::version_of(&std::fs::read(&manifest.file).unwrap_or_default())
}

/// The bytes of a manifest's component. Blocks on the disk.
pub(super) fn read_component(manifest: &Manifest, bytes_max: usize) -> anyhow::Result<Vec<u8>> {
    let bytes = read_file(&manifest.component, bytes_max)?;
    let (version, component) = (Plugin::version_of(&bytes), manifest.component.display());
    match manifest.digest {
        Some(bound) if bound != version => bail!(
            "component {component} has the digest sha256:{version}, and the manifest binds it to sha256:{bound}: bring the component that is meant, or correct \
             `digest`"
        ),
        _ => Ok(bytes),
    }
}

fn read_file(file: &Path, bytes_max: usize) -> anyhow::Result<Vec<u8>> {
    let path = file.display();
    let advice = "build it, or correct `component` in the manifest";
    let metadata = std::fs::metadata(file).with_context(|| format!("component {path} can't be read: {advice}"))?;
    if !metadata.is_file() {
        bail!("component {path} is not a file: {advice}");
    }
    if metadata.len() > bytes_max as u64 {
        let length = metadata.len();
        bail!("component {path} has {length} bytes, more than limits.component_bytes_max = {bytes_max} of the host");
    }
    std::fs::read(file).with_context(|| format!("component {path} can't be read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_and_a_file_that_give_no_name_are_no_consumers() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("No Name.toml"), "nonsense").unwrap();
        std::fs::write(root.path().join("broken.toml"), "nonsense").unwrap();
        let found = look(root.path(), 1 << 20);
        assert!(found.complete);
        assert_eq!(found.unusable.keys().collect::<Vec<_>>(), ["broken"]);
        assert!(found.problems.iter().any(|problem| problem.contains("No Name.toml")), "{:?}", found.problems);
        let missing = look(&root.path().join("missing"), 1 << 20);
        assert!(!missing.complete && missing.unusable.is_empty() && !missing.problems.is_empty());
    }
}
