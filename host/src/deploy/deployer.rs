//! The deployer: compares what runs with what the consumer directory says, and brings the one to the other.
//!
//! What can't be accepted changes nothing: the version before goes on, and the reason is in the log and in `status`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flume::Sender;
use pelton_core::ids::Version;
use pelton_core::plan::{Form, Step, plan};
use tokio::time::Instant;

use super::declare::Declaring;
use super::look::{Look, Source, Wanted, look};
use super::outcome::Round;
use super::prepare::{LoadFailure, Loaded, Ready};
use super::refused::Refusals;
use super::request::{Asked, Deploy, Requests, Verdict};
use crate::board::Board;
use crate::clock::Clock;
use crate::config::Manifest;
use crate::deployed::Deployed;
use crate::driver::Note;
use crate::nats::{Connection, Subscription};
use crate::source::Sources;
use crate::store::Reader;
use crate::telemetry::meters::{Meters, Swap};
use crate::versions::Versions;
use crate::wasm::{Plugin, Sandbox};

/// What the deployer works with.
pub struct Dependencies {
    /// The consumer directory.
    pub directory: PathBuf,
    /// Where components come from.
    pub sources: Arc<Sources>,
    /// How long a mark is kept that names no time to live, in milliseconds.
    pub mark_ttl_ms: u64,
    /// Compiles and verifies.
    pub sandbox: Arc<Sandbox>,
    /// What served, and what was refused.
    pub versions: Arc<Versions>,
    /// What consumers read from.
    pub connection: Arc<Connection>,
    /// State and ids.
    pub reader: Arc<Reader>,
    /// Where results are shown.
    pub board: Arc<Board>,
    /// Where they are counted.
    pub meters: Arc<Meters>,
    /// The driver.
    pub notes: Sender<Note>,
    /// When versions came and went.
    pub clock: Clock,
}

pub(super) struct Running {
    pub(super) form: Form,
    /// The digest of the manifest's text.
    pub(super) text: Version,
    pub(super) plugin: Plugin,
    /// The version before, ready to serve again.
    pub(super) before: Option<Ready>,
    pub(super) manifest: Manifest,
    pub(super) deployed: Arc<Deployed>,
    pub(super) subscription: Subscription,
    pub(super) declaring: Declaring,
}

/// Brings what runs to what is wanted.
pub struct Deployer {
    pub(super) deps: Dependencies,
    pub(super) requests: Requests,
    pub(super) running: BTreeMap<String, Running>,
    pub(super) refused: Refusals,
    /// What an operator has to know of a consumer although nothing failed just now.
    remarks: BTreeMap<String, String>,
    /// Every file whose change matters, as of the last look.
    files: BTreeSet<PathBuf>,
}

/// What a look at the directory has led to.
#[derive(Debug)]
pub struct Applied {
    /// The files whose change calls for another look.
    pub files: BTreeSet<PathBuf>,
    /// Whether the directory could be read.
    pub complete: bool,
    /// When another look is due even if nothing changes.
    pub again_at: Option<Instant>,
}

/// Pause before another try of what failed and may pass by itself.
pub const RETRY_AFTER: Duration = Duration::from_secs(5);
/// How long a deployment that was asked for waits for registries. What comes later is deployed when it comes.
const SOURCES_GRACE: Duration = Duration::from_secs(20);
/// How long consumers that declare streams wait for a connection, so that their subscriptions find the streams at the first look.
const CONNECT_GRACE: Duration = Duration::from_secs(2);

impl Deployer {
    /// A deployer of which nothing runs yet.
    #[must_use]
    pub fn new(deps: Dependencies, requests: Requests) -> Self {
        Self {
            deps,
            requests,
            running: BTreeMap::new(),
            refused: Refusals::default(),
            remarks: BTreeMap::new(),
            files: BTreeSet::new(),
        }
    }

    /// Waits for a request that calls for a look at the directory. Others are served on the way by [`Deployer::answer`].
    ///
    /// Nothing is lost if it is not waited for to the end.
    pub async fn asked(&mut self) -> Request {
        Request(self.requests.next().await)
    }

    /// Does what was asked, unless it calls for a look at the directory: then it comes back.
    pub async fn answer(&mut self, Request(asked): Request) -> Option<Deploy> {
        match asked {
            Asked::Pressing(pressing) => {
                self.serve(pressing).await;
                None
            }
            Asked::Deploy(deploy) if deploy.plan => {
                self.apply(Some(deploy)).await;
                None
            }
            Asked::Deploy(deploy) => Some(deploy),
        }
    }

