//! The cast of hostile plug-ins: one for each way to misbehave while a message is handled, with how its attempt must end.

use super::guest::{self, EMIT, GET, OUTBOX, SET, STATE, guest, handler, repeat, save};

/// How an attempt ends: the kind of its failure and a part of the reason.
pub(super) type Ending = Option<(&'static str, &'static str)>;

/// A hostile plug-in.
pub(super) struct Hostile {
    pub(super) name: &'static str,
    pub(super) component: Vec<u8>,
    /// None: the attempt is applied, however badly it behaves.
    pub(super) ending: Ending,
}

const COUNT: &str = "(local $i i32)";
const CLOCK: &str = r#"
    (import "wasi:clocks/monotonic-clock@0.2.6" "subscribe-duration" (func $later (param i64) (result i32)))
    (import "wasi:io/poll@0.2.6" "[method]pollable.block" (func $block (param i32)))"#;
const NOW: &str = r#"(import "pelton:consumer/context@0.1.0" "now-ms" (func $now (result i64)))"#;
const STDOUT: &str = r#"
    (import "wasi:cli/stdout@0.2.6" "get-stdout" (func $stdout (result i32)))
    (import "wasi:io/streams@0.2.6" "[method]output-stream.blocking-write-and-flush" (func $write (param i32 i32 i32 i32)))"#;
const DIRECTORIES: &str =
    r#"(import "wasi:filesystem/preopens@0.2.6" "get-directories" (func $directories (param i32)))"#;

/// All of them. Those that run out of time come last: they take theirs.
pub(super) fn all() -> Vec<Hostile> {
    let cast = [computing(), calling(), reaching(), endless()].concat();
    cast.into_iter().map(|(name, component, ending)| Hostile { name, component, ending }).collect()
}

type Part = (&'static str, Vec<u8>, Ending);

fn computing() -> Vec<Part> {
    let recursion = "(func $r (result i32) (i32.add (call $r) (i32.const 1)))";
    // Each page is touched, so that the memory is really there and not only promised.
    let grow = "(local.set $i (memory.grow (i32.const 16)))
        (if (i32.eq (local.get $i) (i32.const -1)) (then unreachable))
        (memory.fill (i32.shl (local.get $i) (i32.const 16)) (i32.const 1) (i32.const 1048576))";
    let table = "(if (i32.eq (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1)) (then unreachable))";
    vec![
        ("recursion", guest("", recursion, "", "(drop (call $r))"), Some(("trap", "stack"))),
        ("grow", guest("", "", COUNT, &repeat(None, grow)), Some(("limit", "limits.memory_bytes = 16777216"))),
        ("table", guest("", "(table $t 1 funcref)", "", &repeat(None, table)), Some(("limit", "20000 elements"))),
        ("unreachable", handler("", "unreachable"), Some(("trap", "unreachable"))),
        ("load-outside", handler("", "(drop (i32.load (i32.const -4)))"), Some(("trap", "out of bounds"))),
        (
            "copy-outside",
            handler("", "(memory.copy (i32.const 0) (i32.const 1) (i32.const -1))"),
            Some(("trap", "out of bounds")),
        ),
        ("divide", handler("", "(drop (i32.div_u (i32.const 1) (i32.const 0)))"), Some(("trap", "divide by zero"))),
        (
            "call-null",
            guest("", "(table 1 funcref) (type $t (func))", "", "(call_indirect (type $t) (i32.const 0))"),
            Some(("trap", "uninitialized element")),
        ),
    ]
}

fn calling() -> Vec<Part> {
    let million = |imports, body| guest(imports, "", COUNT, &repeat(Some(1_000_000), body));
    let list = "(call $list (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 64))
        (global.set $bump (i32.const 4096))";
    let not_utf8 = "(i32.store (i32.const 64) (i32.const -1)) (call $delete (i32.const 64) (i32.const 4))";
    let result_outside = "(i32.store (i32.const 4) (i32.const -1)) (i32.store8 (i32.const 0) (i32.const 9))";
    vec![
        ("million-puts", million(STATE, SET), Some(("limit", "limits.writes_max = 1000"))),
        ("million-emits", million(OUTBOX, EMIT), Some(("limit", "limits.events_max = 100"))),
        ("million-gets", million(STATE, GET), Some(("limit", "limits.reads_max = 10000"))),
        ("scan", million(STATE, list), Some(("limit", "limits.reads_max = 10000"))),
        (
            "big-value",
            handler(STATE, &save(4096, (1 << 20) + 1)),
            Some(("limit", "limits.state_value_bytes_max = 1048576")),
        ),
        ("list-too-long", handler(STATE, &save(4096, 4_000_000)), Some(("limit", "in one call"))),
        ("list-outside", handler(STATE, "(call $delete (i32.const -8) (i32.const 64))"), Some(("trap", ""))),
        ("invalid-utf8", handler(STATE, not_utf8), Some(("trap", "utf-8"))),
        ("result-unknown", handler("", result_outside), Some(("trap", ""))),
    ]
}

fn reaching() -> Vec<Part> {
    let exit = r#"(import "wasi:cli/exit@0.2.6" "exit" (func $exit (param i32)))"#;
    let sockets =
        "(call $directories (i32.const 64)) (if (i32.load (i32.const 68)) (then (return (i32.const 0)))) unreachable";
    let flood = format!(
        "(local.set $out (call $stdout)) {}",
        repeat(Some(10_000), "(call $write (local.get $out) (i32.const 65536) (i32.const 4096) (i32.const 64))")
    );
    // Subjects of the broker's and of nobody's: each is refused, and the attempt goes on.
    let emit = |at: u32, len: u32| {
        format!(
            "(call $emit (i32.const {at}) (i32.const {len}) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
             (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 96))
             (if (i32.eqz (i32.load8_u (i32.const 96))) (then unreachable))"
        )
    };
    let texts = r#"(data (i32.const 200) "$JS.API.STREAM.DELETE.S_INBOX.xout.*out.>other.x")"#;
    let refused = [emit(200, 23), emit(223, 8), emit(231, 5), emit(236, 5), emit(241, 7)].concat();
    vec![
        ("exit", handler(exit, "(call $exit (i32.const 0))"), Some(("trap", "exited with status 0"))),
        ("sleep", handler(CLOCK, "(call $block (call $later (i64.const -1)))"), Some(("trap", "can't sleep"))),
        ("handles", handler(CLOCK, &repeat(None, "(drop (call $later (i64.const 0)))")), Some(("limit", "handles"))),
        ("directories", handler(DIRECTORIES, sockets), Some(("trap", "unreachable"))),
        ("stdout-flood", guest(STDOUT, "", "(local $i i32) (local $out i32)", &flood), None),
        ("emit-refused", guest(OUTBOX, texts, "", &refused), None),
    ]
}

fn endless() -> Vec<Part> {
    let copy = "(memory.copy (i32.const 0) (i32.const 65536) (i32.const 4000000))";
    // The trial's clock stands at 0.
    let start = "(func $start (if (i64.ne (call $now) (i64.const 0)) (then (loop $l (br $l))))) (start $start)";
    let late = Some(("timeout", "ran past its limit"));
    vec![
        ("loop", handler("", &repeat(None, "")), late),
        ("memory-copy", handler("", &repeat(None, copy)), late),
        ("host-calls", handler(NOW, &repeat(None, "(drop (call $now))")), late),
        ("loop-at-init", guest::guest(NOW, start, "", ""), late),
    ]
}
