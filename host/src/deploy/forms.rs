//! From a manifest to the form that the plan compares, and to the rules that executors serve by.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use pelton_core::ids::Version;
use pelton_core::plan::Form;

use crate::config::{Key, Manifest};
use crate::deployed::Rules;
use crate::wasm::{Identity, LoadTerms, Plugin, RunLimits};

/// The form of a consumer with this manifest and version. Digests are compared within one process only.
pub(super) fn form(manifest: &Manifest, version: Version) -> Form {
    let Manifest {
        name: _,
        component: _,
        subscription,
        key,
        id,
        grants,
        policy,
        effects,
        run,
        config,
        streams,
        file: _,
    } = manifest;
    let reading = digest(&format!("{subscription:?} {key:?} {id:?} {streams:?} {}", policy.shared_state));
    let rules = digest(&format!("{grants:?} {policy:?} {effects:?} {run:?} {config:?}"));
    Form { version, reading, rules }
}

fn digest(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// What a component must keep to so that this manifest can use it.
pub(super) fn load_terms(manifest: &Manifest) -> LoadTerms {
    LoadTerms {
        identity: identity(manifest),
        grants: manifest.grants.clone(),
        keyed_state: manifest.key != Key::None || manifest.policy.shared_state,
        memory_bytes: manifest.run.memory_bytes,
    }
}

fn identity(manifest: &Manifest) -> Arc<Identity> {
    Arc::new(Identity { consumer: manifest.name.as_str().into(), config: manifest.config.clone() })
}

/// What executors serve by.
pub(super) fn rules(manifest: &Manifest, plugin: Plugin, mark_ttl_ms: u64) -> Rules {
    Rules {
        plugin,
        grants: manifest.grants.clone(),
        effects: manifest.effects,
        mark_ttl_ms,
        shared_state: manifest.policy.shared_state,
        limits: RunLimits::new(manifest.run.timeout_ms, manifest.run.memory_bytes, &manifest.effects),
        identity: identity(manifest),
    }
}
