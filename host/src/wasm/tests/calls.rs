//! The contract's calls: what they do, and what they do at a limit.

use super::guest::{self, EMIT, GET, OUTBOX, SET, STATE, guest, handler, repeat, save};
use super::*;

const COUNT: &str = "(local $i i32)";

#[track_caller]
fn passes(outcome: Result<WriteSet, Failure>, limit: &str) {
    match outcome {
        Err(Failure::Limit { reason }) => assert!(reason.contains(limit), "{limit:?} is not in: {reason}"),
        other => panic!("not a limit: {other:?}"),
    }
}

#[track_caller]
fn traps(outcome: Result<WriteSet, Failure>, words: &str) {
    match outcome {
        Err(Failure::Trap { reason }) => assert!(reason.contains(words), "{words:?} is not in: {reason}"),
        other => panic!("not a trap: {other:?}"),
    }
}

#[test]
fn a_handler_reads_writes_and_emits() {
    let writes = run(&guest::counter()).unwrap();
    assert_eq!(value_of(&writes, "k"), b"payload");
    let event = &writes.events[0];
    assert_eq!(
        (event.id.as_ref(), event.subject.as_ref(), event.key.as_deref()),
        ("tester:S:1:7:0", "out.x", Some("alice"))
    );
    assert_eq!(event.payload, "payload");
}

#[test]
fn the_message_reaches_the_handler_whole() {
    // Copies id, subject, key, the first header's name and the payload behind each other, then the numbers.
    let put = |pointer: &str, len: &str| {
        format!("(memory.copy (local.get $at) ({pointer}) ({len})) (local.set $at (i32.add (local.get $at) ({len})))")
    };
    let body = [
        "(local.set $at (i32.const 128))".to_owned(),
        put("local.get $id", "local.get $id_len"),
        put("local.get $subject", "local.get $subject_len"),
        put("local.get $key", "local.get $key_len"),
        put("i32.load (local.get $headers)", "i32.load offset=4 (local.get $headers)"),
        put("i32.load offset=8 (local.get $headers)", "i32.load offset=12 (local.get $headers)"),
        put("local.get $payload", "local.get $payload_len"),
        "(i64.store (local.get $at) (local.get $sequence)) (i64.store offset=8 (local.get $at) (local.get $published))
         (i32.store offset=16 (local.get $at) (local.get $attempt)) (i32.store8 offset=20 (local.get $at) (local.get $has_key))"
            .to_owned(),
        save(128, 50),
    ];
    let setup = Setup { attempt: 3, ..Setup::default() };
    let writes = setup.run(&guest(STATE, "", "(local $at i32)", &body.join("\n"))).unwrap();
    let mut expected = b"m-1orders.newaliceX-A1payload".to_vec();
    expected.extend(7_u64.to_le_bytes());
    expected.extend(1_699_999_999_000_u64.to_le_bytes());
    expected.extend(3_u32.to_le_bytes());
    expected.push(1);
    assert_eq!(value_of(&writes, "k"), expected);
}

#[test]
fn state_is_read_through_and_listed() {
    let setup =
        Setup { entries: vec![("k".into(), b"old".to_vec()), ("z".into(), b"last".to_vec())], ..Setup::default() };
    // The value that is there, saved under the key it came from.
    let copy = format!(
        "{GET} (call $set (i32.const 1040) (i32.const 5) (i32.load (i32.const 68)) (i32.load (i32.const 72)) (i32.const 0) (i64.const 0))"
    );
    assert_eq!(value_of(&setup.run(&handler(STATE, &copy)).unwrap(), "out.x"), b"old");
    // One entry of a listing without prefix: its number of entries, and that there is a next.
    let list = format!(
        "(call $list (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 64))
         {}",
        save(68, 8)
    );
    let page = value_of(&setup.run(&handler(STATE, &list)).unwrap(), "k");
    assert_eq!(page[..5], [1, 0, 0, 0, 1]);
}