    /// Looks at the directory and does what follows from it, for all consumers or as it was asked.
    pub async fn apply(&mut self, asked: Option<Deploy>) -> Applied {
        let mut round = Round::new(asked);
        if round.is_asked() && !round.is_plan() {
            // Whoever deploys wants what a tag means now.
            self.deps.sources.ask_again(SOURCES_GRACE).await;
        }
        let directory = self.deps.directory.clone();
        let sources = Arc::clone(&self.deps.sources);
        let complete = match tokio::task::spawn_blocking(move || look(&directory, &sources)).await {
            Ok(mut look) => {
                self.files.clone_from(&look.files);
                round.saw(&look);
                if !round.is_plan() {
                    self.report(&look);
                }
                let complete = look.complete;
                if complete {
                    if !round.is_plan() {
                        let wanted = std::mem::take(&mut look.sources);
                        self.deps.sources.follow(wanted, look.unusable.keys());
                    }
                    self.bring_about(look, &mut round).await;
                }
                complete
            }
            Err(error) => {
                tracing::error!(%error, "the thread that looks at the consumer directory broke, trying again");
                false
            }
        };
        round.answer();
        let again_at = if complete { self.refused.next() } else { Some(Instant::now() + RETRY_AFTER) };
        Applied { files: self.files.clone(), complete, again_at }
    }

    /// Verifies everything first: what is refused is told even if there is no connection.
    async fn bring_about(&mut self, mut look: Look, round: &mut Round) {
        self.resolve(&mut look, round);
        let steps = self.plan(&look, round);
        let Look { mut wanted, unusable, .. } = look;
        let known: BTreeSet<String> = wanted.keys().chain(unusable.keys()).cloned().collect();
        round.nothing_for(known.iter().chain(self.running.keys()), &steps, |name| self.version_of(name));
        let mut loaded = Vec::new();
        for (name, step) in steps {
            let Some(wanted) = wanted.remove(&name) else {
                self.end(&name, round).await;
                continue;
            };
            match self.load(wanted).await {
                Ok(ready) if round.is_plan() => {
                    round.note(
                        &name,
                        Some(step),
                        self.version_of(&name),
                        Some(ready.form.version),
                        Verdict::Planned,
                        None,
                    );
                }
                Ok(ready) => loaded.push((name, step, ready)),
                Err(failure) => loaded.extend(self.refuse(&name, step, failure, round).await),
            }
        }
        if loaded.iter().any(|(_, _, ready)| !ready.manifest.streams.is_empty()) {
            // Without one they begin all the same, and the streams are made when it comes.
            _ = tokio::time::timeout(CONNECT_GRACE, self.deps.connection.connected()).await;
        }
        for (name, step, ready) in loaded {
            let (from, to) = (self.version_of(&name), Some(ready.form.version));
            let is_asked_for = ready.from == Source::Manifest;
            let performed = self.perform(&name, step, ready).await;
            let verdict = if performed.is_ok() { Verdict::Done } else { Verdict::Refused };
            let reason = self.tell_failure(&name, performed);
            if is_asked_for || verdict == Verdict::Refused {
                round.note(&name, Some(step), from, to, verdict, reason);
            }
        }
        if !round.is_plan() {
            self.forget_others(&known).await;
        }
    }

    /// Ends a consumer whose manifest is gone.
    async fn end(&mut self, name: &str, round: &mut Round) {
        let from = self.version_of(name);
        if round.is_plan() {
            round.note(name, Some(Step::Stop), from, None, Verdict::Planned, None);
            return;
        }
        let stopped = self.stop(name).await;
        let verdict = if stopped.is_ok() { Verdict::Done } else { Verdict::Refused };
        let reason = self.tell_failure(name, stopped);
        round.note(name, Some(Step::Stop), from, None, verdict, reason);
    }

    /// Keeps nothing of consumers that are neither wanted nor running, and nothing of versions that no ledger knows.
    async fn forget_others(&mut self, known: &BTreeSet<String>) {
        let running = &self.running;
        let is_known = |name: &str| known.contains(name) || running.contains_key(name);
        self.refused.keep(is_known);
        self.deps.board.keep(is_known);
        self.remarks.retain(|name, _| is_known(name));
        let before =
            self.running.values().filter_map(|running| running.before.as_ref()).map(|ready| ready.plugin.version());
        let used: BTreeSet<Version> = self.running.values().map(|running| running.form.version).chain(before).collect();
        let (versions, sandbox) = (Arc::clone(&self.deps.versions), Arc::clone(&self.deps.sandbox));
        // What is left over costs room and nothing else.
        _ = tokio::task::spawn_blocking(move || sandbox.keep_only(&versions.prune(used))).await;
    }

    /// Notes why a version is not accepted. One that does not run at all begins with the version that served last, if that is kept.
    async fn refuse(
        &mut self,
        name: &str,
        step: Step,
        failure: LoadFailure,
        round: &mut Round,
    ) -> Option<(String, Step, Loaded)> {
        let text = format!("{:#}", failure.error);
        let LoadFailure { form, kind, passing, .. } = failure;
        round.note(name, Some(step), self.version_of(name), Some(form.version), Verdict::Refused, Some(text.clone()));
        if round.is_plan() {
            return None;
        }
        if self.refused.note(name, form, &text, passing) {
            let goes_on = self.running.get(name).map(|running| running.form.version.short());
            tracing::error!(consumer = name, kind, error = text, goes_on_with = goes_on, "deployment refused");
            if self.running.get(name).is_some_and(|running| running.form.version != form.version) {
                self.deps.meters.swap(Swap::Refused);
            }
            if failure.is_the_versions() {
                let (at_ms, why) = (self.deps.clock.now().wall_ms, text.clone());
                let recorded = self.record(name, move |ledger| ledger.refused(form.version, &why, at_ms)).await;
                self.tell_unrecorded(name, recorded);
            }
        }
        self.deps.board.note(name, |entry| entry.deployment = Some(text.clone()));
        self.begin_with_the_last(name, form.version, *failure.manifest, &text).await
    }

