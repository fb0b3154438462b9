//! The deployer: compares what runs with what the consumer directory says, and brings the one to the other.
//!
//! What can't be accepted changes nothing: the version before goes on, and the reason is in the log and in `status`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use crossbeam_channel::Sender;
use pelton_core::plan::{Form, Step, plan};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::declare::Declaring;
use super::forms::{load_terms, rules};
use super::look::{Look, Wanted, look};
use super::refused::Refusals;
use crate::board::Board;
use crate::clock::Stopwatch;
use crate::config::{self, Manifest};
use crate::deployed::Deployed;
use crate::driver::{Attachment, Note};
use crate::ingest::Ingest;
use crate::intake::Intake;
use crate::nats::{Connection, PULL_BYTES_MAX, PULL_MESSAGES_MAX, Subscription, SubscriptionSettings};
use crate::source::Sources;
use crate::store::Reader;
use crate::telemetry::meters::{Meters, Swap};
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
}

struct Running {
    form: Form,
    plugin: Plugin,
    manifest: Manifest,
    deployed: Arc<Deployed>,
    subscription: Subscription,
    declaring: Declaring,
}

/// What was compiled and verified and can serve.
struct Loaded {
    manifest: Manifest,
    form: Form,
    plugin: Plugin,
}

/// Why a component was not loaded.
struct LoadFailure {
    /// The form that it had.
    form: Form,
    error: anyhow::Error,
    /// The stable word for it.
    kind: &'static str,
    /// Whether the next try may end otherwise with the same bytes.
    passing: bool,
}

/// Brings what runs to what is wanted.
pub struct Deployer {
    deps: Dependencies,
    running: BTreeMap<String, Running>,
    refused: Refusals,
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
/// How long consumers that declare streams wait for a connection, so that their subscriptions find the streams at the first look.
const CONNECT_GRACE: Duration = Duration::from_secs(2);

impl Deployer {
    /// A deployer of which nothing runs yet.
    #[must_use]
    pub fn new(deps: Dependencies) -> Self {
        Self { deps, running: BTreeMap::new(), refused: Refusals::default(), files: BTreeSet::new() }
    }

    /// Looks at the directory and does what follows from it.
    pub async fn apply(&mut self) -> Applied {
        let directory = self.deps.directory.clone();
        let sources = Arc::clone(&self.deps.sources);
        let complete = match tokio::task::spawn_blocking(move || look(&directory, &sources)).await {
            Ok(mut look) => {
                self.files.clone_from(&look.files);
                self.report(&look);
                let complete = look.complete;
                if complete {
                    let wanted = std::mem::take(&mut look.sources);
                    self.deps.sources.follow(wanted, look.unusable.keys());
                    self.bring_about(look).await;
                }
                complete
            }
            Err(error) => {
                tracing::error!(%error, "the thread that looks at the consumer directory broke, trying again");
                false
            }
        };
        let again_at = if complete { self.refused.next() } else { Some(Instant::now() + RETRY_AFTER) };
        Applied { files: self.files.clone(), complete, again_at }
    }

    /// Verifies everything first: what is refused is told even if there is no connection.
    async fn bring_about(&mut self, look: Look) {
        let steps = self.plan(&look);
        let Look { mut wanted, unusable, .. } = look;
        let known: BTreeSet<String> = wanted.keys().chain(unusable.keys()).cloned().collect();
        let mut loaded = Vec::new();
        for (name, step) in steps {
            let Some(wanted) = wanted.remove(&name) else {
                let stopped = self.stop(&name).await;
                self.tell_failure(&name, stopped);
                continue;
            };
            match self.load(wanted).await {
                Ok(ready) => loaded.push((name, step, ready)),
                Err(failure) => self.refuse(&name, &failure),
            }
        }
        if loaded.iter().any(|(_, _, ready)| !ready.manifest.streams.is_empty()) {
            // Without one they begin all the same, and the streams are made when it comes.
            _ = tokio::time::timeout(CONNECT_GRACE, self.deps.connection.connected()).await;
        }
        for (name, step, ready) in loaded {
            let performed = self.perform(&name, step, ready).await;
            self.tell_failure(&name, performed);
        }
        let running = &self.running;
        let is_known = |name: &str| known.contains(name) || running.contains_key(name);
        self.refused.keep(is_known);
        self.deps.board.keep(is_known);
    }

