//! Operators put right what lies deeper than single messages: state, the cursor, the outbox, a consumer that is gone.

use std::process::Output;

use anyhow::{Context, Result};
use pelton_tests::client::{Outgoing, StreamSpec};
use pelton_tests::http::Ask;
use pelton_tests::manifest::Manifest;
use pelton_tests::reader::Stored;
use serde_json::{Value, json};

use crate::stage::{Stage, manifest_of};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn done(output: &Output) -> Result<String> {
    anyhow::ensure!(output.status.success(), "{}: {}{}", output.status, text(&output.stdout), text(&output.stderr));
    Ok(text(&output.stdout))
}

fn refused(output: &Output, code: i32, parts: &[&str]) {
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{told}");
    for part in parts {
        assert!(told.contains(part), "{part:?} is missing in {told}");
    }
}

fn json_of(output: &Output) -> Result<Value> {
    serde_json::from_str(&done(output)?).context("its output is JSON")
}

#[tokio::test]
async fn state_is_read_edited_exported_and_imported_and_the_next_attempt_sees_it() -> Result<()> {
    let mut stage = Stage::running("ledger").await?;
    for n in 1..=3 {
        stage.ledger("a", n).await?;
    }
    stage.ledger("b", 1).await?;
    stage.events(4).await?;
    let listed = json_of(&stage.host.run(&["state", "list", "ledger", "--json"])?)?;
    let keys: Vec<_> = listed.as_array().into_iter().flatten().map(|entry| entry["key"].clone()).collect();
    assert_eq!(keys, [json!("a"), json!("b")]);
    let before = done(&stage.host.run(&["state", "get", "ledger", "ledger", "--key", "a"])?)?;
    let mut ledger: Value = serde_json::from_str(&before)?;
    assert_eq!(ledger["count"], 3);
    let exported = done(&stage.host.run(&["state", "export", "ledger", "--key", "a"])?)?;

    ledger["count"] = json!(41);
    let after = ledger.to_string();
    let set = ["state", "set", "ledger", "ledger", &after, "--key", "a"];
    refused(
        &stage.host.run(&[&set[..], &["--if-value", "something else"]].concat())?,
        1,
        &["another value", "[conflict]"],
    );
    done(&stage.host.run(&[&set[..], &["--if-value", &before]].concat())?)?;
    stage.ledger("a", 4).await?;
    assert_eq!(stage.ledger_events(1).await?[0].count, 42, "the next attempt goes on from the edit");

    // An edit outlasts SIGKILL.
    done(&stage.host.run(&["state", "set", "ledger", "note", "kept", "--key", "b"])?)?;
    stage.wait_status("all is settled", "ledger", |entry| entry["held"] == 0).await?;
    stage.host.kill()?;
    stage.host.start().await?;
    assert_eq!(done(&stage.host.run(&["state", "get", "ledger", "note", "--key", "b"])?)?, "kept");

    stage.host.write("good.jsonl", exported.as_bytes())?;
    stage.host.write("bad.jsonl", format!("{exported}{{\"entry\":1}}\n").as_bytes())?;
    refused(
        &stage.host.run(&["state", "import", "ledger", "bad.jsonl", "--yes"])?,
        1,
        &["nothing was changed", "bad.jsonl:2"],
    );
    refused(&stage.host.run(&["state", "import", "ledger", "good.jsonl"])?, 2, &["--yes"]);
    done(&stage.host.run(&["state", "import", "ledger", "good.jsonl", "--yes"])?)?;
    assert_eq!(done(&stage.host.run(&["state", "get", "ledger", "ledger", "--key", "a"])?)?, before);
    done(&stage.host.run(&["state", "delete", "ledger", "note", "--key", "b"])?)?;
    refused(&stage.host.run(&["state", "get", "ledger", "note", "--key", "b"])?, 1, &["note", "[not-found]"]);
    refused(&stage.host.run(&["state", "delete", "ledger", "--all"])?, 2, &["--yes"]);
    done(&stage.host.run(&["state", "delete", "ledger", "--all", "--yes"])?)?;
    assert_eq!(json_of(&stage.host.run(&["state", "list", "ledger", "--json"])?)?, json!([]));
    Ok(())
}

