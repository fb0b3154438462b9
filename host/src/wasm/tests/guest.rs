//! Makes components from the text form of a core module: the contract's types are embedded, `wit-component` does the rest.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A world of the parts of WASI that the tests call, and of some that no plug-in gets.
const WASI: &str = r"
package tests:guests;
package wasi:io@0.2.6 {
  interface poll { resource pollable { ready: func() -> bool; block: func(); } poll: func(in: list<borrow<pollable>>) -> list<u32>; }
  interface error { resource error; }
  interface streams {
    use error.{error};
    variant stream-error { last-operation-failed(error), closed }
    resource output-stream { blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>; }
    resource input-stream { blocking-read: func(len: u64) -> result<list<u8>, stream-error>; }
  }
}
package wasi:cli@0.2.6 {
  interface exit { exit: func(status: result); }
  interface environment { get-environment: func() -> list<tuple<string, string>>; get-arguments: func() -> list<string>; }
  interface stdin { use wasi:io/streams@0.2.6.{input-stream}; get-stdin: func() -> input-stream; }
  interface stdout { use wasi:io/streams@0.2.6.{output-stream}; get-stdout: func() -> output-stream; }
  interface stderr { use wasi:io/streams@0.2.6.{output-stream}; get-stderr: func() -> output-stream; }
}
package wasi:clocks@0.2.6 {
  interface wall-clock { record datetime { seconds: u64, nanoseconds: u32 } now: func() -> datetime; }
  interface monotonic-clock {
    use wasi:io/poll@0.2.6.{pollable};
    now: func() -> u64; subscribe-duration: func(when: u64) -> pollable;
  }
}
package wasi:random@0.2.6 {
  interface random { get-random-bytes: func(len: u64) -> list<u8>; get-random-u64: func() -> u64; }
}
package wasi:filesystem@0.2.6 {
  interface types { resource descriptor; }
  interface preopens { use types.{descriptor}; get-directories: func() -> list<tuple<descriptor, string>>; }
}
package wasi:sockets@0.2.6 {
  interface instance-network { resource network; instance-network: func() -> network; }
}
package acme:db@1.0.0 {
  interface sql { query: func() -> u32; }
}
world guest {
  import wasi:io/poll@0.2.6;
  import wasi:cli/exit@0.2.6;
  import wasi:cli/environment@0.2.6;
  import wasi:cli/stdin@0.2.6;
  import wasi:cli/stdout@0.2.6;
  import wasi:cli/stderr@0.2.6;
  import wasi:clocks/wall-clock@0.2.6;
  import wasi:clocks/monotonic-clock@0.2.6;
  import wasi:random/random@0.2.6;
  import wasi:filesystem/preopens@0.2.6;
  import wasi:sockets/instance-network@0.2.6;
  import acme:db/sql@1.0.0;
  export extra: func();
  include pelton:consumer/consumer@0.1.0;
}
";

/// The contract of this host.
const CONTRACT: &str = include_str!("../../../../wit/consumer.wit");

