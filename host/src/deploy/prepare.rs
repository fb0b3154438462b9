//! From a wanted form to a plug-in that can serve: its bytes are read, kept, compiled and verified, on threads that nobody waits for but the deployer.

use anyhow::{Context as _, anyhow};
use pelton_core::ids::Version;
use pelton_core::plan::Form;

use super::deployer::Deployer;
use super::forms::{load_terms, rules};
use super::look::{Source, Wanted, read_component};
use super::rehearse::Rehearsal;
use crate::clock::Stopwatch;
use crate::config::Manifest;
use crate::wasm::{LoadTerms, Plugin};

/// What was compiled and verified and can serve.
pub(super) struct Loaded {
    pub(super) manifest: Manifest,
    pub(super) form: Form,
    /// The digest of the manifest's text.
    pub(super) text: Version,
    pub(super) plugin: Plugin,
    /// Where its bytes came from.
    pub(super) from: Source,
}

/// Why a component was not loaded.
pub(super) struct LoadFailure {
    /// The form that it had.
    pub(super) form: Form,
    pub(super) manifest: Box<Manifest>,
    pub(super) error: anyhow::Error,
    /// The stable word for it.
    pub(super) kind: &'static str,
    /// Whether the next try may end otherwise with the same bytes.
    pub(super) passing: bool,
}

impl LoadFailure {
    /// Whether it says something about the version, and not about the machine.
    pub(super) fn is_the_versions(&self) -> bool {
        !matches!(self.kind, "unreadable" | "broke" | "not-kept" | "not-rehearsed")
    }
}

/// Rehearses what was loaded.
async fn rehearsed(rehearsal: Rehearsal, loaded: Loaded, mark_ttl_ms: u64) -> Result<Loaded, LoadFailure> {
    let rules = rules(&loaded.manifest, loaded.plugin.clone(), mark_ttl_ms);
    let refused = |error, kind, passing| LoadFailure {
        form: loaded.form,
        manifest: Box::new(loaded.manifest.clone()),
        error,
        kind,
        passing,
    };
    match rehearsal.run(&loaded.manifest, rules).await {
        Ok(seen) => match seen.refusal(loaded.manifest.deploy.trap_ratio_max) {
            Some(why) => Err(refused(anyhow!(why), "rehearsal", false)),
            None => Ok(loaded),
        },
        Err(error) => Err(refused(error.context("the version can't be rehearsed"), "not-rehearsed", true)),
    }
}

/// A plug-in that is ready to serve again.
pub(super) struct Ready {
    pub(super) plugin: Plugin,
    /// What it was verified for.
    pub(super) terms: LoadTerms,
}

impl Deployer {
    /// Loads what is wanted, and serves what can't wait for that.
    pub(super) async fn load(&mut self, wanted: Wanted) -> Result<Loaded, LoadFailure> {
        let loading = self.begin_load(wanted);
        tokio::pin!(loading);
        loop {
            tokio::select! {
                loaded = &mut loading => return loaded,
                pressing = self.requests.urgent.next() => self.serve(pressing).await,
            }
        }
    }

    /// Loads what is wanted. The same version under the same terms is taken as it is.
    pub(super) fn begin_load(
        &self,
        wanted: Wanted,
    ) -> impl Future<Output = Result<Loaded, LoadFailure>> + Send + use<> {
        let terms = load_terms(&wanted.manifest);
        let ready = self.ready(&wanted.manifest.name, wanted.form.version, &terms);
        let (sandbox, versions) = (self.deps.sandbox.clone(), self.deps.versions.clone());
        let (sources, meters) = (self.deps.sources.clone(), self.deps.meters.clone());
        let rehearsal = self.rehearsal(&wanted);
        let mark_ttl_ms = self.deps.mark_ttl_ms;
        let (form, known) = (wanted.form, wanted.manifest.clone());
        async move {
            if let Some(plugin) = ready {
                let Wanted { manifest, form, text, from } = wanted;
                return Ok(Loaded { manifest, form, text, plugin, from });
            }
            let loading = tokio::task::spawn_blocking(move || {
                let Wanted { manifest, form, text, from } = wanted;
                let unreadable = |error| LoadFailure {
                    form,
                    manifest: Box::new(manifest.clone()),
                    error,
                    kind: "unreadable",
                    passing: true,
                };
                let bytes = match from {
                    Source::Manifest => read_component(&manifest, &sources).map_err(unreadable)?,
                    Source::Kept => versions.bytes(form.version).map_err(unreadable)?,
                };
                // It may have changed since the look: what is read now is what serves.
                let form = Form { version: Plugin::version_of(&bytes), ..form };
                let watch = Stopwatch::start();
                let loaded = sandbox.load(&bytes, &terms);
                meters.compile_us.record(watch.elapsed_us());
                let plugin = loaded.map_err(|error| {
                    let (kind, passing) = (error.kind(), error.may_pass());
                    let error = anyhow!(error).context(format!("component {}", manifest.component));
                    LoadFailure { form, manifest: Box::new(manifest.clone()), error, kind, passing }
                })?;
                // A version that serves can be brought back, also when its file is gone.
                versions.keep(form.version, &bytes).map_err(|error| LoadFailure {
                    form,
                    manifest: Box::new(manifest.clone()),
                    error,
                    kind: "not-kept",
                    passing: true,
                })?;
                Ok(Loaded { manifest, form, text, plugin, from })
            });
            let loaded = loading.await.unwrap_or_else(|error| {
                let error = anyhow!(error).context("the thread that compiles components broke");
                Err(LoadFailure { form, manifest: Box::new(known), error, kind: "broke", passing: true })
            })?;
            match rehearsal {
                Some(rehearsal) => rehearsed(rehearsal, loaded, mark_ttl_ms).await,
                None => Ok(loaded),
            }
        }
    }

    /// The rehearsal of a new version, if its manifest wants one and there is one that serves meanwhile. What served before needs none.
    fn rehearsal(&self, wanted: &Wanted) -> Option<Rehearsal> {
        let running = self.running.get(&wanted.manifest.name)?;
        let is_new = running.form.version != wanted.form.version && wanted.from == Source::Manifest;
        (is_new && wanted.manifest.deploy.rehearse > 0).then(|| Rehearsal {
            connection: self.deps.connection.clone(),
            reader: self.deps.reader.clone(),
            sandbox: self.deps.sandbox.clone(),
            clock: self.deps.clock,
            consumer: running.deployed.consumer,
        })
    }

    /// The plug-in of a version that serves, or served before it, if it was verified for these terms.
    fn ready(&self, name: &str, version: Version, terms: &LoadTerms) -> Option<Plugin> {
        let running = self.running.get(name)?;
        if running.form.version == version && load_terms(&running.manifest) == *terms {
            return Some(running.plugin.clone());
        }
        let before = running.before.as_ref()?;
        (before.plugin.version() == version && before.terms == *terms).then(|| before.plugin.clone())
    }

    /// Changes a consumer's ledger.
    pub(super) async fn record(
        &self,
        name: &str,
        change: impl FnOnce(&mut crate::versions::Ledger) + Send + 'static,
    ) -> anyhow::Result<()> {
        let (versions, name) = (self.deps.versions.clone(), name.to_owned());
        let writing = tokio::task::spawn_blocking(move || versions.update(&name, change));
        writing.await.context("the thread that writes the ledger of versions broke")?
    }
}