#[tokio::test]
async fn a_rewind_has_messages_handled_again_once_each_and_their_events_leave_again() -> Result<()> {
    let mut stage = Stage::running("ledger").await?;
    for n in 1..=5 {
        stage.ledger("a", n).await?;
    }
    let first = stage.events(5).await?;
    stage.wait_status("all is settled", "ledger", |entry| entry["floor"] == 5).await?;
    let dry =
        json_of(&stage.host.run(&["consumers", "rewind", "ledger", "--to-sequence", "3", "--dry-run", "--json"])?)?;
    assert_eq!((&dry["messages"], &dry["floor"], &dry["done"]), (&json!(3), &json!(2), &json!(false)));
    refused(
        &stage.host.run(&["consumers", "rewind", "ledger", "--to-sequence", "3"])?,
        2,
        &["--yes", "3 messages of IN"],
    );
    stage.no_more_events().await;
    done(&stage.host.run(&["consumers", "rewind", "ledger", "--to-sequence", "3", "--yes"])?)?;
    let again = stage.events(3).await?;
    let events: Vec<_> = again.iter().map(Stored::json::<Value>).collect::<Result<_>>()?;
    let told: Vec<_> = events.iter().map(|event| (event["sequence"].clone(), event["count"].clone())).collect();
    assert_eq!(
        told,
        [(json!(3), json!(6)), (json!(4), json!(7)), (json!(5), json!(8))],
        "in order, over the state as it is"
    );
    assert!(again.iter().all(|event| first.iter().all(|first| first.id() != event.id())), "under ids of their own");
    stage.no_more_events().await;
    // What is published twice in the stretch is still handled once, and what is new is told from it.
    stage.ledger("a", 5).await?;
    stage.wait_status("the repetition is known", "ledger", |entry| entry["floor"] == 6).await?;
    stage.no_more_events().await;
    // It outlasts a kill, and the stretch is not handled a third time.
    stage.host.kill()?;
    stage.host.start().await?;
    stage.ledger("a", 6).await?;
    assert_eq!(stage.ledger_events(1).await?[0].count, 9);
    refused(
        &stage.host.run(&["consumers", "rewind", "ledger", "--to-sequence", "99", "--dry-run"])?,
        1,
        &["ends with sequence 7"],
    );
    refused(&stage.host.run(&["consumers", "rewind", "ledger"])?, 2, &["--to-sequence"]);
    refused(
        &stage.host.run(&["consumers", "rewind", "ledger", "--to-time", "yesterday", "--dry-run"])?,
        1,
        &["RFC 3339"],
    );
    let all = json_of(&stage.host.run(&[
        "consumers",
        "rewind",
        "ledger",
        "--to-time",
        "2020-01-01T00:00:00Z",
        "--dry-run",
        "--json",
    ])?)?;
    assert_eq!((&all["floor"], &all["messages"]), (&json!(0), &json!(7)));
    Ok(())
}

#[tokio::test]
async fn a_skip_leaves_out_what_lies_between_and_only_if_it_is_said() -> Result<()> {
    let mut stage = Stage::running("ledger").await?;
    stage.ledger("a", 1).await?;
    stage.events(1).await?;
    done(&stage.host.run(&["consumers", "pause", "ledger"])?)?;
    for n in 2..=4 {
        stage.ledger("a", n).await?;
    }
    let to = ["consumers", "rewind", "ledger", "--to-sequence", "4", "--yes"];
    refused(&stage.host.run(&to)?, 1, &["nothing", "skip"]);
    done(&stage.host.run(&[&to[..], &["--skip"]].concat())?)?;
    assert_eq!(stage.status_of("ledger").await?["holds"][0]["by"], "operator", "it is still paused");
    done(&stage.host.run(&["consumers", "resume", "ledger"])?)?;
    let event = stage.ledger_events(1).await?;
    assert_eq!((event[0].n, event[0].count), (4, 2));
    Ok(())
}

