//! The deployer: compares what runs with what the consumer directory says, and brings the one to the other.
//!
//! What can't be accepted changes nothing: the version before goes on, and the reason is in the log and in `status`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use crossbeam_channel::Sender;
use pelton_core::ids::Version;
use pelton_core::plan::{Form, Step, plan};
use tokio::sync::oneshot;

use super::forms::{form, load_terms, rules};
use crate::board::Board;
use crate::config::{self, Code, Manifest, Report};
use crate::deployed::Deployed;
use crate::driver::{Attachment, Note};
use crate::intake::Intake;
use crate::nats::{
    Connection, Ensured, PULL_BYTES_MAX, PULL_MESSAGES_MAX, StreamDeclaration, StreamError, Subscription,
    SubscriptionSettings,
};
use crate::store::Reader;
use crate::wasm::{Plugin, Sandbox};

/// What the deployer works with.
pub struct Dependencies {
    /// The consumer directory.
    pub directory: PathBuf,
    /// Largest component, in bytes.
    pub component_bytes_max: usize,
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
    /// The driver.
    pub notes: Sender<Note>,
}

struct Running {
    form: Form,
    plugin: Plugin,
    manifest: Manifest,
    deployed: Arc<Deployed>,
    subscription: Subscription,
}

/// A manifest with its component's bytes.
struct Wanted {
    manifest: Manifest,
    form: Form,
    bytes: Vec<u8>,
}

/// What the directory says, read once.
#[derive(Default)]
struct Look {
    /// Whether the directory could be read; otherwise nothing is known, and everything goes on as it is.
    complete: bool,
    wanted: BTreeMap<String, Wanted>,
    /// Consumers whose files can't be used as they are: what runs of them goes on.
    unusable: BTreeMap<String, String>,
    /// Problems of files, as text.
    problems: Vec<String>,
    /// Every file whose change matters.
    files: BTreeSet<PathBuf>,
}

/// Brings what runs to what is wanted.
pub struct Deployer {
    deps: Dependencies,
    running: BTreeMap<String, Running>,
    /// The forms that were refused last, so that the same one is not compiled again for every change nearby.
    refused: BTreeMap<String, Form>,
}

/// First pause before another try to create a declared stream; doubled each time.
const STREAM_RETRY_FIRST: Duration = Duration::from_millis(100);
/// Tries to create a declared stream before the consumer begins without it: its subscription goes on waiting for the stream.
const STREAM_TRIES: u32 = 5;

impl Deployer {
    /// A deployer of which nothing runs yet.
    #[must_use]
    pub fn new(deps: Dependencies) -> Self {
        Self { deps, running: BTreeMap::new(), refused: BTreeMap::new() }
    }

