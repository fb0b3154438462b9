//! The sdk's in-memory host and the real sandbox do the same: random steps are taken in both, one message after the other over the state that the one before left,
//! and outcome, state, marks, events and log are compared.
//!
//! What the in-memory host did is written down as cases, which `pelton test` runs with the component.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use pelton_sdk::testing::{Attempt, Host, Line, Outcome, message};
use pelton_tests::random::Random;
use pelton_tests::tools;
use serde_json::{Map, Value, json};

#[expect(clippy::panic, reason = "a plug-in's panic is one of the outcomes")]
#[path = "../../guests/script/src/script.rs"]
mod script;

const NOW_MS: u64 = 1_767_225_600_000;
const KEYS: [&str; 5] = ["a", "a/1", "a/2", "b", "größe"];
const HEADERS: [(&str, &str); 6] =
    [("x", "1"), ("y", "ü"), ("Nats-Msg-Id", "mine"), ("pelton-x", "1"), ("bad:name", "1"), ("z", "a\nb")];
const SUBJECTS: [&str; 7] = ["out.a", "out.a.b", "other.a", "out.*", "out..a", "$JS.API", ""];

/// A number from 0 up to, but without, `high`.
fn below(random: &mut Random, high: u64) -> usize {
    usize::try_from(random.between(0, high)).unwrap_or(0)
}

/// One of these.
fn one<T: Clone>(random: &mut Random, these: &[T]) -> T {
    these[below(random, these.len() as u64)].clone()
}

/// One step, chosen at random; now and then one that passes a limit.
fn step(random: &mut Random) -> Value {
    let key = KEYS[below(random, 5)];
    let ttl = |random: &mut Random| one(random, &[None, Some(0), Some(1), Some(60_000)]);
    match below(random, 22) {
        0 | 1 => json!({ "get": key }),
        2..=5 => json!({ "set": [key, below(random, 40), ttl(random)] }),
        6 => json!({ "delete": key }),
        7 => {
            json!({ "list": [one(random, &["", "a", "a/", "fill/"]), one(random, &[None, Some("a"), Some("a/1")]), below(random, 3)] })
        }
        8 => json!({ "list-all": one(random, &["", "a", "fill/"]) }),
        9 => json!({ "seen": key }),
        10 => json!({ "mark": [key, ttl(random)] }),
        11..=14 => {
            let headers: Vec<_> = (0..below(random, 3)).map(|_| HEADERS[below(random, 6)]).collect();
            json!({ "emit": [SUBJECTS[below(random, 7).min(below(random, 7))], below(random, 40), headers, one(random, &[None, Some("other")])] })
        }
        15 => json!({ "log": ["a line\r\n\u{1b}[31m", [["name", "value\u{7}"]]] }),
        16 => json!("context"),
        17 => json!({ "config": one(random, &["threshold", "absent"]) }),
        18 => json!({ "fill": one(random, &[3, 300, 999, 1_001]) }),
        _ => rare(random, key),
    }
}

/// Ends of an attempt, and limits.
fn rare(random: &mut Random, key: &str) -> Value {
    match below(random, 14) {
        0 => json!({ "retry": ["later", one(random, &[None, Some(7)])] }),
        1 => json!({ "reject": "never".repeat(one(random, &[1, 1_000])) }),
        2 => json!({ "park": ["not yet", one(random, &[None, Some(9)])] }),
        3 => json!("panic"),
        4 => json!({ "get": "k".repeat(one(random, &[512, 513])) }),
        5 => json!({ "set": [key, one(random, &[1_048_576, 1_048_577]), null] }),
        6 => json!({ "emit": ["out.big", one(random, &[983_040, 983_041]), [], null] }),
        7 => json!({ "emit": ["out.head", 1, [["x", "h".repeat(one(random, &[16_383, 16_384]))]], null] }),
        8 => json!({ "set": ["k".repeat(600), 1, null] }),
        9 => json!({ "emit": ["out.key", 1, [], "k".repeat(513)] }),
        10 => json!({ "log": ["l".repeat(70_000), []] }),
        _ => json!({ "seen": key }),
    }
}

/// The state entries of a key as a case writes them.
fn state_of(host: &Host, key: &str) -> Value {
    let shown = |(entry, bytes): (String, Vec<u8>)| {
        let mut value = json!({ "$text": String::from_utf8_lossy(&bytes) });
        if let Some(at_ms) = host.expires_at_ms(key, &entry) {
            value["$expires_at_ms"] = json!(at_ms);
        }
        (entry, value)
    };
    Value::Object(host.entries(key).into_iter().map(shown).collect())
}

