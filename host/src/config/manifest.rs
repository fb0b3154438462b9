//! What a manifest says: one consumer's component, what it reads, and what it may do.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use pelton_core::grants::Grants;
use pelton_core::ids::Version;
use pelton_core::policy::{Isolation, Policy};
use pelton_core::transaction::EffectLimits;

use super::component::ComponentSource;
use super::directory;
use super::effective::{self, Setting};
use super::manifest_read;
use super::reader::{self, Context};
use super::report::{Code, Place, Problem, Report};
use super::values::{self, JsonPointer};

/// One consumer, as its manifest describes it. Two manifests can be compared part by part to see what changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The consumer's name: the stem of the file's name.
    pub name: String,
    /// Where its component comes from. Whether it is there is another matter: [`Manifest::check_files`].
    pub component: ComponentSource,
    /// How often the tag of its component is looked at again, in milliseconds; 0: only when the consumer is deployed.
    pub component_poll_ms: u64,
    /// The digest that its bytes must have; none: any.
    pub digest: Option<Version>,
    /// How a new version is tried.
    pub deploy: DeployRules,
    /// What it reads.
    pub subscription: Subscription,
    /// Where its ordering keys come from.
    pub key: Key,
    /// Where its messages' ids come from.
    pub id: IdSource,
    /// Where the versions of their entities are, for a consumer that orders by them (`policy.versions` is there then, too); none: it
    /// orders by the stream alone.
    pub entity_version: Option<VersionSource>,
    /// What it may do.
    pub grants: Grants,
    /// Retries, parking, order, pace, and how much it may hold; whether its keys share their state.
    pub policy: Policy,
    /// How much one attempt may read and write.
    pub effects: EffectLimits,
    /// How long an attempt may take, and how much memory.
    pub run: RunLimits,
    /// Whether instances serve several attempts.
    pub isolation: Isolation,
    /// Its `[config]`, as the plug-in reads it.
    pub config: BTreeMap<String, String>,
    /// Streams to create if they are missing.
    pub streams: Vec<StreamSpec>,
    /// The file that it was read from.
    pub file: PathBuf,
}

/// `[deploy]`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeployRules {
    /// A new version is on probation for so long at least, in milliseconds: if the breaker opens, the version before it comes back. At most a day.
    pub probation_ms: u64,
    /// And for so many attempts at least. At most 1,000,000.
    pub probation_messages: u32,
    /// Before a new version serves, it is given the last so many messages of the stream, and its effects are discarded; 0: it is not. At most 10,000.
    pub rehearse: usize,
    /// It is refused if more than this part of them end with a trap, a timeout or a passed limit. 0 to 1.
    pub trap_ratio_max: f64,
}

impl Default for DeployRules {
    fn default() -> Self {
        Self { probation_ms: 60_000, probation_messages: 100, rehearse: 0, trap_ratio_max: 0.0 }
    }
}

/// `[subscription]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The stream's name.
    pub stream: String,
    /// Patterns of the subjects that it reads; at least one, none of which overlap.
    pub subjects: Vec<String>,
    /// Where it begins if it has no cursor yet.
    pub start: Start,
    /// What payloads must be.
    pub payload: Payload,
    /// When JetStream gives a message to another host if this one is silent, in milliseconds: work-queue and interest streams only.
    /// 1,000 to 3,600,000.
    pub ack_wait_ms: u64,
}

/// Where a consumer begins that has no cursor yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With the stream's first message.
    #[default]
    All,
    /// With the next message to be published.
    New,
}

/// What payloads must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Payload {
    /// Anything.
    #[default]
    Bytes,
    /// JSON; all else becomes a dead letter.
    Json,
}

/// Where the ordering key of a message comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// The subject's token of this number, from 1.
    SubjectToken(usize),
    /// The first header of this name, in any case.
    Header(String),
    /// The string, number or boolean there in the payload.
    JsonPointer(JsonPointer),
    /// There is none, because the subscription is shared: each message is a lane of its own, without keyed state.
    None,
}

/// Where the id of a message comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum IdSource {
    /// The header `Nats-Msg-Id`; stream and sequence for a message without it.
    #[default]
    MessageId,
    /// The first header of this name, in any case.
    Header(String),
    /// The string, number or boolean there in the payload.
    JsonPointer(JsonPointer),
}

/// Where the version of a message's entity comes from: a whole number from 0 to 2^64 - 1, in decimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionSource {
    /// The first header of this name, in any case.
    Header(String),
    /// The number there in the payload, or the string of digits.
    JsonPointer(JsonPointer),
}

/// Limits that the sandbox keeps: of one attempt, and of what all of them write to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunLimits {
    /// Its longest time, in milliseconds. 1 to 600,000.
    pub timeout_ms: u64,
    /// Its linear memory, in bytes. 1 MiB to 1 GiB.
    pub memory_bytes: usize,
    /// Lines that the plug-in may write to the host's log in a second, in the long run. 0 to 100,000.
    pub log_lines_per_second: u32,
    /// Lines that it may write at once, after it was silent for a while. 0 to 100,000.
    pub log_lines_burst: u32,
}

