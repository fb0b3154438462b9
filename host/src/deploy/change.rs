//! The steps of a plan: what runs is started, replaced and stopped.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use pelton_core::plan::Step;
use pelton_core::{Input, Probation};
use tokio::sync::oneshot;

use super::declare::Declaring;
use super::deployer::{Deployer, Running};
use super::forms::{load_terms, rules};
use super::prepare::{Loaded, Ready};
use crate::config;
use crate::deployed::Deployed;
use crate::driver::{Attachment, Note, Replacement};
use crate::ingest::Ingest;
use crate::intake::Intake;
use crate::nats::{PULL_BYTES_MAX, PULL_MESSAGES_MAX, Subscription, SubscriptionSettings};
use crate::telemetry::meters::Swap;

impl Deployer {
    /// Does what the plan says. A version that was taken back while it was loaded stays away.
    pub(super) async fn perform(&mut self, name: &str, step: Step, loaded: Loaded) -> anyhow::Result<()> {
        let (version, from) = (loaded.form.version, loaded.from);
        let ledger = self.deps.versions.ledger(name);
        if ledger.is_held_back(version, loaded.text) {
            bail!("version {} was taken back meanwhile", version.short());
        }
        match step {
            Step::Start => self.start(loaded).await?,
            Step::Restart | Step::Stop => {
                let before = self.running.get(name).map(Running::ready);
                self.stop(name).await?;
                self.start(loaded).await?;
                if let Some(running) = self.running.get_mut(name) {
                    running.before = before.filter(|before| before.plugin.version() != version);
                }
            }
            Step::Swap | Step::Change => self.replace(name, loaded, true)?,
        }
        let at_ms = self.deps.clock.now().wall_ms;
        let recorded = self.record(name, move |ledger| ledger.serves(version, at_ms)).await;
        self.tell_unrecorded(name, recorded);
        if from == super::look::Source::Manifest {
            self.refused.forget(name);
        }
        if step == Step::Swap {
            self.deps.meters.swap(Swap::Swapped);
        }
        tracing::info!(consumer = name, version = version.short(), step = ?step, "deployed");
        let remark = self.remark_of(name, from);
        self.deps.board.note(name, |entry| {
            entry.version = Some(version);
            entry.deployment = remark;
            entry.isolation = None;
        });
        Ok(())
    }

    async fn start(&mut self, loaded: Loaded) -> anyhow::Result<()> {
        let Loaded { manifest, form, text, plugin, .. } = loaded;
        let (answer, consumer) = oneshot::channel();
        self.tell(Note::Register(manifest.name.as_str().into(), answer))?;
        let consumer = consumer.await.context("the driver has ended")?;
        let declaring =
            Declaring::begin(&self.deps.connection, &self.deps.board, &manifest.name, &manifest.streams).await;
        let rules = rules(&manifest, plugin.clone(), self.deps.mark_ttl_ms);
        let meters = self.deps.meters.consumer(&manifest.name);
        let deployed = Arc::new(Deployed::new(consumer, &manifest.name, Ingest::new(&manifest), rules, meters));
        let subscription = self.subscribe(&manifest, &deployed);
        let start = match manifest.subscription.start {
            config::Start::All => pelton_core::Start::All,
            config::Start::New => pelton_core::Start::New,
        };
        let attachment = Attachment {
            deployed: Arc::clone(&deployed),
            subscription: subscription.handle(),
            policy: manifest.policy.clone(),
            start,
        };
        self.tell(Note::Attach(Box::new(attachment)))?;
        let served_before = self.deps.versions.ledger(&manifest.name).serving();
        if served_before.is_some_and(|before| before != form.version) {
            self.tell(Note::Core(Input::Swapped { consumer }))?;
            if let Some(probation) = probation(&manifest, form.version) {
                self.tell(Note::Core(Input::Probation { consumer, probation }))?;
            }
        }
        let running = Running { form, text, plugin, before: None, manifest, deployed, subscription, declaring };
        self.running.insert(running.manifest.name.clone(), running);
        Ok(())
    }

    fn subscribe(&self, manifest: &config::Manifest, deployed: &Arc<Deployed>) -> Subscription {
        let intake = Intake::new(
            Arc::clone(deployed),
            Arc::clone(&self.deps.reader),
            Arc::clone(&self.deps.board),
            self.deps.notes.clone(),
        );
        let settings = SubscriptionSettings {
            consumer: deployed.consumer,
            name: manifest.name.as_str().into(),
            stream: manifest.subscription.stream.as_str().into(),
            subjects: manifest.subscription.subjects.iter().map(|subject| subject.as_str().into()).collect(),
            ack_wait: Duration::from_millis(manifest.subscription.ack_wait_ms),
            pull_messages_max: PULL_MESSAGES_MAX,
            pull_bytes_max: PULL_BYTES_MAX.min(u32::try_from(manifest.policy.bytes_held_max / 2).unwrap_or(u32::MAX)),
        };
        Subscription::start(&self.deps.connection, settings, Arc::new(move |incoming| intake.take(incoming)))
    }

    /// Replaces what serves, between two messages of every lane. `on_probation`: another version than the one that served is watched.
    pub(super) fn replace(&mut self, name: &str, loaded: Loaded, on_probation: bool) -> anyhow::Result<()> {
        let Loaded { manifest, form, text, plugin, .. } = loaded;
        let Some(running) = self.running.get_mut(name) else { bail!("consumer {name} does not run") };
        let is_new = running.form.version != form.version;
        let replacement = Replacement {
            deployed: Arc::clone(&running.deployed),
            rules: rules(&manifest, plugin.clone(), self.deps.mark_ttl_ms),
            policy: manifest.policy.clone(),
            is_new,
            probation: probation(&manifest, form.version).filter(|_| is_new && on_probation),
        };
        if is_new {
            running.before = Some(running.ready());
        }
        running.form = form;
        running.text = text;
        running.plugin = plugin;
        running.manifest = manifest;
        self.tell(Note::Replace(Box::new(replacement)))
    }

    pub(super) async fn stop(&mut self, name: &str) -> anyhow::Result<()> {
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

    fn tell(&self, note: Note) -> anyhow::Result<()> {
        self.deps.notes.send(note).ok().context("the driver has ended")
    }
}

impl Running {
    /// What serves, to be kept for when it is wanted again.
    fn ready(&self) -> Ready {
        Ready { plugin: self.plugin.clone(), terms: load_terms(&self.manifest) }
    }
}

/// How a new version is watched; none: it is not.
fn probation(manifest: &config::Manifest, version: pelton_core::ids::Version) -> Option<Probation> {
    let rules = &manifest.deploy;
    let (for_ms, attempts) = (rules.probation_ms, rules.probation_messages);
    (for_ms > 0 || attempts > 0).then_some(Probation { version, for_ms, attempts })
}
