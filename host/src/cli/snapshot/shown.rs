//! What the CLI shows of fixed answers, and how it refuses what makes no sense.

use clap::Parser;
use serde_json::{Value, json};

use super::super::args::Cli;
use super::super::{lists, tables};
use super::assert_snapshot;

const VERSION: &str = "3b1f0c2d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9";
const BEFORE: &str = "9f8e7d6c5b4a39281706f5e4d3c2b1a0998877665544332211ffeeddccbbaa00";

fn view<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn consumer(name: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut consumer = json!({
        "name": name, "phase": "running", "version": VERSION, "stream": "ORDERS", "floor": 1_204, "delivered": 1_210, "pending": 0, "held": 6,
        "held_bytes": 3_072, "running": 1, "waiting_retry": 0, "outbox_pending": 0, "applied": 1_190, "duplicates": 14, "redelivered": 0, "retries": 0,
        "dead_letters": 0, "published": 1_190, "stale": 0, "parked_rows": 0, "parked_keys": 0, "keys_releasing": 0, "holds": [], "problems": [],
        "failures": { "retry": 0, "reject": 0, "park": 0, "trap": 0, "timeout": 0, "limit": 0 },
        "speed": { "rate": 118.5, "handler_p50_us": 21, "handler_p99_us": 1_450, "end_to_end_p50_ms": 2, "end_to_end_p99_ms": 11 },
    });
    change(&mut consumer);
    consumer
}

/// One that has every trouble that there is.
fn troubled() -> Value {
    consumer("billing", |consumer| {
        consumer["pending"] = json!(48_000);
        consumer["waiting_retry"] = json!(2);
        consumer["parked_rows"] = json!(31);
        consumer["parked_keys"] = json!(3);
        consumer["dead_letters"] = json!(4);
        consumer["outbox_pending"] = json!(12);
        consumer["outbox_age_ms"] = json!(93_000);
        consumer["failures"]["timeout"] = json!(7);
        consumer["failures"]["reject"] = json!(4);
        consumer["holds"] =
            json!([{ "by": "operator", "since": "2026-03-01T10:00:00.000Z", "reason": "the ledger is being moved" }]);
        consumer["problems"] = json!(["component billing.wasm: it imports wasi:sockets, which no plug-in gets"]);
    })
}

fn parked() -> Value {
    json!({
        "consumer": "billing", "id": 7, "sequence": 1_201, "stream": "ORDERS", "message_id": "order-1201", "subject": "orders.alice", "key": "alice",
        "entity_version": null, "cause": "exhausted", "missing_version": null, "reason": "the bank did not answer", "holds_key": true, "behind": null,
        "published_at": "2026-03-01T09:58:00.000Z", "parked_at": "2026-03-01T09:59:00.000Z", "until": "2026-03-01T10:09:00.000Z", "releases": 1,
        "attempts": 5, "payload_bytes": 17, "headers": [["Nats-Msg-Id", "order-1201"]], "payload": "{\"amount\": 12.50}", "payload_base64": null,
        "history": [{ "at": "2026-03-01T09:58:30.000Z", "version": VERSION, "kind": "retry", "reason": "the bank did not answer" }],
    })
}

fn dead_letter() -> Value {
    json!({
        "consumer": "billing", "sequence": 1_150, "stream": "ORDERS", "id": "order-1150", "subject": "orders.bob", "key": "bob", "cause": "rejected",
        "reason": "the amount is negative", "attempts": 1, "published_at": "2026-03-01T09:00:00.000Z", "at": "2026-03-01T09:00:01.000Z",
        "history": [{ "at": "2026-03-01T09:00:01.000Z", "version": VERSION, "kind": "reject", "reason": "the amount is negative" }],
        "payload_bytes": 3, "headers": [], "payload": null, "payload_base64": "/wD/",
    })
}