    fn refuse(&mut self, name: &str, failure: &LoadFailure) {
        let LoadFailure { form, error, kind, passing } = failure;
        let text = format!("{error:#}");
        if self.refused.note(name, *form, &text, *passing) {
            let goes_on = self.running.get(name).map(|running| running.form.version.short());
            tracing::error!(consumer = name, kind, error = text, goes_on_with = goes_on, "deployment refused");
            if self.running.get(name).is_some_and(|running| running.form.version != form.version) {
                self.deps.meters.swap(Swap::Refused);
            }
        }
        self.deps.board.note(name, |entry| entry.deployment = Some(text));
    }

    fn tell_failure(&self, name: &str, outcome: anyhow::Result<()>) {
        if let Err(error) = outcome {
            let text = format!("{error:#}");
            tracing::error!(consumer = name, error = text, "deployment failed");
            self.deps.board.note(name, |entry| entry.deployment = Some(text));
        }
    }

    fn report(&self, look: &Look) {
        let known = self.deps.board.file_problems();
        for problem in look.problems.iter().filter(|problem| !known.contains(problem)) {
            tracing::error!("{problem}");
        }
        self.deps.board.set_file_problems(look.problems.clone());
        for (name, why) in &look.unusable {
            self.deps.board.note(name, |entry| entry.deployment = Some(why.clone()));
        }
    }

    fn plan(&mut self, look: &Look) -> Vec<(String, Step)> {
        let running: BTreeMap<&str, Form> = self.running.iter().map(|(name, r)| (name.as_str(), r.form)).collect();
        let mut wanted: BTreeMap<&str, Form> = look.wanted.iter().map(|(name, w)| (name.as_str(), w.form)).collect();
        for (name, _) in wanted.iter().filter(|(name, form)| running.get(*name) == Some(form)) {
            // Whatever was refused in between is no longer asked for.
            self.refused.forget(name);
            self.deps.board.note(name, |entry| entry.deployment = None);
        }
        for name in look.unusable.keys() {
            if let Some(form) = running.get(name.as_str()) {
                wanted.insert(name, *form);
            }
        }
        let mut steps = plan(&running, &wanted);
        steps.retain(|(name, _)| {
            let Some(refusal) = wanted.get(name).and_then(|form| self.refused.holds(name, form)) else { return true };
            self.deps.board.note(name, |entry| entry.deployment = Some(refusal.why.clone()));
            false
        });
        steps.into_iter().map(|(name, step)| (name.to_owned(), step)).collect()
    }

    async fn perform(&mut self, name: &str, step: Step, loaded: Loaded) -> anyhow::Result<()> {
        let version = loaded.form.version;
        self.refused.forget(name);
        match step {
            Step::Start => self.start(loaded).await?,
            Step::Restart | Step::Stop => {
                self.stop(name).await?;
                self.start(loaded).await?;
            }
            Step::Swap | Step::Change => self.replace(name, loaded)?,
        }
        if step == Step::Swap {
            self.deps.meters.swap(Swap::Swapped);
        }
        tracing::info!(consumer = name, version = version.short(), step = ?step, "deployed");
        self.deps.board.note(name, |entry| {
            entry.version = Some(version);
            entry.deployment = None;
            entry.isolation = None;
        });
        Ok(())
    }

    /// Compiles and verifies, on a thread that nobody waits for but the deployer. The same version under the same terms is taken as it is.
    async fn load(&self, wanted: Wanted) -> Result<Loaded, LoadFailure> {
        let Wanted { manifest, form } = wanted;
        let terms = load_terms(&manifest);
        if let Some(running) = self.running.get(&manifest.name)
            && running.form.version == form.version
            && load_terms(&running.manifest) == terms
        {
            return Ok(Loaded { plugin: running.plugin.clone(), manifest, form });
        }
        let (sandbox, meters) = (Arc::clone(&self.deps.sandbox), Arc::clone(&self.deps.meters));
        let sources = Arc::clone(&self.deps.sources);
        let loading = tokio::task::spawn_blocking(move || {
            let unreadable = |error| LoadFailure { form, error, kind: "unreadable", passing: true };
            let bytes = sources.read(&manifest.component).map_err(unreadable)?;
            // It may have changed since the look: what is read now is what serves.
            let form = Form { version: Plugin::version_of(&bytes), ..form };
            let watch = Stopwatch::start();
            let loaded = sandbox.load(&bytes, &terms);
            meters.compile_us.record(watch.elapsed_us());
            match loaded {
                Ok(plugin) => Ok(Loaded { manifest, form, plugin }),
                Err(error) => {
                    let (kind, passing) = (error.kind(), error.may_pass());
                    let error = anyhow!(error).context(format!("component {}", manifest.component));
                    Err(LoadFailure { form, error, kind, passing })
                }
            }
        });
        loading.await.unwrap_or_else(|error| {
            let error = anyhow!(error).context("the thread that compiles components broke");
            Err(LoadFailure { form, error, kind: "broke", passing: true })
        })
    }

