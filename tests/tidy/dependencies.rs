//! What the pure parts may depend on.

use std::collections::BTreeSet;

use pelton_tests::tools::root;
use toml::de::DeTable;

/// The core decides and does no I/O: whatever it needs beyond these belongs into the shell.
const CORE_MAY_USE: [&str; 3] = ["bytes", "rustc-hash", "thiserror"];

fn dependencies(manifest: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join(manifest)).expect("a manifest");
    let table = DeTable::parse(&text).expect("TOML").into_inner();
    let names = table.get("dependencies").and_then(|names| names.get_ref().as_table());
    names.into_iter().flatten().map(|(name, _)| name.get_ref().to_string()).collect()
}

#[test]
fn the_core_depends_on_nothing_but_what_is_listed() {
    let wanted: BTreeSet<String> = CORE_MAY_USE.map(str::to_owned).into();
    let message =
        "host/core/Cargo.toml: the core has no runtime, no clock, no I/O; what needs more belongs into host/src";
    assert_eq!(dependencies("host/core/Cargo.toml"), wanted, "{message}");
}

#[test]
fn the_sdk_stays_small() {
    let allowed: BTreeSet<String> = ["serde", "serde_json", "thiserror", "wit-bindgen"].map(str::to_owned).into();
    let more: Vec<String> = dependencies("sdk/Cargo.toml").difference(&allowed).cloned().collect();
    assert!(more.is_empty(), "sdk/Cargo.toml: every plug-in carries what the sdk depends on; do without {more:?}");
}

#[test]
fn what_is_for_tests_only_is_no_default() {
    for manifest in ["host/Cargo.toml", "host/core/Cargo.toml"] {
        let text = std::fs::read_to_string(root().join(manifest)).expect("a manifest");
        let table = DeTable::parse(&text).expect("TOML").into_inner();
        let features = table.get("features").map(|features| features.get_ref());
        let default = features.and_then(|features| features.get("default")).map(|names| format!("{names:?}"));
        let message = format!(
            "{manifest}: a normal build must hold neither deliberate breaks of guarantees nor handlers of its own"
        );
        let default = default.unwrap_or_default();
        assert!(!default.contains("fault-injection") && !default.contains("native-bench"), "{message}");
    }
}
