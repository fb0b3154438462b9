//! Components that must not serve, each refused by name.

use std::sync::Arc;

use super::guest::{self, OUTBOX, STATE};
use super::*;

fn load(bytes: &[u8]) -> LoadError {
    let refused = Setup::default().load(bytes).expect_err("is refused");
    still_serves();
    refused
}

#[track_caller]
fn says(error: &LoadError, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert!(!text.contains('\n'), "one line: {text}");
}

#[test]
fn what_is_not_a_component_is_named() {
    let good = guest::counter();
    assert_eq!(load(b""), LoadError::Empty);
    assert_eq!(load(b"(component)"), LoadError::Text);
    assert_eq!(load(b"  ;; a comment\n(module)"), LoadError::Text);
    assert_eq!(load(b"\x7fELF and more"), LoadError::NotWasm);
    assert_eq!(load(&good[..3]), LoadError::NotWasm);
    assert_eq!(load(&wat::parse_str("(module)").unwrap()), LoadError::CoreModule);
    assert!(matches!(load(&good[..good.len() / 2]), LoadError::DoesNotCompile { .. }));
    assert!(matches!(load(&good[..6]), LoadError::DoesNotCompile { .. }));
    assert_eq!(load(&vec![0; (1 << 20) + 1]), LoadError::TooLarge { bytes: (1 << 20) + 1, max: 1 << 20 });
}

#[test]
fn a_flipped_byte_never_panics_the_host() {
    let good = guest::counter();
    for at in (0..good.len()).step_by(61) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x55;
        // Some flips only change a name or a constant; what counts is that each ends in a result.
        drop(Setup::default().load(&bytes));
    }
    still_serves();
}

#[test]
fn an_invalid_body_and_too_many_locals_do_not_compile() {
    let core = "(core module (func (result i32) (i64.const 0)))";
    let invalid = wat::parse_str(format!("(component {core})"));
    says(&load(&invalid.unwrap()), &["can't be compiled", "type mismatch"]);
    let locals = wat::parse_str(format!("(component (core module (func (local {}))))", "i64 ".repeat(60_000)));
    assert!(matches!(load(&locals.unwrap()), LoadError::DoesNotCompile { .. }));
}

#[test]
fn more_than_the_pool_holds_is_refused() {
    let memories = "(core module $m (memory 1)) ".to_owned() + &"(core instance (instantiate $m)) ".repeat(3);
    says(&load(&wat::parse_str(format!("(component {memories})")).unwrap()), &["can't be compiled", "memories"]);
    let large = "(component (core module $m (memory 2000)) (core instance (instantiate $m)))";
    says(&load(&wat::parse_str(large).unwrap()), &["can't be compiled", "memory"]);
    let table = "(component (core module $m (table 1000000 funcref)) (core instance (instantiate $m)))";
    says(&load(&wat::parse_str(table).unwrap()), &["can't be compiled", "table"]);
}

#[test]
fn the_wrong_world_is_named_with_what_is_exported() {
    let none = wat::parse_str("(component)").unwrap();
    says(&load(&none), &["not a plug-in", "`pelton:consumer/handler@0.1.0`", "exports nothing"]);
    let misspelled = guest::for_other_contract("handler", "handlr", "pelton:consumer/handlr@0.1.0#handle", "", "");
    says(&load(&misspelled), &["not a plug-in", "exports `pelton:consumer/handlr@0.1.0`"]);
    let function = guest::for_other_contract("handle:", "handel:", "pelton:consumer/handler@0.1.0#handel", "", "");
    says(&load(&function), &["not a plug-in", "handle"]);
    let version = guest::for_other_contract("@0.1.0", "@0.2.0", "pelton:consumer/handler@0.2.0#handle", "", "");
    assert!(matches!(
        Setup::default().load(&version),
        Err(LoadError::WrongWorld { .. } | LoadError::UnknownImport { .. })
    ));
}

#[test]
fn a_handler_of_another_type_is_the_wrong_world() {
    let export = "pelton:consumer/handler@0.1.0#handle";
    let other = guest::for_other_contract("attempt: u32,\n    }", "attempt: s32,\n    }", export, "", "");
    says(&load(&other), &["not a plug-in", "handle"]);
}

#[test]
fn an_import_of_another_type_is_refused() {
    let import = r#"(import "pelton:consumer/context@0.1.0" "now-ms" (func $now (result i32)))"#;
    let export = "pelton:consumer/handler@0.1.0#handle";
    let other = guest::for_other_contract("now-ms: func() -> u64", "now-ms: func() -> u32", export, import, "");
    says(&load(&other), &["don't fit this host", "now-ms"]);
    let import = r#"(import "pelton:consumer/state@0.1.0" "fetch" (func $f (param i32 i32 i32)))"#;
    let newer = guest::for_other_contract("    get: func(", "    fetch: func(", export, import, "");
    says(&load(&newer), &["don't fit this host", "fetch"]);
}

#[test]
fn unknown_imports_are_named() {
    let import = r#"(import "acme:db/sql@1.0.0" "query" (func $q (result i32)))"#;
    says(&load(&guest::handler(import, "")), &["`acme:db/sql@1.0.0`", "doesn't have"]);
}