#[test]
fn the_handlers_failures_reach_the_core() {
    // A failure at 0: err, its kind at 8, the reason "out.x" at 16 and 20, the delay at 24 and 32.
    let fail = |kind: u32, len: u32| {
        format!(
            "(i32.store8 (i32.const 0) (i32.const 1)) (i32.store8 (i32.const 8) (i32.const {kind}))
             (i32.store (i32.const 16) (i32.const 1040)) (i32.store (i32.const 20) (i32.const {len}))
             (i32.store8 (i32.const 24) (i32.const 1)) (i64.store (i32.const 32) (i64.const 250))"
        )
    };
    let reason: Box<str> = "out.x".into();
    let after_ms = Some(250);
    assert_eq!(run(&handler("", &fail(0, 5))), Err(Failure::Retry { reason: reason.clone(), after_ms }));
    assert_eq!(run(&handler("", &fail(1, 5))), Err(Failure::Reject { reason: reason.clone() }));
    assert_eq!(run(&handler("", &fail(2, 5))), Err(Failure::Park { reason, after_ms }));
    let Err(Failure::Reject { reason }) = run(&handler("", &fail(1, 100_000))) else { panic!("a long reason") };
    assert_eq!(reason.len(), 4 << 10);
    passes(run(&handler("", &fail(1, 4_000_000))), "in one call");
}

#[test]
fn the_context_is_that_of_the_attempt() {
    let imports = format!(
        r#"{STATE}
        (import "pelton:consumer/context@0.1.0" "now-ms" (func $now (result i64)))
        (import "pelton:consumer/context@0.1.0" "time-left-ms" (func $left (result i64)))
        (import "pelton:consumer/context@0.1.0" "attempt" (func $attempt (result i32)))
        (import "pelton:consumer/context@0.1.0" "config" (func $config (param i32 i32 i32)))"#
    );
    let body = format!(
        "(i64.store (i32.const 64) (call $now)) (i32.store (i32.const 72) (call $attempt))
         (i32.store (i32.const 76) (i64.gt_u (call $left) (i64.const 0)))
         (call $config (i32.const 1024) (i32.const 1) (i32.const 96))
         (memory.copy (i32.const 80) (i32.load (i32.const 100)) (i32.load (i32.const 104)))
         {}",
        save(64, 18)
    );
    let config = [("k".to_owned(), "v1".to_owned())].into();
    let setup = Setup { attempt: 2, timeout_ms: 60_000, config, ..Setup::default() };
    let value = value_of(&setup.run(&handler(&imports, &body)).unwrap(), "k");
    assert_eq!(value[..8], 1_700_000_000_123_u64.to_le_bytes());
    assert_eq!(value[8..], [2, 0, 0, 0, 1, 0, 0, 0, b'v', b'1']);
}

#[test]
fn marks_are_seen_by_the_attempt_that_made_them() {
    let imports = format!(
        r#"{STATE}
        (import "pelton:consumer/idempotency@0.1.0" "seen" (func $seen (param i32 i32) (result i32)))
        (import "pelton:consumer/idempotency@0.1.0" "mark" (func $mark (param i32 i32 i32 i64)))"#
    );
    let body = format!(
        "(i32.store8 (i32.const 64) (call $seen (i32.const 1024) (i32.const 1)))
         (call $mark (i32.const 1024) (i32.const 1) (i32.const 0) (i64.const 0))
         (i32.store8 (i32.const 65) (call $seen (i32.const 1024) (i32.const 1)))
         {}",
        save(64, 2)
    );
    let writes = run(&handler(&imports, &body)).unwrap();
    assert_eq!(value_of(&writes, "k"), [0, 1]);
    assert_eq!(writes.state.len(), 2);
}

#[test]
fn a_million_puts_and_emits_pass_their_limits() {
    passes(run(&guest(STATE, "", COUNT, &repeat(Some(1_000_000), SET))), "limits.writes_max = 1000");
    passes(run(&guest(OUTBOX, "", COUNT, &repeat(Some(1_000_000), EMIT))), "limits.events_max = 100");
    passes(run(&guest(STATE, "", COUNT, &repeat(Some(1_000_000), GET))), "limits.reads_max = 10000");
}

#[test]
fn a_scan_of_a_million_entries_passes_its_limit() {
    let scan = "(call $list (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 64))
        (global.set $bump (i32.const 4096))";
    let setup = Setup { numbered: 1_000_000, ..Setup::default() };
    passes(setup.run(&guest(STATE, "", COUNT, &repeat(None, scan))), "limits.reads_max = 10000");
}