/// Imports under the names that the bodies use.
pub(super) const STATE: &str = r#"
  (import "pelton:consumer/state@0.1.0" "get" (func $get (param i32 i32 i32)))
  (import "pelton:consumer/state@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32 i64)))
  (import "pelton:consumer/state@0.1.0" "delete" (func $delete (param i32 i32)))
  (import "pelton:consumer/state@0.1.0" "list" (func $list (param i32 i32 i32 i32 i32 i32 i32)))
"#;
pub(super) const OUTBOX: &str = r#"
  (import "pelton:consumer/outbox@0.1.0" "emit" (func $emit (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
"#;

/// A component for the contract of this host whose handler runs `body`; see [`module`] for what it finds.
pub(super) fn handler(imports: &str, body: &str) -> Vec<u8> {
    guest(imports, "", "", body)
}

/// The same with definitions of its own before the handler, and with locals.
pub(super) fn guest(imports: &str, definitions: &str, locals: &str, body: &str) -> Vec<u8> {
    component(CONTRACT, "pelton:consumer/handler@0.1.0#handle", &module(imports, definitions, locals, body))
}

/// The core module of a guest. Memory: 0..64 is what the handler returns (all zero: ok), 64..1024 is free for the body, from 1024 on there are
/// texts ("k" at 1024, "out.x" at 1040, "$JS.API.x" at 1056, "other.x" at 1072), from 4096 on what the host allocates.
fn module(imports: &str, definitions: &str, locals: &str, body: &str) -> String {
    format!(
        r#"(module {imports}
  (memory (export "memory") 64)
  (global $bump (mut i32) (i32.const 4096))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $bump) (i32.const 7)) (i32.const -8)))
    (global.set $bump (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
  (data (i32.const 1024) "k")
  (data (i32.const 1040) "out.x")
  (data (i32.const 1056) "$JS.API.x")
  (data (i32.const 1072) "other.x")
  {definitions}
  (func (export "HANDLE") (param $id i32) (param $id_len i32) (param $subject i32) (param $subject_len i32)
    (param $has_key i32) (param $key i32) (param $key_len i32) (param $headers i32) (param $headers_len i32)
    (param $payload i32) (param $payload_len i32) (param $sequence i64) (param $published i64) (param $attempt i32)
    (result i32) {locals}
    {body}
    (i32.const 0)))"#
    )
}

/// A component from a core module whose handler is exported as `HANDLE`, for the given text of the contract and under the given name.
fn component(contract: &str, export: &str, module: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let contract = resolve.push_str("consumer.wit", contract).unwrap();
    let mut wasi = WASI.replace(
        "pelton:consumer/consumer@0.1.0",
        &format!("pelton:consumer/consumer@{}", resolve.packages[contract].name.version.as_ref().unwrap()),
    );
    if !module.contains("(export \"extra\")") {
        wasi = wasi.replace("  export extra: func();\n", "");
    }
    let package = resolve.push_str("guest.wit", &wasi).unwrap();
    let world = resolve.select_world(&[package], Some("guest")).unwrap();
    let mut core = wat::parse_str(module.replace("HANDLE", export)).unwrap();
    embed_component_metadata(&mut core, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().module(&core).unwrap().encode().unwrap()
}

/// A component for another contract: the text of this host's with `from` replaced.
pub(super) fn for_other_contract(from: &str, to: &str, export: &str, imports: &str, body: &str) -> Vec<u8> {
    assert!(CONTRACT.contains(from), "the contract has {from}");
    component(&CONTRACT.replace(from, to), export, &module(imports, "", "", body))
}

/// The everyday plug-in: reads a value, writes one, emits an event.
pub(super) fn counter() -> Vec<u8> {
    handler(&format!("{STATE}{OUTBOX}"), &format!("{GET}{SET}{EMIT}"))
}

/// Reads "k" to 64: a byte that says whether it is there, pointer at 68, length at 72.
pub(super) const GET: &str = "(call $get (i32.const 1024) (i32.const 1) (i32.const 64))";
/// Sets "k" to the payload.
pub(super) const SET: &str = "(call $set (i32.const 1024) (i32.const 1) (local.get $payload) (local.get $payload_len) (i32.const 0) (i64.const 0))";
/// Emits the payload to "out.x".
pub(super) const EMIT: &str = "(call $emit (i32.const 1040) (i32.const 5) (local.get $payload) (local.get $payload_len)
    (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 96))";

/// Sets "k" to `len` bytes of memory at `at`.
pub(super) fn save(at: u32, len: u32) -> String {
    format!("(call $set (i32.const 1024) (i32.const 1) (i32.const {at}) (i32.const {len}) (i32.const 0) (i64.const 0))")
}

/// Runs `body` without end, or as often as `times` says.
pub(super) fn repeat(times: Option<u32>, body: &str) -> String {
    match times {
        None => format!("(loop $again {body} (br $again))"),
        Some(times) => format!(
            "(local.set $i (i32.const {times}))
             (loop $again {body} (local.set $i (i32.sub (local.get $i) (i32.const 1))) (br_if $again (local.get $i)))"
        ),
    }
}