    /// Looks at the directory and does what follows from it. Gives back the files whose change calls for another look.
    pub async fn apply(&mut self) -> BTreeSet<PathBuf> {
        let directory = self.deps.directory.clone();
        let bytes_max = self.deps.component_bytes_max;
        let look = tokio::task::spawn_blocking(move || look(&directory, bytes_max)).await.unwrap_or_default();
        self.report(&look);
        if !look.complete {
            return look.files;
        }
        let steps = self.plan(&look);
        let mut wanted = look.wanted;
        for (name, step) in steps {
            let outcome = match wanted.remove(&name) {
                Some(wanted) => self.perform(&name, step, wanted).await,
                None => self.stop(&name).await,
            };
            if let Err(error) = outcome {
                let text = format!("{error:#}");
                let goes_on = self.running.get(&name).map(|running| running.form.version.short());
                tracing::error!(consumer = name, error = text, goes_on_with = goes_on, "deployment refused");
                self.deps.board.note(&name, |entry| entry.deployment = Some(text));
            }
        }
        look.files
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

    fn plan(&self, look: &Look) -> Vec<(String, Step)> {
        let running: BTreeMap<&str, Form> = self.running.iter().map(|(name, r)| (name.as_str(), r.form)).collect();
        let mut wanted: BTreeMap<&str, Form> = look.wanted.iter().map(|(name, w)| (name.as_str(), w.form)).collect();
        for name in look.unusable.keys() {
            if let Some(form) = running.get(name.as_str()) {
                wanted.insert(name, *form);
            }
        }
        let was_refused = |name: &str| self.refused.get(name).is_some_and(|form| wanted.get(name) == Some(form));
        let steps = plan(&running, &wanted).into_iter();
        steps.filter(|(name, _)| !was_refused(name)).map(|(name, step)| (name.to_owned(), step)).collect()
    }

    async fn perform(&mut self, name: &str, step: Step, wanted: Wanted) -> anyhow::Result<()> {
        let Wanted { manifest, form, bytes } = wanted;
        let plugin = match self.load(&manifest, form.version, bytes).await {
            Ok(plugin) => plugin,
            Err(error) => {
                self.refused.insert(name.to_owned(), form);
                return Err(error);
            }
        };
        self.refused.remove(name);
        match step {
            Step::Start => self.start(manifest, form, plugin).await?,
            Step::Restart | Step::Stop => {
                self.stop(name).await?;
                self.start(manifest, form, plugin).await?;
            }
            Step::Swap | Step::Change => self.replace(name, manifest, form, plugin)?,
        }
        let version = form.version;
        tracing::info!(consumer = name, version = version.short(), step = ?step, "deployed");
        self.deps.board.note(name, |entry| {
            entry.version = Some(version);
            entry.deployment = None;
        });
        Ok(())
    }

    /// Compiles and verifies, on a thread that nobody waits for but the deployer. The same version under the same terms is taken as it is.
    async fn load(&self, manifest: &Manifest, version: Version, bytes: Vec<u8>) -> anyhow::Result<Plugin> {
        let terms = load_terms(manifest);
        if let Some(running) = self.running.get(&manifest.name)
            && running.form.version == version
            && load_terms(&running.manifest) == terms
        {
            return Ok(running.plugin.clone());
        }
        let sandbox = Arc::clone(&self.deps.sandbox);
        let loading = tokio::task::spawn_blocking(move || sandbox.load(&bytes, &terms));
        let loaded = loading.await.context("the thread that compiles components broke")?;
        loaded.with_context(|| format!("component {}", manifest.component.display()))
    }

    async fn start(&mut self, manifest: Manifest, form: Form, plugin: Plugin) -> anyhow::Result<()> {
        let (answer, consumer) = oneshot::channel();
        self.tell(Note::Register(manifest.name.as_str().into(), answer))?;
        let consumer = consumer.await.context("the driver has ended")?;
        if !self.deps.connection.connected().await {
            bail!("the host is stopping");
        }
        for spec in &manifest.streams {
            self.declare(&manifest.name, &declaration(spec)).await;
        }
        let rules = rules(&manifest, plugin.clone(), self.deps.mark_ttl_ms);
        let deployed = Arc::new(Deployed::new(consumer, &manifest.name, rules));
        let intake = Intake::new(
            Arc::clone(&deployed),
            manifest.clone(),
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
        let attachment =
            Attachment { deployed: Arc::clone(&deployed), subscription: handle, policy: manifest.policy, start };
        self.tell(Note::Attach(Box::new(attachment)))?;
        self.running.insert(manifest.name.clone(), Running { form, plugin, manifest, deployed, subscription });
        Ok(())
    }

    /// Creates a declared stream if it is missing. What fails is reported; the subscription waits for the stream in any case.
    async fn declare(&self, consumer: &str, declared: &StreamDeclaration) {
        let mut pause = STREAM_RETRY_FIRST;
        for attempt in 1..=STREAM_TRIES {
            match self.deps.connection.ensure_stream(declared).await {
                Ok(Ensured::Created) => tracing::info!(consumer, stream = %declared.name, "stream created"),
                Ok(Ensured::Present) => {}
                Ok(Ensured::Differs(warning)) => tracing::warn!(consumer, "{warning}"),
                Err(StreamError::Unavailable { .. }) if attempt < STREAM_TRIES => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                    continue;
                }
                Err(error) => {
                    tracing::error!(consumer, stream = %declared.name, %error, "can't create a declared stream")
                }
            }
            return;
        }
    }

    fn replace(&mut self, name: &str, manifest: Manifest, form: Form, plugin: Plugin) -> anyhow::Result<()> {
        let Some(running) = self.running.get_mut(name) else { bail!("consumer {name} does not run") };
        running.deployed.replace(rules(&manifest, plugin.clone(), self.deps.mark_ttl_ms));
        let change = pelton_core::Input::Change { consumer: running.deployed.consumer, policy: manifest.policy };
        running.form = form;
        running.plugin = plugin;
        running.manifest = manifest;
        self.tell(Note::Core(change))
    }

    async fn stop(&mut self, name: &str) -> anyhow::Result<()> {
        let Some(running) = self.running.remove(name) else { return Ok(()) };
        let (done, stopped) = oneshot::channel();
        self.tell(Note::Detach(running.deployed.consumer, done))?;
        stopped.await.context("the driver has ended")?;
        running.subscription.stop().await;
        self.refused.remove(name);
        self.deps.board.forget(name);
        tracing::info!(consumer = name, "stopped; its state and its cursor stay");
        Ok(())
    }

    /// Sends what acknowledgements are left. For the end of the host, after the driver has drained.
    pub async fn close(self) {
        for running in self.running.into_values() {
            running.subscription.stop().await;
        }
    }

    fn tell(&self, note: Note) -> anyhow::Result<()> {
        self.deps.notes.send(note).ok().context("the driver has ended")
    }
}

fn declaration(spec: &config::StreamSpec) -> StreamDeclaration {
    use crate::nats::Retention;
    StreamDeclaration {
        name: spec.name.as_str().into(),
        subjects: spec.subjects.iter().map(|subject| subject.as_str().into()).collect(),
        retention: match spec.retention {
            config::Retention::Limits => Retention::Limits,
            config::Retention::WorkQueue => Retention::WorkQueue,
            config::Retention::Interest => Retention::Interest,
        },
        max_age: Duration::from_secs(spec.max_age_hours.saturating_mul(3600)),
        max_bytes: spec.max_bytes,
        duplicate_window: Duration::from_millis(spec.duplicate_window_ms),
        replicas: u32::try_from(spec.replicas).unwrap_or(1),
    }
}

/// Reads all manifests and their components. Blocks on the disk.
fn look(directory: &Path, component_bytes_max: usize) -> Look {
    let (manifests, report) = config::load_directory(directory);
    let mut look = Look { complete: !report.has(Code::DirectoryUnreadable), ..Look::default() };
    // A file that is not there stands for its directory: that is what is watched.
    look.files.insert(directory.join("*.toml"));
    note_unusable(&mut look, &report);
    for manifest in manifests {
        look.files.insert(manifest.component.clone());
        match read_component(&manifest.component, component_bytes_max) {
            Ok(bytes) => {
                let form = form(&manifest, Plugin::version_of(&bytes));
                look.wanted.insert(manifest.name.clone(), Wanted { manifest, form, bytes });
            }
            Err(why) => {
                let text = format!("{}: {why:#}", manifest.file.display());
                look.problems.push(text.clone());
                look.unusable.insert(manifest.name.clone(), text);
            }
        }
    }
    look
}

fn note_unusable(look: &mut Look, report: &Report) {
    for problem in report.problems() {
        let text = problem.to_string();
        look.problems.push(text.clone());
        if let Some(name) = problem.file.file_stem().and_then(|stem| stem.to_str()) {
            let known = look.unusable.entry(name.to_owned()).or_default();
            if !known.is_empty() {
                known.push('\n');
            }
            known.push_str(&text);
        }
    }
}

fn read_component(file: &Path, bytes_max: usize) -> anyhow::Result<Vec<u8>> {
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
