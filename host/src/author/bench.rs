//! One attempt on the bench: a plug-in, a message and a state, run by the real sandbox in a real transaction.

use std::sync::Arc;
use std::thread;

use anyhow::Context as _;
use pelton_core::effects::WriteSet;
use pelton_core::grants::Grants;
use pelton_core::ids::ConsumerId;
use pelton_core::message::{Failure, Message};
use pelton_core::policy::Isolation;
use pelton_core::transaction::{EffectLimits, StateView, Transaction};

use super::memory::Memory;
use crate::config::{Manifest, RunLimits};
use crate::deploy::{load_terms, rules};
use crate::deployed::{Rules, Serving, serving};
use crate::telemetry::meters::ConsumerMeters;
use crate::wasm::{self, EXECUTOR_STACK_BYTES, Identity, LoadTerms, LogBudget, Plugin, Sandbox, Settings, Told};

/// Largest memory that a manifest may ask for, in bytes; the same bound as the configuration's.
const MEMORY_BYTES_MAX: usize = 1 << 30;
/// How long a mark is kept that names no time to live, in milliseconds: the host's default.
const MARK_TTL_MS: u64 = 24 * 3_600_000;
/// The consumer's number: there is only this one.
const CONSUMER: ConsumerId = ConsumerId(0);

/// What a plug-in is run by.
#[derive(Clone)]
pub(super) enum Terms {
    /// A manifest.
    Manifest(Box<Manifest>),
    /// No manifest: the defaults, under this name, with these configuration values, and leave to emit to these subjects. Without an ordering key the
    /// state is that of the whole consumer.
    Free { identity: Arc<Identity>, grants: Grants },
}

impl Terms {
    fn load_terms(&self) -> LoadTerms {
        match self {
            Self::Manifest(manifest) => load_terms(manifest),
            Self::Free { identity, grants } => LoadTerms {
                identity: Arc::clone(identity),
                grants: grants.clone(),
                keyed_state: true,
                memory_bytes: RunLimits::default().memory_bytes,
            },
        }
    }

    fn serving(&self, plugin: Plugin, message: &Message) -> Serving {
        match self {
            Self::Manifest(manifest) => {
                serving(&manifest.name, rules(manifest, plugin, MARK_TTL_MS), &ConsumerMeters::default())
            }
            Self::Free { identity, grants } => {
                let (effects, run) = (EffectLimits::default(), RunLimits::default());
                let rules = Rules {
                    plugin,
                    grants: grants.clone(),
                    effects,
                    mark_ttl_ms: MARK_TTL_MS,
                    shared_state: message.key.is_none(),
                    limits: wasm::RunLimits::new(run.timeout_ms, run.memory_bytes, &effects),
                    identity: Arc::clone(identity),
                    isolation: Isolation::default(),
                    log: LogBudget::default(),
                };
                serving(&identity.consumer, rules, &ConsumerMeters::default())
            }
        }
    }
}

/// What distinguishes one attempt from another.
pub(super) struct Conditions {
    pub(super) now_ms: u64,
    pub(super) attempt: u32,
    pub(super) seed: u64,
}

/// How an attempt ended, and what it did on the way.
pub(super) struct Attempted {
    pub(super) outcome: Result<WriteSet, Failure>,
    pub(super) told: Told,
}

/// A sandbox for one attempt at a time.
pub(super) struct Bench {
    sandbox: Sandbox,
}

impl Bench {
    /// # Errors
    /// If the sandbox can't be set up.
    pub(super) fn new(component_bytes_max: usize) -> anyhow::Result<Self> {
        let settings =
            Settings { instances_max: 1, kept_max: 0, memory_bytes_max: MEMORY_BYTES_MAX, component_bytes_max };
        Ok(Self { sandbox: Sandbox::new(&settings)? })
    }

    /// Compiles and verifies a component.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn load(&self, bytes: &[u8], terms: &Terms) -> anyhow::Result<Plugin> {
        Ok(on_a_deep_stack(|| self.sandbox.load(bytes, &terms.load_terms()))??)
    }

    /// Makes one attempt. What it reads is `memory`; that it doesn't change.
    ///
    /// # Errors
    /// If no thread can be had for it.
    pub(super) fn run(
        &self,
        plugin: &Plugin,
        terms: &Terms,
        message: Message,
        memory: &Memory,
        conditions: &Conditions,
    ) -> anyhow::Result<Attempted> {
        let Serving { plugin, terms, limits, identity, .. } = terms.serving(plugin.clone(), &message);
        let view = Arc::new(memory.clone()) as Arc<dyn StateView>;
        let transaction = Transaction::new(view, terms, CONSUMER, Arc::new(message), conditions.now_ms);
        let Conditions { attempt, seed, .. } = *conditions;
        let attempt = || self.sandbox.run_told(&plugin, &limits, &identity, transaction, attempt, seed);
        let (outcome, told) = on_a_deep_stack(attempt)??;
        Ok(Attempted { outcome, told })
    }
}

/// Does something on a thread whose stack is deep enough for plug-ins, and waits for it.
fn on_a_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(EXECUTOR_STACK_BYTES).spawn_scoped(scope, work)?;
        thread.join().ok().context("the thread of the sandbox broke")
    })
}
