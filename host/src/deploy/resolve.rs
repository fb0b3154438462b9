//! Which version of a consumer is really wanted: that of its manifest, unless it was taken back, or can't be used and another one served before.

use pelton_core::ids::Version;
use pelton_core::plan::Step;

use super::deployer::Deployer;
use super::forms::form;
use super::look::{Bare, Look, Source, Wanted};
use super::outcome::Round;
use super::prepare::Loaded;
use super::request::Verdict;
use crate::config::Manifest;

impl Deployer {
    /// Replaces versions that may not serve by those that do, and gives consumers that don't run and have no usable component the version that served last.
    pub(super) fn resolve(&mut self, look: &mut Look, round: &mut Round) {
        for (name, wanted) in &mut look.wanted {
            let ledger = self.deps.versions.ledger(name);
            let version = wanted.form.version;
            if !ledger.is_held_back(version, wanted.text) {
                continue;
            }
            let Some(serving) = ledger.serving().filter(|serving| *serving != version) else { continue };
            wanted.form.version = serving;
            wanted.from = Source::Kept;
            let reason = self.remark_held_back(name, version);
            round.note(name, None, Some(serving), Some(version), Verdict::HeldBack, Some(reason));
        }
        for (name, bare) in std::mem::take(&mut look.bare) {
            if self.running.contains_key(&name) {
                continue;
            }
            let problem = look.unusable.get(&name).cloned().unwrap_or_default();
            if let Some(wanted) = self.last_of(&name, bare) {
                self.remark(&name, goes_on(&problem, wanted.form.version));
                look.wanted.insert(name, wanted);
            }
        }
    }

    /// The version that served last, if the manifest does not bind another one.
    fn last_of(&self, name: &str, Bare { manifest, text }: Bare) -> Option<Wanted> {
        let last = self.deps.versions.ledger(name).serving()?;
        if manifest.digest.is_some_and(|bound| bound != last) {
            return None;
        }
        let form = form(&manifest, last);
        Some(Wanted { manifest, form, text, from: Source::Kept })
    }

    /// Loads the version that served last in place of one that was refused, for a consumer that does not run.
    pub(super) async fn begin_with_the_last(
        &mut self,
        name: &str,
        refused: Version,
        manifest: Manifest,
        problem: &str,
    ) -> Option<(String, Step, Loaded)> {
        if self.running.contains_key(name) {
            return None;
        }
        let bare = Bare { manifest, text: refused };
        let wanted = self.last_of(name, bare).filter(|wanted| wanted.form.version != refused)?;
        let last = wanted.form.version;
        match self.load(wanted).await {
            Ok(ready) => {
                self.remark(name, goes_on(problem, last));
                Some((name.to_owned(), Step::Start, ready))
            }
            Err(failure) => {
                let error = format!("{:#}", failure.error);
                tracing::error!(
                    consumer = name,
                    version = last.short(),
                    error,
                    "the version that served last can't serve either"
                );
                None
            }
        }
    }
}

fn goes_on(problem: &str, version: Version) -> String {
    format!("{}; version {}, which served before, goes on", problem.trim_end(), version.short())
}
