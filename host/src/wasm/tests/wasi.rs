//! WASI as a plug-in sees it: nothing of the outside, and nothing that waits.

use super::guest::{STATE, guest, handler, repeat, save};
use super::*;

const STDERR: &str = r#"
    (import "wasi:cli/stderr@0.2.6" "get-stderr" (func $stderr (result i32)))
    (import "wasi:io/streams@0.2.6" "[method]output-stream.blocking-write-and-flush" (func $write (param i32 i32 i32 i32)))"#;
const CLOCK: &str = r#"
    (import "wasi:clocks/monotonic-clock@0.2.6" "now" (func $now (result i64)))
    (import "wasi:clocks/monotonic-clock@0.2.6" "subscribe-duration" (func $later (param i64) (result i32)))
    (import "wasi:io/poll@0.2.6" "[method]pollable.block" (func $block (param i32)))
    (import "wasi:io/poll@0.2.6" "poll" (func $poll (param i32 i32 i32)))
    (import "wasi:io/poll@0.2.6" "[resource-drop]pollable" (func $drop_pollable (param i32)))"#;

#[track_caller]
fn traps(outcome: Result<WriteSet, Failure>, words: &str) {
    match outcome {
        Err(Failure::Trap { reason }) => assert!(reason.contains(words), "{words:?} is not in: {reason}"),
        other => panic!("not a trap: {other:?}"),
    }
}

#[test]
fn an_exit_is_a_trap_that_says_so() {
    let import = r#"(import "wasi:cli/exit@0.2.6" "exit" (func $exit (param i32)))"#;
    traps(run(&handler(import, "(call $exit (i32.const 0))")), "exited with status 0");
    traps(run(&handler(import, "(call $exit (i32.const 1))")), "exited with status 1");
}

#[test]
fn a_sleep_ends_the_attempt_with_advice() {
    let block = "(call $block (call $later (i64.const 3600000000000)))";
    traps(run(&handler(CLOCK, block)), "can't sleep or wait: return `retry`");
    let poll = "(i32.store (i32.const 64) (call $later (i64.const 1))) (call $poll (i32.const 64) (i32.const 1) (i32.const 96))";
    traps(run(&handler(CLOCK, poll)), "can't sleep or wait");
    let nothing = "(call $block (call $later (i64.const 0)))";
    assert!(run(&handler(CLOCK, nothing)).is_ok(), "a sleep of nothing is none");
}

#[test]
fn pollables_that_are_never_dropped_pass_a_limit() {
    let open = repeat(None, "(drop (call $later (i64.const 0)))");
    let outcome = run(&handler(CLOCK, &open));
    assert!(matches!(&outcome, Err(Failure::Limit { reason }) if reason.contains("handles")), "{outcome:?}");
    let dropped = repeat(Some(50_000), "(call $drop_pollable (call $later (i64.const 0)))");
    assert!(run(&guest(CLOCK, "", "(local $i i32)", &dropped)).is_ok());
}

#[test]
fn time_is_that_of_the_attempt() {
    let wall = r#"(import "wasi:clocks/wall-clock@0.2.6" "now" (func $wall (param i32)))"#;
    let body = format!(
        "(call $wall (i32.const 64)) (i64.store (i32.const 80) (call $now)) (i64.store (i32.const 88) (call $now)) {}",
        save(64, 32)
    );
    let value = value_of(&run(&handler(&format!("{STATE}{CLOCK}{wall}"), &body)).unwrap(), "k");
    let number = |at: usize| u64::from_le_bytes(value[at..at + 8].try_into().unwrap());
    assert_eq!((number(0), number(8)), (1_700_000_000, 123_000_000));
    assert_eq!((number(16), number(24)), (1_000, 2_000), "starts at 0 and rises with each reading");
}

#[test]
fn randomness_is_that_of_the_seed() {
    let imports = format!(r#"{STATE}(import "wasi:random/random@0.2.6" "get-random-u64" (func $random (result i64)))"#);
    let component = handler(&imports, &format!("(i64.store (i32.const 64) (call $random)) {}", save(64, 8)));
    let draw = |seed| value_of(&Setup { seed, ..Setup::default() }.run(&component).unwrap(), "k");
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    let flood = r#"(import "wasi:random/random@0.2.6" "get-random-bytes" (func $bytes (param i64 i32)))"#;
    traps(run(&handler(flood, "(call $bytes (i64.const -1) (i32.const 64))")), "random bytes in one call");
}

#[test]
fn environment_arguments_directories_and_stdin_are_empty() {
    let imports = format!(
        r#"{STATE}
        (import "wasi:cli/environment@0.2.6" "get-environment" (func $env (param i32)))
        (import "wasi:cli/environment@0.2.6" "get-arguments" (func $args (param i32)))
        (import "wasi:filesystem/preopens@0.2.6" "get-directories" (func $dirs (param i32)))
        (import "wasi:cli/stdin@0.2.6" "get-stdin" (func $stdin (result i32)))
        (import "wasi:io/streams@0.2.6" "[method]input-stream.blocking-read" (func $read (param i32 i64 i32)))"#
    );
    let body = format!(
        "(call $env (i32.const 64)) (call $args (i32.const 72)) (call $dirs (i32.const 80))
         (call $read (call $stdin) (i64.const 100) (i32.const 88)) {}",
        save(64, 36)
    );
    let value = value_of(&run(&handler(&imports, &body)).unwrap(), "k");
    let length = |at: usize| u32::from_le_bytes(value[at..at + 4].try_into().unwrap());
    assert_eq!([length(4), length(12), length(20)], [0, 0, 0]);
    assert_eq!((value[24], value[28]), (1, 1), "stdin is closed");
}

#[test]
fn a_flood_on_stderr_is_cut_and_every_line_names_its_writer() {
    let text = r#"(data (i32.const 512) "a line\0aforged\1b[2J\0d\0a")"#;
    let write = "(call $write (local.get $i2) (i32.const 512) (i32.const 20) (i32.const 64))";
    let body = format!("(local.set $i2 (call $stderr)) {}", repeat(Some(10_000), write));
    let component = guest(STDERR, text, "(local $i i32) (local $i2 i32)", &body);
    let (outcome, log) = logged(|| run(&component));
    assert!(outcome.is_ok());
    let written = log.matches("a line").count();
    assert_eq!(written, (64 << 10) / 20 + 1);
    assert!(log.contains("forged\\u{1b}[2J\\r") && log.contains("stderr"), "control characters are escaped");
    // wasmtime traces the calls themselves; only the lines of plug-ins count.
    let mut lines = log.lines().filter(|line| !line.contains(" wasmtime_wasi::"));
    let forged = lines.find(|line| !line.contains("consumer=tester"));
    assert_eq!(forged, None, "no line is forged");
}

#[test]
fn a_trap_tells_what_was_written_to_stderr() {
    let text = r#"(data (i32.const 512) "panicked at src/lib.rs:7:\0ano such seat\0a")"#;
    let body = "(call $write (call $stderr) (i32.const 512) (i32.const 39) (i32.const 64)) unreachable";
    traps(run(&guest(STDERR, text, "", body)), "stderr: panicked at src/lib.rs:7:; no such seat");
}