/// What an attempt in memory did, as a case expects it.
fn expected(attempt: &Attempt, host: &Host, key: &str) -> Value {
    let events = attempt.events.iter().map(|event| {
        let mut headers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        event.headers.iter().for_each(|(name, value)| headers.entry(name).or_default().push(value));
        let headers: Map<String, Value> = headers
            .into_iter()
            .map(|(name, values)| {
                let value = if let [one] = values.as_slice() { json!(one) } else { json!(values) };
                (name.to_owned(), value)
            })
            .collect();
        let payload = String::from_utf8_lossy(&event.payload);
        json!({ "id": event.id, "subject": event.subject, "key": event.key, "headers": headers, "payload": payload })
    });
    let logs = attempt.logs.iter().map(|Line { level, text, fields }| match fields.as_str() {
        "" => format!("{level} {text}"),
        fields => format!("{level} {text} {fields}"),
    });
    let mut expect = json!({
        "outcome": attempt.outcome.kind(),
        "state": state_of(host, key),
        "marks": attempt.marks,
        "events": events.collect::<Vec<_>>(),
        "logs": logs.collect::<Vec<_>>(),
    });
    match &attempt.outcome {
        Outcome::Retry { after: Some(after), .. } | Outcome::Park { after: Some(after), .. } => {
            expect["after_ms"] = json!(u64::try_from(after.as_millis()).unwrap_or_default());
        }
        _ => {}
    }
    // What a trap says is each host's own.
    if let (Some(reason), false) = (attempt.outcome.reason(), matches!(attempt.outcome, Outcome::Trap { .. })) {
        expect["reason"] = json!(reason);
    }
    expect
}

/// Messages of one key, each over the state that those before left, with some time between them.
fn history(random: &mut Random, seed: usize) -> Vec<Value> {
    let mut host = Host::new(script::handle).emits("out.>").config("threshold", 7).named("script", "IN").at(NOW_MS);
    let mut cases = Vec::new();
    let mut marks: Vec<String> = Vec::new();
    for number in 0..6 {
        let steps: Vec<Value> = (0..below(random, 12)).map(|_| step(random)).collect();
        let payload = Value::Array(steps).to_string();
        let id = format!("{seed}-{number}");
        let sequence = u64::try_from(number + 1).unwrap_or(1);
        let trace = [("traceparent", "00-t"), ("b", "2"), ("a", "1")][below(random, 3)];
        let delivery = message("in.k").key("k").id(&id).header(trace.0, trace.1).text(&payload).sequence(sequence);
        let (state, now_ms) = (state_of(&host, "k"), host.now_ms());
        marks.retain(|id| host.is_marked("k", id));
        let attempt = host.handle(&delivery);
        cases.push(json!({
            "name": format!("history {seed}, message {number}: {payload:.2000}"),
            "message": { "subject": "in.k", "id": id, "headers": { (trace.0): trace.1 }, "payload": payload, "sequence": sequence },
            "state": state,
            "marks": marks,
            "now_ms": now_ms,
            "expect": expected(&attempt, &host, "k"),
        }));
        marks.extend(attempt.marks);
        host.advance(Duration::from_millis([0, 1, 70_000][below(random, 3)]));
    }
    cases
}

#[test]
fn the_in_memory_host_and_the_sandbox_do_the_same() -> Result<()> {
    let directory = tempfile::tempdir()?;
    std::fs::create_dir_all(directory.path().join("consumers"))?;
    std::fs::create_dir_all(directory.path().join("tests"))?;
    tools::replace_file(&tools::guest("script")?, &directory.path().join("consumers/script.wasm"))?;
    let manifest = "component = \"script.wasm\"\n[subscription]\nstream = \"IN\"\nsubjects = [\"in.>\"]\n[key]\nsubject_token = 2\n\
                    [grants]\nemit = [\"out.>\"]\n[config]\nthreshold = 7\n";
    std::fs::write(directory.path().join("consumers/script.toml"), manifest)?;
    let mut random = Random::new(4);
    let cases: Vec<Value> = (0..60).flat_map(|seed| history(&mut random, seed)).collect();
    let outcome = |word: &str| cases.iter().filter(|case| case["expect"]["outcome"] == word).count();
    for word in ["applied", "retry", "reject", "park", "trap", "limit"] {
        assert!(outcome(word) > 2, "the histories hold no {word}");
    }
    let file = directory.path().join("tests/histories.json");
    std::fs::write(&file, serde_json::to_string_pretty(&json!({ "case": cases }))?)?;
    let mut pelton = Command::new(tools::host(tools::HostBuild::Normal)?);
    let output = pelton.arg("test").arg(directory.path()).arg("--json").output()?;
    let report: Value =
        serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let failed = report["cases"].as_array().context("cases")?.iter().find(|case| case["passed"] == false);
    assert!(
        failed.is_none(),
        "{} of {} differ; the first:\n{:#}",
        report["failed"],
        cases.len(),
        failed.unwrap_or_default()
    );
    assert_eq!(report["passed"], cases.len());
    Ok(())
}