    async fn start(&mut self, loaded: Loaded) -> anyhow::Result<()> {
        let Loaded { manifest, form, plugin } = loaded;
        let (answer, consumer) = oneshot::channel();
        self.tell(Note::Register(manifest.name.as_str().into(), answer))?;
        let consumer = consumer.await.context("the driver has ended")?;
        let Dependencies { connection, board, .. } = &self.deps;
        let declaring = Declaring::begin(connection, board, &manifest.name, &manifest.streams).await;
        let rules = rules(&manifest, plugin.clone(), self.deps.mark_ttl_ms);
        let meters = self.deps.meters.consumer(&manifest.name);
        let deployed = Arc::new(Deployed::new(consumer, &manifest.name, Ingest::new(&manifest), rules, meters));
        let intake = Intake::new(
            Arc::clone(&deployed),
            Arc::clone(&self.deps.reader),
            Arc::clone(&self.deps.board),
            self.deps.notes.clone(),
        );
        let settings = SubscriptionSettings {
            consumer,
            name: manifest.name.as_str().into(),
            stream: manifest.subscription.stream.as_str().into(),
            subjects: manifest.subscription.subjects.iter().map(|subject| subject.as_str().into()).collect(),
            ack_wait: Duration::from_millis(manifest.subscription.ack_wait_ms),
            pull_messages_max: PULL_MESSAGES_MAX,
            pull_bytes_max: PULL_BYTES_MAX.min(u32::try_from(manifest.policy.bytes_held_max / 2).unwrap_or(u32::MAX)),
        };
        let subscription =
            Subscription::start(&self.deps.connection, settings, Arc::new(move |incoming| intake.take(incoming)));
        let start = match manifest.subscription.start {
            config::Start::All => pelton_core::Start::All,
            config::Start::New => pelton_core::Start::New,
        };
        let handle = subscription.handle();
        let attachment = Attachment {
            deployed: Arc::clone(&deployed),
            subscription: handle,
            policy: manifest.policy.clone(),
            start,
        };
        self.tell(Note::Attach(Box::new(attachment)))?;
        let running = Running { form, plugin, manifest, deployed, subscription, declaring };
        self.running.insert(running.manifest.name.clone(), running);
        Ok(())
    }

    fn replace(&mut self, name: &str, loaded: Loaded) -> anyhow::Result<()> {
        let Loaded { manifest, form, plugin } = loaded;
        let Some(running) = self.running.get_mut(name) else { bail!("consumer {name} does not run") };
        running.deployed.replace(rules(&manifest, plugin.clone(), self.deps.mark_ttl_ms));
        let consumer = running.deployed.consumer;
        let change = pelton_core::Input::Change { consumer, policy: Box::new(manifest.policy.clone()) };
        let is_new = running.form.version != form.version;
        running.form = form;
        running.plugin = plugin;
        running.manifest = manifest;
        self.tell(Note::Core(change))?;
        if is_new { self.tell(Note::Core(pelton_core::Input::Swapped { consumer })) } else { Ok(()) }
    }

    async fn stop(&mut self, name: &str) -> anyhow::Result<()> {
        let Some(running) = self.running.remove(name) else { return Ok(()) };
        let (done, stopped) = oneshot::channel();
        self.tell(Note::Detach(running.deployed.consumer, done))?;
        stopped.await.context("the driver has ended")?;
        running.declaring.stop().await;
        running.subscription.stop().await;
        self.refused.forget(name);
        self.deps.board.forget(name);
        tracing::info!(consumer = name, "stopped; its state and its cursor stay");
        Ok(())
    }

    /// Sends what acknowledgements are left. For the end of the host, after the driver has drained.
    pub async fn close(self) {
        for running in self.running.into_values() {
            running.declaring.stop().await;
            running.subscription.stop().await;
        }
    }

    fn tell(&self, note: Note) -> anyhow::Result<()> {
        self.deps.notes.send(note).ok().context("the driver has ended")
    }
}
