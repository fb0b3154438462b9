//! A consumer as executors and deployment see it: what serves it now, replaced as a whole between two messages.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;
use pelton_core::grants::Grants;
use pelton_core::ids::ConsumerId;
use pelton_core::policy::Isolation;
use pelton_core::transaction::{EffectLimits, Terms};

use crate::ingest::Ingest;
use crate::telemetry::meters::{ConsumerMeters, VersionMeters};
use crate::wasm::{Identity, LogBudget, Plugin, RunLimits};

/// Everything that an attempt of a consumer depends on, besides the message and the state.
#[derive(Clone)]
pub struct Serving {
    /// The plug-in.
    pub plugin: Plugin,
    /// What its effects may be.
    pub terms: Arc<Terms>,
    /// Time and memory.
    pub limits: RunLimits,
    /// Its name and configuration values.
    pub identity: Arc<Identity>,
    /// What its attempts are counted in.
    pub meters: Arc<VersionMeters>,
    /// Whether its instances serve several attempts.
    pub isolation: Isolation,
    /// Set by an audit that has shown that reuse makes a difference: attempts get fresh instances until the rules are replaced.
    pub distrusted: Arc<AtomicBool>,
}

/// What a manifest says about attempts.
#[derive(Clone)]
pub struct Rules {
    /// The plug-in.
    pub plugin: Plugin,
    /// What it may do.
    pub grants: Grants,
    /// How much it may do.
    pub effects: EffectLimits,
    /// How long a mark is kept that names no time to live, in milliseconds.
    pub mark_ttl_ms: u64,
    /// Whether all keys of the consumer share their state.
    pub shared_state: bool,
    /// Time and memory.
    pub limits: RunLimits,
    /// Its name and configuration values.
    pub identity: Arc<Identity>,
    /// How much it may write to the log.
    pub log: LogBudget,
    /// Whether its instances serve several attempts.
    pub isolation: Isolation,
}

/// A running consumer.
pub struct Deployed {
    /// Its number.
    pub consumer: ConsumerId,
    /// Its name.
    pub name: Box<str>,
    /// How its deliveries become messages.
    pub ingest: Ingest,
    /// What is counted of it.
    pub meters: Arc<ConsumerMeters>,
    serving: ArcSwap<Serving>,
}

impl Deployed {
    /// A consumer that serves by these rules.
    #[must_use]
    pub fn new(consumer: ConsumerId, name: &str, ingest: Ingest, rules: Rules, meters: Arc<ConsumerMeters>) -> Self {
        let serving = ArcSwap::from_pointee(serving(name, rules, &meters));
        Self { consumer, name: name.into(), ingest, meters, serving }
    }

    /// The pattern of its grants that covers a subject to emit to.
    #[must_use]
    pub fn emit_pattern_of(&self, subject: &str) -> Option<Box<str>> {
        self.serving().terms.grants.pattern_of(subject).map(Box::from)
    }

    /// What serves the next attempt.
    #[must_use]
    pub fn serving(&self) -> arc_swap::Guard<Arc<Serving>> {
        self.serving.load()
    }

    /// From the next attempt on these rules hold; attempts that have begun end under the ones before.
    pub fn replace(&self, rules: Rules) {
        self.serving.store(Arc::new(serving(&self.name, rules, &self.meters)));
    }
}

/// What serves a consumer of this name by these rules.
pub(crate) fn serving(name: &str, rules: Rules, meters: &ConsumerMeters) -> Serving {
    let terms = Terms {
        grants: rules.grants,
        limits: rules.effects,
        mark_ttl_ms: rules.mark_ttl_ms,
        consumer_name: name.into(),
        shared_state: rules.shared_state,
        version: rules.plugin.version().to_string().into(),
    };
    meters.output.set_budget(rules.log);
    let identity = Identity { output: Arc::clone(&meters.output), ..Identity::clone(&rules.identity) };
    Serving {
        meters: meters.version(rules.plugin.version()),
        plugin: rules.plugin,
        terms: Arc::new(terms),
        limits: rules.limits,
        identity: Arc::new(identity),
        isolation: rules.isolation,
        distrusted: Arc::default(),
    }
}