#[tokio::test]
async fn parked_messages_and_dead_letters_of_the_stretch_come_again_from_the_stream() -> Result<()> {
    let change = |manifest: Manifest| manifest.on_exhausted("park-key").section("[release]", "after_ms = \"never\"");
    let mut stage = Stage::running_with("ledger", change).await?;
    stage.client.publish(&Outgoing::new("in.a", "{\"n\":1,\"poison\":true}").id("p")).await?;
    stage.client.publish(&Outgoing::new("in.b", "{\"n\":1,\"fails\":3}").id("f")).await?;
    stage.ledger("b", 2).await?;
    stage.wait_status("b is parked", "ledger", |entry| entry["parked_rows"] == 2 && entry["dead_letters"] == 1).await?;
    let rewind = ["consumers", "rewind", "ledger", "--to-sequence", "1", "--json"];
    let dry = json_of(&stage.host.run(&[&rewind[..], &["--dry-run"]].concat())?)?;
    assert_eq!((&dry["parked"], &dry["dead_letters"]), (&json!(2), &json!(1)));
    let moved = json_of(&stage.host.run(&[&rewind[..], &["--yes"]].concat())?)?;
    assert_eq!((&moved["parked"], &moved["dead_letters"], &moved["messages"]), (&json!(2), &json!(1), &json!(3)));
    // The same again: the poison is given up once more, and b is parked once more.
    stage
        .wait_status("all came again", "ledger", |entry| entry["parked_rows"] == 2 && entry["dead_letters"] == 2)
        .await?;
    assert_eq!(stage.host.dead_letters("ledger").await?.len(), 1);
    stage.no_more_events().await;
    Ok(())
}

#[tokio::test]
async fn the_outbox_is_shown_row_by_row_with_the_reason() -> Result<()> {
    let mut stage = Stage::new().await?;
    let lost = Manifest::new("ledger.wasm", "IN", "in.>").emits("lost.>").section("[config]", "out = \"lost\"");
    stage.consumer("ledger", "ledger", |_| lost)?;
    stage.host.start().await?;
    stage.ledger("a", 1).await?;
    // Between keys no order is promised: that of `a` is to be the older row.
    stage.wait_status("the first event waits", "ledger", |entry| entry["outbox_pending"] == 1).await?;
    stage.ledger("b", 1).await?;
    let refused = |entry: &Value| entry["outbox_pending"] == 2 && entry["outbox_age_ms"].is_u64();
    stage.wait_status("both events wait", "ledger", refused).await?;
    let waiting = pelton_tests::wait::until("the reason is told", crate::stage::SOON, || async {
        let rows = json_of(&stage.host.run(&["outbox", "ledger", "--json"])?)?;
        let told =
            rows.as_array().is_some_and(|rows| rows.len() == 2 && rows.iter().all(|row| row["reason"].is_string()));
        Ok(told.then_some(rows))
    });
    let rows = waiting.await?;
    assert_eq!((&rows[0]["subject"], &rows[0]["key"]), (&json!("lost.a"), &json!("a")));
    assert!(rows[0]["reason"].as_str().unwrap_or_default().contains("no stream takes in"), "{rows}");
    let table = done(&stage.host.run(&["outbox"])?)?;
    assert!(table.contains("lost.a") && table.contains("AGE") && table.contains("no stream"), "{table}");
    let page = stage.host.get("/outbox?limit=1").await?.json()?;
    assert_eq!(page.as_array().map(Vec::len), Some(1));
    stage.client.create_stream(&StreamSpec::new("LOST", "lost.>")).await?;
    stage.wait_status("both events are out", "ledger", |entry| entry["outbox_pending"] == 0).await?;
    assert!(done(&stage.host.run(&["outbox"])?)?.contains("empty"));
    Ok(())
}

#[tokio::test]
async fn a_consumer_that_is_gone_is_purged_and_begins_anew() -> Result<()> {
    let mut stage = Stage::running("ledger").await?;
    stage.ledger("a", 1).await?;
    stage.events(1).await?;
    let purge = ["consumers", "purge", "ledger"];
    refused(&stage.host.run(&[&purge[..], &["--yes"]].concat())?, 1, &["deployed", "manifest"]);
    stage.host.remove_manifest("ledger")?;
    stage.wait_status("it has stopped", "ledger", |entry| entry["phase"] == "stopped").await?;
    refused(&stage.host.run(&purge)?, 2, &["--yes", "for good"]);
    done(&stage.host.run(&[&purge[..], &["--yes"]].concat())?)?;
    assert_eq!(stage.status_of("ledger").await?, Value::Null);
    refused(&stage.host.run(&["state", "list", "ledger"])?, 1, &["[not-found]"]);
    stage.host.kill()?;
    stage.host.start().await?;
    stage.consumer("ledger", "ledger", |manifest| manifest)?;
    // No cursor, no ids, no state: all of the stream is new. (Its event has the id that it had, so the stream may take it for a repetition.)
    stage.wait_status("it begins anew", "ledger", |entry| entry["applied"] == 1 && entry["duplicates"] == 0).await?;
    let ledger: Value =
        serde_json::from_str(&done(&stage.host.run(&["state", "get", "ledger", "ledger", "--key", "a"])?)?)?;
    assert_eq!(ledger["count"], 1);
    Ok(())
}