#[test]
fn values_keys_and_calls_that_are_too_large_pass_their_limits() {
    passes(run(&handler(STATE, &save(4096, (1 << 20) + 1))), "limits.state_value_bytes_max = 1048576");
    passes(run(&handler(STATE, &save(4096, 4_000_000))), "in one call");
    let key = "(call $delete (i32.const 64) (i32.const 513))";
    passes(run(&handler(STATE, key)), "limits.state_key_bytes_max = 512");
    assert!(run(&handler(STATE, &save(4096, 1 << 20))).is_ok(), "the largest value is legal");
}

#[test]
fn lists_that_lie_about_their_length_are_refused() {
    let emit = |headers: u32, len: u32| {
        format!(
            "(call $emit (i32.const 1040) (i32.const 5) (i32.const 0) (i32.const 0) (i32.const {headers}) (i32.const {len})
             (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 96))"
        )
    };
    passes(run(&handler(OUTBOX, &emit(4096, 250_000))), "in one call");
    traps(run(&handler(OUTBOX, &emit(4096, 0x7fff_ffff))), "");
    let outside = "(call $delete (i32.const -8) (i32.const 64))";
    traps(run(&handler(STATE, outside)), "");
}

#[test]
fn text_that_is_not_utf8_traps() {
    let body = "(i32.store (i32.const 64) (i32.const -1)) (call $delete (i32.const 64) (i32.const 4))";
    traps(run(&handler(STATE, body)), "utf-8");
}

#[test]
fn events_that_may_not_leave_are_refused_and_the_attempt_goes_on() {
    // What the guest gets back: 1 and the kind of the refusal.
    let emit = |subject: u32, len: u32| {
        let call = format!(
            "(call $emit (i32.const {subject}) (i32.const {len}) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
             (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 96))"
        );
        let writes = run(&handler(&format!("{STATE}{OUTBOX}"), &format!("{call} {}", save(96, 5)))).unwrap();
        assert!(writes.events.is_empty());
        let value = value_of(&writes, "k");
        (value[0], value[4])
    };
    assert_eq!(emit(1056, 9), (1, 2), "$JS.API is not granted");
    assert_eq!(emit(1072, 7), (1, 2), "no grant covers it");
    assert_eq!(emit(1040, 4), (1, 0), "an empty token is no subject");
    assert_eq!(emit(1040, 0), (1, 0), "neither is nothing");
}

#[test]
fn headers_with_line_breaks_are_refused() {
    let texts = r#"(data (i32.const 512) "X-A") (data (i32.const 520) "1\0d\0aevil: 1")"#;
    let body = format!(
        "(i32.store (i32.const 600) (i32.const 512)) (i32.store (i32.const 604) (i32.const 3))
         (i32.store (i32.const 608) (i32.const 520)) (i32.store (i32.const 612) (i32.const 10))
         (call $emit (i32.const 1040) (i32.const 5) (i32.const 0) (i32.const 0) (i32.const 600) (i32.const 1)
         (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 96)) {}",
        save(96, 5)
    );
    let writes = run(&guest(&format!("{STATE}{OUTBOX}"), texts, "", &body)).unwrap();
    assert!(writes.events.is_empty());
    assert_eq!(value_of(&writes, "k")[..], [1, 0, 0, 0, 1]);
}

#[test]
fn a_store_that_cannot_be_read_is_not_the_plugins_failure() {
    let setup = Setup { broken: true, ..Setup::default() };
    let plugin = setup.load(&guest::counter()).unwrap();
    assert!(setup.attempt_of(&plugin).unwrap_err().to_string().contains("the disk is gone"));
    still_serves();
}

#[test]
fn log_lines_carry_who_wrote_them_and_end_at_the_budget() {
    let imports = r#"(import "pelton:consumer/log@0.1.0" "log" (func $log (param i32 i32 i32 i32 i32)))"#;
    let line = "(call $log (i32.const 3) (i32.const 1040) (i32.const 5) (i32.const 0) (i32.const 0))";
    let component = guest(imports, "", COUNT, &repeat(Some(1_000), line));
    let (_, text) = logged(|| run(&component).unwrap());
    assert_eq!(text.matches("out.x").count(), 64);
    assert!(text.contains("936 log lines dropped"), "{text}");
    let first = text.lines().next().unwrap();
    for word in ["WARN", "consumer=tester", "message_id=m-1", "alice", "version="] {
        assert!(first.contains(word), "{word} is not in: {first}");
    }
}
