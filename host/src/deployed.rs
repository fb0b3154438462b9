//! A consumer as executors and deployment see it: what serves it now, replaced as a whole between two messages.

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pelton_core::batch::StreamIdentity;
use pelton_core::grants::Grants;
use pelton_core::ids::ConsumerId;
use pelton_core::transaction::{EffectLimits, Terms};

use crate::wasm::{Identity, Plugin, RunLimits};

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
}

/// What a manifest says about attempts, before the stream is known.
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
}

/// A running consumer.
pub struct Deployed {
    /// Its number.
    pub consumer: ConsumerId,
    /// Its name.
    pub name: Box<str>,
    serving: ArcSwap<Serving>,
    /// The parts that `serving` is made of; whoever changes one holds the lock until the whole is replaced.
    parts: Mutex<(Rules, Option<StreamIdentity>)>,
}

impl Deployed {
    /// A consumer that serves by these rules, on a stream that is not known yet.
    #[must_use]
    pub fn new(consumer: ConsumerId, name: &str, rules: Rules) -> Self {
        let serving = ArcSwap::from_pointee(serving(name, &rules, None));
        Self { consumer, name: name.into(), serving, parts: Mutex::new((rules, None)) }
    }

    /// What serves the next attempt.
    #[must_use]
    pub fn serving(&self) -> arc_swap::Guard<Arc<Serving>> {
        self.serving.load()
    }

    /// From the next attempt on these rules hold; attempts that have begun end under the ones before.
    pub fn replace(&self, rules: Rules) {
        let mut parts = self.parts.lock();
        self.serving.store(Arc::new(serving(&self.name, &rules, parts.1.as_ref())));
        parts.0 = rules;
    }

    /// The consumer stands on its first stream since it was started. Where there is one already, it stays: attempts on messages of that one may
    /// still be under way, and the core says when they are not.
    pub fn bind_first(&self, stream: &StreamIdentity) {
        if self.parts.lock().1.is_none() {
            self.bind(stream);
        }
    }

    /// The consumer reads this stream, and nothing of another one is under way; the ids of its events are bound to it.
    pub fn bind(&self, stream: &StreamIdentity) {
        let mut parts = self.parts.lock();
        if parts.1.as_ref() != Some(stream) {
            self.serving.store(Arc::new(serving(&self.name, &parts.0, Some(stream))));
            parts.1 = Some(stream.clone());
        }
    }
}

fn serving(name: &str, rules: &Rules, stream: Option<&StreamIdentity>) -> Serving {
    // A stream that was deleted and made anew gives out the same sequences again: its creation time keeps the ids apart.
    let event_id_prefix = stream.map_or_else(Box::default, |StreamIdentity { name: stream, created_ns }| {
        format!("{name}:{stream}:{created_ns:x}:").into()
    });
    let terms = Terms {
        grants: rules.grants.clone(),
        limits: rules.effects,
        mark_ttl_ms: rules.mark_ttl_ms,
        event_id_prefix,
        shared_state: rules.shared_state,
    };
    Serving {
        plugin: rules.plugin.clone(),
        terms: Arc::new(terms),
        limits: rules.limits,
        identity: Arc::clone(&rules.identity),
    }
}
