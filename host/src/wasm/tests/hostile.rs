//! Attempts that loop, recurse, grow and trap.

use super::guest::{self, guest, handler, repeat};
use super::*;

#[track_caller]
fn traps(outcome: Result<WriteSet, Failure>, words: &[&str]) {
    let Err(Failure::Trap { reason }) = outcome else { panic!("not a trap: {outcome:?}") };
    for word in words {
        assert!(reason.contains(word), "{word:?} is not in: {reason}");
    }
}

#[track_caller]
fn passes_limit(outcome: Result<WriteSet, Failure>, words: &[&str]) {
    let Err(Failure::Limit { reason }) = outcome else { panic!("not a limit: {outcome:?}") };
    for word in words {
        assert!(reason.contains(word), "{word:?} is not in: {reason}");
    }
}

fn hurried() -> Setup {
    Setup { timeout_ms: 50, ..Setup::default() }
}

#[test]
fn an_endless_loop_times_out() {
    assert_eq!(hurried().run(&handler("", &repeat(None, ""))), Err(Failure::Timeout { limit_ms: 50 }));
}

#[test]
fn an_endless_memory_copy_times_out() {
    let copy = repeat(None, "(memory.copy (i32.const 0) (i32.const 65536) (i32.const 4000000))");
    assert_eq!(hurried().run(&handler("", &copy)), Err(Failure::Timeout { limit_ms: 50 }));
}

#[test]
fn endless_host_calls_time_out() {
    let import = r#"(import "pelton:consumer/context@0.1.0" "now-ms" (func $now (result i64)))"#;
    let calls = handler(import, &repeat(None, "(drop (call $now))"));
    assert_eq!(hurried().run(&calls), Err(Failure::Timeout { limit_ms: 50 }));
}

#[test]
fn a_loop_while_the_instance_is_made_times_out() {
    // The trial is long enough for a start function that counts; the attempt is not.
    let start = "(func $start (local $i i64) (local.set $i (i64.const 300000000))
        (loop $l (local.set $i (i64.sub (local.get $i) (i64.const 1))) (br_if $l (i64.ne (local.get $i) (i64.const 0)))))
        (start $start)";
    let setup = Setup { timeout_ms: 1, ..Setup::default() };
    assert_eq!(setup.run(&guest("", start, "", "")), Err(Failure::Timeout { limit_ms: 1 }));
}

#[test]
fn deep_recursion_traps() {
    let recursion = guest("", "(func $r (result i32) (i32.add (call $r) (i32.const 1)))", "", "(drop (call $r))");
    traps(run(&recursion), &["stack"]);
}

#[test]
fn deep_recursion_into_a_host_call_traps_on_an_executors_stack() {
    let imports = guest::STATE;
    let recursion = guest(
        imports,
        &format!("(func $r (result i32) {} (i32.add (call $r) (i32.const 1)))", guest::GET),
        "",
        "(drop (call $r))",
    );
    let executor = std::thread::Builder::new().stack_size(EXECUTOR_STACK_BYTES);
    let setup =
        Setup { effects: EffectLimits { reads_max: usize::MAX, ..EffectLimits::default() }, ..Setup::default() };
    let outcome = executor.spawn(move || setup.run(&recursion)).unwrap().join().unwrap();
    traps(outcome, &["stack"]);
}

#[test]
fn memory_grown_to_the_cap_is_a_limit() {
    let grow = repeat(None, "(if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))");
    passes_limit(run(&handler("", &grow)), &["limits.memory_bytes = 16777216"]);
}

#[test]
fn memory_that_was_refused_and_not_needed_is_no_failure() {
    let grow = "(drop (memory.grow (i32.const 1000)))";
    assert_eq!(run(&handler("", grow)), Ok(WriteSet::default()));
}

#[test]
fn a_huge_table_is_a_limit() {
    let grow = "(if (i32.eq (table.grow $t (ref.null func) (i32.const 1000000)) (i32.const -1)) (then unreachable))";
    passes_limit(run(&guest("", "(table $t 1 funcref)", "", grow)), &["20000 elements"]);
}

#[test]
fn traps_say_what_and_where() {
    traps(run(&handler("", "unreachable")), &["unreachable"]);
    let named = guest(
        "",
        "(func $divide_it (param i32) (result i32) (i32.div_u (i32.const 1) (local.get 0)))",
        "",
        "(drop (call $divide_it (i32.const 0)))",
    );
    traps(run(&named), &["divide by zero", "in divide_it"]);
    traps(run(&handler("", "(drop (i32.load (i32.const -4)))")), &["out of bounds"]);
}

#[test]
fn effects_of_an_attempt_that_traps_are_gone() {
    let body = format!("{} unreachable", guest::SET);
    traps(run(&handler(guest::STATE, &body)), &["unreachable"]);
}

#[test]
fn nothing_of_an_attempt_is_left_in_memory() {
    let body =
        format!("(i32.store (i32.const 64) (i32.add (i32.load (i32.const 64)) (i32.const 1))) {}", guest::save(64, 4));
    let setup = Setup::default();
    let plugin = setup.load(&handler(guest::STATE, &body)).unwrap();
    for _ in 0..20 {
        let writes = setup.attempt_of(&plugin).unwrap().unwrap();
        assert_eq!(value_of(&writes, "k"), 1_u32.to_le_bytes());
    }
}

#[test]
fn more_attempts_at_once_than_instances_wait_for_their_turn() {
    let setup = Setup::default();
    let plugin = setup.load(&guest::counter()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..50 {
                    Setup::default().attempt_of(&plugin).unwrap().unwrap();
                }
            });
        }
    });
}
