//! From a component's bytes to a plug-in that can serve: compile, verify, link, try.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use pelton_core::batch::StreamIdentity;
use pelton_core::effects::{Scope, Space};
use pelton_core::grants::Grants;
use pelton_core::ids::{ConsumerId, Version};
use pelton_core::message::{Failure, Message};
use pelton_core::transaction::{EffectLimits, ReadError, StateView, Terms, Transaction};
use sha2::{Digest, Sha256};
use wasmtime::component::{Component, InstancePre};

use super::attempt::{Attempt, Call, Identity, RunLimits};
use super::cost;
use super::ended;
use super::generated::{ConsumerPre, exports};
use super::sandbox::Sandbox;
use super::verify::{self, LoadError};
use crate::clock::Stopwatch;

/// Time of a trial instance, in milliseconds. Longer than an attempt's, since interpreters set themselves up here, and compilers keep the machine busy.
const TRIAL_TIMEOUT_MS: u64 = 5_000;

/// What a plug-in is loaded for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadTerms {
    /// The consumer and its config values.
    pub identity: Arc<Identity>,
    /// What it may do.
    pub grants: Grants,
    /// Whether there is a scope for its state: an ordering key, or state that all keys share.
    pub keyed_state: bool,
    /// Linear memory that an attempt will have, in bytes.
    pub memory_bytes: usize,
}

/// A component that has been compiled, verified and linked. Cheap to clone.
#[derive(Clone)]
pub struct Plugin {
    pub(super) version: Version,
    pub(super) pre: ConsumerPre<Attempt>,
}

impl Plugin {
    /// The digest of the component's bytes.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// What it imports, in the order of the component.
    #[must_use]
    pub fn imports(&self) -> Vec<String> {
        let component = self.pre.instance_pre().component();
        component.component_type().imports(component.engine()).map(|(name, _)| name.to_owned()).collect()
    }

    /// The version that a component of these bytes would have.
    #[must_use]
    pub fn version_of(bytes: &[u8]) -> Version {
        Version(Sha256::digest(bytes).into())
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").field("version", &self.version).finish_non_exhaustive()
    }
}

impl Sandbox {
    /// Compiles and verifies a component, and makes a trial instance of it. Takes milliseconds for a small plug-in, seconds for one that
    /// carries an interpreter, and memory to match: call it on a thread of its own with a stack of [`super::EXECUTOR_STACK_BYTES`].
    ///
    /// # Errors
    /// [`LoadError`] says what is wrong with the component and what to do.
    pub fn load(&self, bytes: &[u8], terms: &LoadTerms) -> Result<Plugin, LoadError> {
        verify::check_bytes(bytes, self.settings.component_bytes_max)?;
        let version = Plugin::version_of(bytes);
        let component = self.compiled(version, bytes)?;
        verify::check_imports(&self.engine, &component, !terms.grants.emit.is_empty(), terms.keyed_state)?;
        let pre = self
            .linker
            .instantiate_pre(&component)
            .map_err(|error| LoadError::ImportMismatch { problem: ended::chain(&error) })?;
        let wrong_world = |error| verify::wrong_world(&self.engine, &component, &error);
        let plugin = Plugin { version, pre: ConsumerPre::new(pre.clone()).map_err(wrong_world)? };
        self.trial(&plugin, &pre, terms, wrong_world)?;
        Ok(plugin)
    }

    /// Takes what was compiled of these bytes before, or compiles them.
    fn compiled(&self, version: Version, bytes: &[u8]) -> Result<Component, LoadError> {
        if let Some(known) = self.precompiled.as_ref().and_then(|kept| kept.load(&self.engine, version)) {
            return Ok(known);
        }
        cost::check(bytes)?;
        let component = self
            .compilers
            .install(|| Component::from_binary(&self.engine, bytes))
            .map_err(|error| LoadError::DoesNotCompile { problem: ended::chain(&error) })?;
        if let Some(kept) = &self.precompiled {
            kept.keep(version, &component);
        }
        Ok(component)
    }

    /// Makes an instance and looks up its handler, whose type is checked only then.
    fn trial(
        &self,
        plugin: &Plugin,
        pre: &InstancePre<Attempt>,
        terms: &LoadTerms,
        wrong_world: impl Fn(wasmtime::Error) -> LoadError,
    ) -> Result<(), LoadError> {
        let effects = EffectLimits::default();
        let limits = RunLimits::new(TRIAL_TIMEOUT_MS, terms.memory_bytes.min(self.settings.memory_bytes_max), &effects);
        let call = Call {
            identity: Arc::clone(&terms.identity),
            version: plugin.version,
            transaction: trial_transaction(terms.grants.clone(), effects, plugin.version),
            attempt: 1,
            seed: 0,
            limits,
            begun: Stopwatch::start(),
        };
        let _permit = self.gate.enter();
        let mut store = self.store(call);
        let instance = match pre.instantiate(&mut store) {
            Ok(instance) => instance,
            Err(error) => {
                store.data_mut().finish_lines();
                return Err(match ended::failure(&error, store.data()) {
                    Ok(Failure::Limit { reason }) => LoadError::TrialLimit { problem: reason.into() },
                    Ok(Failure::Timeout { limit_ms }) => LoadError::TrialTimeout { limit_ms },
                    Ok(failure) => LoadError::TrialTrap { reason: failure.reason() },
                    // There is no store behind a trial.
                    Err(error) => LoadError::TrialTrap { reason: error.to_string() },
                });
            }
        };
        store.data_mut().finish_lines();
        let handler = exports::pelton::consumer::handler::GuestIndices::new(pre).map_err(&wrong_world)?;
        handler.load(&mut store, &instance).map_err(&wrong_world)?;
        Ok(())
    }
}

/// A transaction over nothing, whose effects nobody keeps.
fn trial_transaction(grants: Grants, limits: EffectLimits, version: Version) -> Transaction {
    let (consumer_name, version) = ("trial".into(), version.to_string().into());
    let terms = Terms { grants, limits, mark_ttl_ms: 1, consumer_name, shared_state: true, version };
    let message = Message {
        id: "trial".into(),
        mark: None,
        subject: "trial".into(),
        key: None,
        headers: Vec::new(),
        payload: Bytes::new(),
        sequence: 0,
        published_at_ms: 0,
        stream: Arc::new(StreamIdentity { name: "trial".into(), created_ns: 0 }),
        entity_version: None,
    };
    Transaction::new(Arc::new(EmptyView), Arc::new(terms), ConsumerId(u32::MAX), Arc::new(message), 0)
}

/// A store with nothing in it.
struct EmptyView;

impl StateView for EmptyView {
    fn get(&self, _: &Scope, _: Space, _: &str, _: u64) -> Result<Option<Bytes>, ReadError> {
        Ok(None)
    }

    fn range(&self, _: &Scope, _: &str, _: Bound<&str>, _: usize, _: u64) -> Result<Vec<(Box<str>, Bytes)>, ReadError> {
        Ok(Vec::new())
    }
}
