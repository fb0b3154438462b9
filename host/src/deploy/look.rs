//! One look at the consumer directory: what is wanted, and what of it can't be used.
//!
//! Components are read for their digests only; whoever loads one reads it again, so that a look holds one component at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::bail;
use pelton_core::ids::Version;
use pelton_core::plan::Form;

use super::forms::form;
use crate::config::{self, Code, Manifest, Report};
use crate::source::{self, Sources};
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
    /// How each consumer with a readable manifest wants its component.
    pub(super) sources: BTreeMap<String, source::Wanted>,
}

/// Reads all manifests and their components. Blocks on the disk, never on the network.
pub(super) fn look(directory: &Path, sources: &Sources) -> Look {
    let (manifests, report) = config::load_directory(directory);
    let mut look = Look { complete: !report.has(Code::DirectoryUnreadable), ..Look::default() };
    // A file that is not there stands for its directory: that is what is watched.
    look.files.insert(directory.join("*.toml"));
    note_unusable(&mut look, &report);
    for manifest in manifests {
        look.files.insert(sources.watched_file(&manifest.component));
        look.sources.insert(manifest.name.clone(), source::Wanted::by(&manifest));
        let text = text_of(&manifest);
        let name = manifest.name.clone();
        match read_component(&manifest, sources) {
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
pub(super) fn read_component(manifest: &Manifest, sources: &Sources) -> anyhow::Result<Vec<u8>> {
    let bytes = sources.read(&manifest.component)?;
    let (version, component) = (Plugin::version_of(&bytes), &manifest.component);
    match manifest.digest {
        Some(bound) if bound != version => bail!(
            "component {component} has the digest sha256:{version}, and the manifest binds it to sha256:{bound}: bring the component that is meant, or correct \
             `digest`"
        ),
        _ => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::config::OciConfig;
    use crate::nats::{ConnectSettings, Connection, Credentials, Objects};

    fn sources(directory: &Path) -> Sources {
        let nowhere = ConnectSettings { urls: Vec::new(), credentials: Credentials::None, name: "test".into() };
        let connection = Arc::new(Connection::open(nowhere, "test", &CancellationToken::new()));
        let oci = OciConfig::default();
        Sources::new(directory.join("sources"), 1 << 20, oci, Objects::new(connection), Arc::default()).unwrap()
    }

    #[tokio::test]
    async fn a_directory_and_a_file_that_give_no_name_are_no_consumers() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("No Name.toml"), "nonsense").unwrap();
        std::fs::write(root.path().join("broken.toml"), "nonsense").unwrap();
        let sources = sources(root.path());
        let found = look(root.path(), &sources);
        assert!(found.complete);
        assert_eq!(found.unusable.keys().collect::<Vec<_>>(), ["broken"]);
        assert!(found.problems.iter().any(|problem| problem.contains("No Name.toml")), "{:?}", found.problems);
        let missing = look(&root.path().join("missing"), &sources);
        assert!(!missing.complete && missing.unusable.is_empty() && !missing.problems.is_empty());
    }
}