#[test]
fn tables_and_single_views_are_as_they_were() {
    let status = json!({
        "version": "0.1.0", "uptime_ms": 93_784_000, "ready": { "ok": false, "reasons": ["the disk of the store has less than 1073741824 bytes free"] },
        "nats": "127.0.0.1:4222", "overlay_bytes": 1_024, "consumers": [troubled(), consumer("totals", |_| {})],
        "outbox": { "in_flight": 3, "queued": 0, "waiting": 9, "oldest_age_ms": 93_000, "last_refusal": "no stream takes receipts.alice" },
        "files": ["consumers/old.toml:3:1: error[PC003]: unknown field \"subjcts\" in [subscription]"],
    });
    let mut detail = troubled();
    for (name, value) in [
        ("number", json!(4)),
        ("stream_created", json!("2026-02-01T00:00:00.000Z")),
        ("quiet", json!(false)),
        ("settled_above", json!([[1_206, 1_208]])),
        ("rewound", json!([1_000, 1_300])),
        ("keys", json!(6)),
        ("requested", json!(500)),
    ] {
        detail[name] = value;
    }
    let versions = json!([
        { "version": VERSION, "state": "serving", "since": "2026-03-01T08:00:00.000Z", "reason": null },
        { "version": BEFORE, "state": "refused", "since": "2026-03-01T07:00:00.000Z", "reason": "it traps when it is started" },
    ]);
    let deployed = json!({
        "ok": false, "files": [],
        "consumers": [
            { "consumer": "billing", "step": "swap", "from": BEFORE, "to": VERSION, "result": "done", "reason": null },
            { "consumer": "totals", "step": "start", "from": null, "to": VERSION, "result": "refused", "reason": "it has no export handler" },
        ],
    });
    let outbox = json!([{
        "row": 9, "consumer": "billing", "id": "billing:ORDERS:1:1150:0", "subject": "receipts.alice", "key": "alice", "payload_bytes": 64,
        "since": "2026-03-01T09:59:00.000Z", "age_ms": 93_000, "place": "refused", "refusals": 3, "reason": "no stream takes it",
    }]);
    let state = json!([
        { "key": "alice", "entry": "balance", "value": "12.50", "value_base64": null, "expires_at": null },
        { "key": "alice", "entry": "token", "value": null, "value_base64": "/wD/", "expires_at": "2026-03-02T00:00:00.000Z" },
    ]);
    let shown = [
        ("status", tables::status(&view(status.clone()))),
        ("consumers list", tables::consumers(&view::<Vec<_>>(status["consumers"].clone()))),
        ("consumers show", lists::consumer(&view(detail))),
        ("parked list", tables::parked(&[view(parked())])),
        ("parked show", tables::parked_message(&view(parked()))),
        ("dead-letters list", tables::dead_letters(&[view(dead_letter())])),
        ("dead-letters show", tables::dead_letter(&view(dead_letter()))),
        ("versions", tables::versions(&view::<Vec<_>>(versions))),
        ("deploy", tables::deployed(&view(deployed))),
        ("outbox", lists::outbox(&view::<Vec<_>>(outbox))),
        ("state list", lists::state(&view::<Vec<_>>(state))),
    ];
    let text: String = shown.iter().map(|(name, text)| format!("━━ pelton {name}\n{text}\n\n")).collect();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    assert_snapshot("tables.txt", &lines.join("\n"));
}

#[test]
fn errors_of_usage_are_as_they_were() {
    let lines: [&[&str]; 14] = [
        &["pelton"],
        &["pelton", "rnu"],
        &["pelton", "status", "--jsn"],
        &["pelton", "explain", "orders"],
        &["pelton", "rollback"],
        &["pelton", "deploy", "--paln"],
        &["pelton", "new"],
        &["pelton", "invoke", "a.wasm"],
        &["pelton", "parked", "show", "orders", "first"],
        &["pelton", "parked", "list", "--older-than", "10"],
        &["pelton", "consumers", "rewind", "orders"],
        &["pelton", "state", "get", "orders"],
        &["pelton", "completions", "klingon"],
        &["pelton", "outbox", "--address"],
    ];
    let mut text = String::new();
    for line in lines {
        let error = Cli::try_parse_from(line).expect_err("it makes no sense");
        // What stands there is help if no command is given; that has a snapshot of its own.
        let said = error.render().to_string();
        let said = if line.len() == 1 { said.lines().next().unwrap_or_default().to_owned() } else { said };
        text.push_str(&format!("━━ {} (exit status {})\n{}\n\n", line.join(" "), error.exit_code(), said.trim_end()));
    }
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    assert_snapshot("errors.txt", &lines.join("\n"));
}