#[tokio::test]
async fn one_consumer_is_shown_whole_and_the_doctor_looks_at_its_surroundings() -> Result<()> {
    let mut stage = Stage::running("ledger").await?;
    stage.ledger("a", 1).await?;
    stage.events(1).await?;
    stage.wait_status("all is settled", "ledger", |entry| entry["floor"] == 1 && entry["held"] == 0).await?;
    let shown = done(&stage.host.run(&["consumers", "show", "ledger"])?)?;
    assert!(shown.contains("everything up to 1 is settled") && shown.contains("stream"), "{shown}");
    let detail = json_of(&stage.host.run(&["consumers", "show", "ledger", "--json"])?)?;
    assert_eq!((&detail["name"], &detail["quiet"]), (&json!("ledger"), &json!(true)));

    let output = stage.host.run(&["doctor", "--json"])?;
    let findings: Value = serde_json::from_slice(&output.stdout)?;
    let level = |thing: &str| {
        let found = findings.as_array().into_iter().flatten().find(|finding| finding["thing"] == thing);
        found.map(|finding| finding["level"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(level("host").as_deref(), Some("ok"), "{findings}");
    assert_eq!(level("nats").as_deref(), Some("ok"), "{findings}");
    assert_eq!(level("sync_interval").as_deref(), Some("warn"), "what can't be seen is said: {findings}");
    assert!(level("fsync").is_some() && level("clock").is_some() && level("stream IN").is_some(), "{findings}");
    assert_eq!(output.status.code(), Some(0), "{findings}");
    // A stream that nobody made is a failure, and the exit status says so.
    let other = manifest_of("ledger").text().replace("\"IN\"", "\"NOWHERE\"");
    stage.host.write("consumers/other.toml", other.as_bytes())?;
    let output = stage.host.run(&["doctor"])?;
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("FAIL  stream NOWHERE: does not exist") && told.contains("help: create it"), "{told}");
    Ok(())
}

#[tokio::test]
async fn changes_of_state_are_checked_before_any_is_made() -> Result<()> {
    let stage = Stage::running("ledger").await?;
    stage.ledger("a", 1).await?;
    stage.wait_status("it is settled", "ledger", |entry| entry["floor"] == 1).await?;
    let address = stage.host.address()?;
    let change = |changes: Value| Ask::with_json("POST", "/consumers/ledger/state", &json!({ "changes": changes }));
    let cases = [
        (json!([{ "entry": "x", "value": "1" }, { "entry": "y", "value": "1", "value_base64": "MQ==" }]), "exclude"),
        (json!([{ "entry": "x", "value": "1" }, { "entry": "x", "value": "2" }]), "twice"),
        (json!([{ "entry": "x", "value": "1" }, { "entry": "y", "value_base64": "*" }]), "base64"),
        (json!([{ "entry": "x", "value": "1" }, { "entry": "y", "value": "1", "expires_at": "soon" }]), "RFC 3339"),
    ];
    for (changes, part) in cases {
        let answer = change(changes).send(&address).await?;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.body.contains(part) || part == "exclude", "{part}: {answer:?}");
    }
    let listed = stage.host.get("/consumers/ledger/state").await?.json()?;
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "nothing was changed: {listed}");
    let absent = json!([{ "entry": "x", "value": "1", "if_absent": true }]);
    assert_eq!(change(absent.clone()).send(&address).await?.status, 200);
    assert_eq!(change(absent).send(&address).await?.status, 409);
    Ok(())
}