    fn tell_failure(&self, name: &str, outcome: anyhow::Result<()>) -> Option<String> {
        let text = format!("{:#}", outcome.err()?);
        tracing::error!(consumer = name, error = text, "deployment failed");
        self.deps.board.note(name, |entry| entry.deployment = Some(text.clone()));
        Some(text)
    }

    /// Tells that a ledger could not be written.
    pub(super) fn tell_unrecorded(&self, name: &str, recorded: anyhow::Result<()>) {
        if let Err(error) = recorded {
            tracing::error!(
                consumer = name,
                error = format!("{error:#}"),
                "what became of a version can't be written down: the next start will not know of it"
            );
        }
    }

    fn report(&self, look: &Look) {
        let known = self.deps.board.file_problems();
        for problem in look.problems.iter().filter(|problem| !known.contains(problem)) {
            tracing::error!("{problem}");
        }
        self.deps.board.set_file_problems(look.problems.clone());
        for (name, why) in &look.unusable {
            let text = self.told(name, why);
            self.deps.board.note(name, |entry| entry.deployment = Some(text));
        }
    }

    /// Why a version does not serve, with what goes on in its place if that was told before.
    fn told(&self, name: &str, why: &str) -> String {
        let remark = self.remarks.get(name).filter(|remark| remark.starts_with(why.trim_end()));
        remark.map_or(why, String::as_str).to_owned()
    }

    /// The version that serves a consumer.
    fn version_of(&self, name: &str) -> Option<Version> {
        self.running.get(name).map(|running| running.form.version)
    }

    /// What there is to do, by the core's plan; without what was refused before and is as it was.
    fn plan(&mut self, look: &Look, round: &mut Round) -> Vec<(String, Step)> {
        let forms: BTreeMap<String, Form> = self.running.iter().map(|(name, r)| (name.clone(), r.form)).collect();
        let running: BTreeMap<&str, Form> = forms.iter().map(|(name, form)| (name.as_str(), *form)).collect();
        let mut wanted: BTreeMap<&str, Form> = look.wanted.iter().map(|(name, w)| (name.as_str(), w.form)).collect();
        if !round.is_plan() {
            for (name, wanted) in look.wanted.iter().filter(|(name, w)| running.get(name.as_str()) == Some(&w.form)) {
                self.as_wanted(name, wanted);
            }
        }
        for name in look.unusable.keys() {
            if let Some(form) = running.get(name.as_str()) {
                wanted.insert(name, *form);
            }
        }
        let mut steps = plan(&running, &wanted);
        steps.retain(|(name, step)| {
            if !round.is_about(name) {
                return false;
            }
            if round.is_asked() {
                // Whoever asks again wants another try of what may pass.
                self.refused.try_again(name);
            }
            let Some(form) = wanted.get(name) else { return true };
            let Some(refusal) = self.refused.holds(name, form) else { return true };
            let from = running.get(name).map(|form| form.version);
            round.note(name, Some(*step), from, Some(form.version), Verdict::Refused, Some(refusal.why.clone()));
            let text = self.told(name, &refusal.why);
            self.deps.board.note(name, |entry| entry.deployment = Some(text));
            false
        });
        steps.into_iter().map(|(name, step)| (name.to_owned(), step)).collect()
    }

    /// A consumer runs as it is wanted: whatever was refused in between is no longer asked for.
    fn as_wanted(&mut self, name: &str, wanted: &Wanted) {
        if wanted.from == Source::Manifest {
            self.refused.forget(name);
            self.remarks.remove(name);
        }
        let remark = self.remarks.get(name).cloned();
        self.deps.board.note(name, |entry| entry.deployment = remark);
    }

    /// Shows something on the board until the consumer runs as its manifest says.
    pub(super) fn remark(&mut self, name: &str, text: String) {
        self.deps.board.note(name, |entry| entry.deployment = Some(text.clone()));
        self.remarks.insert(name.to_owned(), text);
    }

    /// What is to be shown of a consumer that was just deployed.
    pub(super) fn remark_of(&mut self, name: &str, from: Source) -> Option<String> {
        if from == Source::Manifest {
            self.remarks.remove(name);
        }
        self.remarks.get(name).cloned()
    }

    /// Sends what acknowledgements are left. For the end of the host, after the driver has drained.
    pub async fn close(self) {
        for running in self.running.into_values() {
            running.declaring.stop().await;
            running.subscription.stop().await;
        }
    }
}

/// Something that was asked of the deployer.
pub struct Request(Asked);