#[test]
fn sockets_are_not_granted() {
    let import = r#"(import "wasi:sockets/instance-network@0.2.6" "instance-network" (func $n (result i32)))"#;
    says(&load(&guest::handler(import, "")), &["`wasi:sockets/instance-network@0.2.6`", "not granted", "network"]);
}

#[test]
fn the_contracts_imports_need_their_grant() {
    let terms = terms(Arc::new(Identity::default()));
    let no_emit = LoadTerms { grants: Grants::default(), ..terms.clone() };
    let refused = SANDBOX.load(&guest::handler(OUTBOX, ""), &no_emit).unwrap_err();
    says(&refused, &["`pelton:consumer/outbox@0.1.0`", "`grants.emit`"]);
    let no_key = LoadTerms { keyed_state: false, ..terms };
    let mark = r#"(import "pelton:consumer/idempotency@0.1.0" "seen" (func $s (param i32 i32) (result i32)))"#;
    for imports in [STATE, mark] {
        let refused = SANDBOX.load(&guest::handler(imports, ""), &no_key).unwrap_err();
        says(&refused, &["not granted", "set `key` or `state.scope = \"consumer\"`"]);
    }
    assert!(SANDBOX.load(&guest::handler("", ""), &no_key).is_ok(), "what is not imported needs no grant");
}

#[test]
fn extra_exports_are_tolerated() {
    let extra = guest::guest("", r#"(func (export "extra"))"#, "", "");
    assert!(Setup::default().load(&extra).is_ok());
}

#[test]
fn a_start_function_that_traps_is_refused() {
    let recursion = "(func $r (result i32) (i32.add (call $r) (i32.const 1))) (func $start (drop (call $r)))";
    let exit = r#"(import "wasi:cli/exit@0.2.6" "exit" (func $exit (param i32)))"#;
    for (imports, start, words) in [
        ("", "(func $start unreachable)", "unreachable"),
        ("", recursion, "stack"),
        (exit, "(func $start (call $exit (i32.const 0)))", "exited with status 0"),
    ] {
        let error = load(&guest::guest(imports, &format!("{start} (start $start)"), "", ""));
        says(&error, &["trial instance failed", words]);
        assert_eq!((error.kind(), error.may_pass()), ("trial-trap", false), "{error}");
    }
}

#[test]
fn a_start_function_that_never_ends_is_refused() {
    let component = guest::guest("", "(func $start (loop $l (br $l))) (start $start)", "", "");
    let error = load(&component);
    says(&error, &["trial instance failed", "5000 ms"]);
    assert_eq!(error, LoadError::TrialTimeout { limit_ms: 5_000 });
    assert!(error.may_pass(), "a busy machine may be the reason");
}

#[test]
fn a_start_function_that_passes_a_limit_is_refused() {
    let grow = "(func $start (loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable)";
    let table = "(table $t 1 funcref)
        (func $start (if (i32.eq (table.grow $t (ref.null func) (i32.const 1000000)) (i32.const -1)) (then unreachable)))";
    for (start, words) in [(grow, "limits.memory_bytes = 16777216"), (table, "20000 elements")] {
        let error = load(&guest::guest("", &format!("{start} (start $start)"), "", ""));
        says(&error, &[words]);
        assert_eq!((error.kind(), error.may_pass()), ("trial-limit", false), "{error}");
    }
}

#[test]
fn random_bytes_never_load_whatever_they_begin_with() {
    let mut state = 7_u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let component = b"\0asm\x0d\0\x01\0";
    for length in [1, 8, 100, 1_000, 100_000] {
        let bytes: Vec<u8> = (0..length).map(|_| random()).collect();
        let error = Setup::default().load(&bytes).expect_err("is refused");
        assert!(matches!(error, LoadError::NotWasm | LoadError::Text), "{error:?}");
        let error = Setup::default().load(&[&component[..], &bytes].concat()).expect_err("is refused");
        assert!(matches!(error, LoadError::DoesNotCompile { .. }), "{length}: {error:?}");
    }
    still_serves();
}

#[test]
fn a_component_cut_anywhere_never_loads() {
    let good = guest::counter();
    for at in (8..good.len()).step_by(97) {
        let error = Setup::default().load(&good[..at]).expect_err("is refused");
        // Between two sections what is left is a component, only not a whole one.
        assert!(matches!(error, LoadError::DoesNotCompile { .. } | LoadError::WrongWorld { .. }), "{at}: {error:?}");
    }
    still_serves();
}

#[test]
fn a_plugin_that_needs_more_memory_than_its_limit_is_refused() {
    let terms = LoadTerms { memory_bytes: 1 << 20, ..terms(Arc::new(Identity::default())) };
    says(&SANDBOX.load(&guest::counter(), &terms).unwrap_err(), &["limits.memory_bytes = 1048576"]);
}

#[test]
fn the_version_is_the_digest_of_the_bytes() {
    let component = guest::counter();
    let plugin = Setup::default().load(&component).unwrap();
    assert_eq!(plugin.version(), Plugin::version_of(&component));
    let abc = Plugin::version_of(b"abc").to_string();
    assert_eq!(abc, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}