impl Default for RunLimits {
    fn default() -> Self {
        Self { timeout_ms: 1_000, memory_bytes: 64 << 20, log_lines_per_second: 100, log_lines_burst: 1_000 }
    }
}

/// `[[streams]]`: a stream that is created if it is missing, and never changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSpec {
    /// Its name.
    pub name: String,
    /// Patterns of the subjects that it keeps; at least one, none of which overlap.
    pub subjects: Vec<String>,
    /// When it drops messages.
    pub retention: Retention,
    /// How long it keeps a message, in hours; 0 is for good.
    pub max_age_hours: u64,
    /// How many bytes of messages it keeps; 0 is no limit.
    pub max_bytes: u64,
    /// How long it knows a `Nats-Msg-Id` again, in milliseconds. At least 100.
    pub duplicate_window_ms: u64,
    /// On how many servers it is kept. 1 to 5.
    pub replicas: usize,
}

/// When a stream drops messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retention {
    /// At its limits of age and size.
    #[default]
    Limits,
    /// When the one consumer of a message has settled it.
    WorkQueue,
    /// When all consumers of a message have settled it.
    Interest,
}

impl Manifest {
    /// Reads and checks one manifest. It is not compared with others: that is [`super::load_directory`].
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn load(file: &Path) -> Result<Self, Report> {
        let loaded = load_placed(file)?;
        let mut manifests = vec![loaded];
        let report = directory::cross_check(&mut manifests);
        manifests.pop().map(|loaded| loaded.manifest).ok_or(report)
    }

    /// The settings of one manifest, with where each value is from.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn settings(file: &Path) -> Result<Vec<Setting>, Report> {
        let text = reader::read_file(file, "a consumer's manifest must be a readable TOML file")?;
        let context = Context::new(file, &text);
        let loaded = manifest_read::read(&context, file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default());
        let settings = effective::of_manifest(&context);
        let report = context.into_report();
        loaded.filter(|_| report.is_empty()).map(|_| settings).ok_or(report)
    }

    /// Whether the files that the manifest names are there. Apart from loading, because a component may arrive after its manifest. What comes
    /// over the network is not asked for.
    #[must_use]
    pub fn check_files(&self) -> Report {
        let Some(component) = self.component.path() else { return Report::default() };
        let opened = File::open(component).and_then(|file| file.metadata());
        let flaw = match opened {
            Ok(metadata) if metadata.is_file() => return Report::default(),
            Ok(_) => "it is not a file".to_owned(),
            Err(error) => error.to_string(),
        };
        Report::from(vec![Problem {
            code: Code::NamedFileUnreadable,
            file: self.file.clone(),
            place: None,
            message: format!("component {} can't be read: {flaw}", component.display()),
            help: "build the component, or correct \"component\" (its path is relative to the manifest)".into(),
        }])
    }
}

/// A manifest, and where those of its parts stand that other manifests can contradict.
pub(super) struct Loaded {
    pub(super) manifest: Manifest,
    pub(super) places: Places,
}

/// Places within a manifest's file.
#[derive(Default)]
pub(super) struct Places {
    /// Of each pattern in `subscription.subjects`.
    pub(super) subjects: Vec<Place>,
    /// Of `subscription.start`, or of the section if it is not there.
    pub(super) start: Option<Place>,
    /// Of `dead_letters.subject`.
    pub(super) dead_letters: Option<Place>,
    /// Of each `[[streams]]`.
    pub(super) streams: Vec<Place>,
}

/// Reads one manifest, without comparing it to others.
pub(super) fn load_placed(file: &Path) -> Result<Loaded, Report> {
    let text = reader::read_file(file, "a consumer's manifest must be a readable TOML file");
    let name = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let mut report = Report::default();
    if !values::is_consumer_name(name) {
        report.merge(Report::from(vec![Problem {
            code: Code::InvalidConsumerName,
            file: file.into(),
            place: None,
            message: format!("the file's name gives the consumer's, and \"{name}\" can't be one"),
            help: "rename the file: 1 to 63 of a-z, 0-9 and \"-\", not beginning with \"-\", and .toml".into(),
        }]));
    }
    match text.and_then(|text| parse(file, name, &text)) {
        Ok(loaded) if report.is_empty() => Ok(loaded),
        Ok(_) => Err(report),
        Err(more) => {
            report.merge(more);
            Err(report)
        }
    }
}

pub(super) fn parse(file: &Path, name: &str, text: &str) -> Result<Loaded, Report> {
    let context = Context::new(file, text);
    let loaded = manifest_read::read(&context, name);
    let report = context.into_report();
    loaded.filter(|_| report.is_empty()).ok_or(report)
}
