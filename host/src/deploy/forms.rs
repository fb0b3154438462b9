//! From a manifest to the form that the plan compares, and to the rules that executors serve by.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use pelton_core::ids::Version;
use pelton_core::plan::Form;

use crate::config::{Key, Manifest};
use crate::deployed::Rules;
use crate::wasm::{Identity, LoadTerms, LogBudget, Plugin, RunLimits};

/// The form of a consumer with this manifest and version. Digests are compared within one process only.
pub(super) fn form(manifest: &Manifest, version: Version) -> Form {
    let Manifest {
        name: _,
        component: _,
        component_poll_ms: _,
        digest: _,
        deploy,
        subscription,
        key,
        id,
        entity_version,
        grants,
        policy,
        effects,
        run,
        isolation,
        config,
        streams,
        file: _,
    } = manifest;
    // Whatever decides what a message is: one that was read before the change would be taken for another after it.
    let reading =
        digest(&format!("{subscription:?} {key:?} {id:?} {entity_version:?} {streams:?} {}", policy.shared_state));
    let rules = digest(&format!("{grants:?} {policy:?} {effects:?} {run:?} {isolation:?} {config:?} {deploy:?}"));
    Form { version, reading, rules }
}

fn digest(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// What a component must keep to so that this manifest can use it.
pub(crate) fn load_terms(manifest: &Manifest) -> LoadTerms {
    LoadTerms {
        identity: identity(manifest),
        grants: manifest.grants.clone(),
        keyed_state: manifest.key != Key::None || manifest.policy.shared_state,
        memory_bytes: manifest.run.memory_bytes,
    }
}

fn identity(manifest: &Manifest) -> Arc<Identity> {
    let (consumer, config) = (manifest.name.as_str().into(), manifest.config.clone());
    Arc::new(Identity { consumer, config, ..Identity::default() })
}

/// What executors serve by.
pub(crate) fn rules(manifest: &Manifest, plugin: Plugin, mark_ttl_ms: u64) -> Rules {
    Rules {
        plugin,
        grants: manifest.grants.clone(),
        effects: manifest.effects,
        mark_ttl_ms,
        shared_state: manifest.policy.shared_state,
        limits: RunLimits::new(manifest.run.timeout_ms, manifest.run.memory_bytes, &manifest.effects),
        identity: identity(manifest),
        log: LogBudget { lines_per_second: manifest.run.log_lines_per_second, burst: manifest.run.log_lines_burst },
        isolation: manifest.isolation,
    }
}

#[cfg(test)]
mod tests {
    use pelton_core::plan::Step;

    use super::*;

    const MANIFEST: &str =
        "component = \"x.wasm\"\n[subscription]\nstream = \"S\"\nsubjects = [\"s.*\"]\n[key]\nsubject_token = 2\n";

    fn form_of(text: &str) -> Form {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x.toml");
        std::fs::write(&file, text).unwrap();
        form(&Manifest::load(&file).unwrap_or_else(|report| panic!("{report}")), Version([1; 32]))
    }

    /// What a change of the manifest from one text to another leads to.
    fn step(before: &str, after: &str) -> Option<Step> {
        let forms = |text| [("x", form_of(text))].into();
        pelton_core::plan::plan(&forms(before), &forms(after)).first().map(|(_, step)| *step)
    }

    #[test]
    fn what_decides_how_messages_are_read_needs_a_new_subscription() {
        let shared = MANIFEST.replace("[key]\nsubject_token = 2", "mode = \"shared\"");
        assert_eq!(step(MANIFEST, &shared), Some(Step::Restart));
        assert_eq!(step(&shared, MANIFEST), Some(Step::Restart));
        let by_header = format!("{MANIFEST}[order]\nby = \"version\"\nheader = \"rev\"\n");
        assert_eq!(step(MANIFEST, &by_header), Some(Step::Restart));
        assert_eq!(step(&by_header, MANIFEST), Some(Step::Restart));
        assert_eq!(step(&by_header, &by_header.replace("rev", "version")), Some(Step::Restart));
        assert_eq!(step(MANIFEST, &format!("{MANIFEST}[state]\nscope = \"consumer\"\n")), Some(Step::Restart));
        assert_eq!(
            step(MANIFEST, &MANIFEST.replace("[key]", "mode = \"ordered\"\n[key]")),
            None,
            "that is the default"
        );
    }

    #[test]
    fn policies_change_between_two_messages() {
        for section in [
            "[retry]\ntotal_ms = 5000",
            "[retry]\non_exhausted = \"halt\"",
            "[release]\nafter_ms = \"never\"",
            "[release]\non_new_version = false",
            "[park]\ndelay_ms = 5",
            "[breaker]\nenabled = false",
            "[rate]\nattempts_per_second = 5",
            "[share]\nweight = 5",
            "[limits]\nparked_rows_max = 5",
            "[limits]\nlog_lines_per_second = 5",
            "[dead_letters]\nsubject = \"dlq.x\"",
        ] {
            assert_eq!(step(MANIFEST, &format!("{MANIFEST}{section}\n")), Some(Step::Change), "{section}");
        }
        assert_eq!(step(MANIFEST, &format!("isolation = \"reuse\"\n{MANIFEST}")), Some(Step::Change));
        let by_version = format!("{MANIFEST}[order]\nby = \"version\"\nheader = \"rev\"\n");
        for line in ["first = \"any\"", "gap_longest_ms = 5", "on_gap = \"dead-letter\""] {
            assert_eq!(step(&by_version, &format!("{by_version}{line}\n")), Some(Step::Change), "{line}");
        }
    }
}
