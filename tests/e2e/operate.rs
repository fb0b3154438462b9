//! What an operator does with parked messages and with consumers, on the command line: look, explain, mend, release, drop, pause.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result};
use pelton_tests::manifest::Manifest;
use pelton_tests::tools::{self, HostBuild};
use serde_json::{Value, json};

use crate::stage::{Stage, manifest_of};

/// What a command says that has to work.
pub(crate) fn says(stage: &Stage, arguments: &[&str]) -> Result<String> {
    let output = stage.host.run(arguments)?;
    let text = String::from_utf8(output.stdout)?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {text}{complaint}\n{}", stage.host.log_tail());
    Ok(text)
}

/// The same as JSON.
pub(crate) fn tells(stage: &Stage, arguments: &[&str]) -> Result<Value> {
    let text = says(stage, &[arguments, &["--json"]].concat())?;
    serde_json::from_str(&text).with_context(|| format!("{arguments:?} says no JSON: {text}"))
}

/// Fails unless a command ends with this status and says all the parts.
pub(crate) fn refuses(stage: &Stage, arguments: &[&str], status: i32, parts: &[&str]) -> Result<()> {
    let output = stage.host.run(arguments)?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {text}");
    assert_holds(&text, parts);
    Ok(())
}

/// Fails unless the text holds all the parts.
pub(crate) fn assert_holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}

/// One field of all items of a list.
pub(crate) fn each(list: &Value, field: &str) -> Vec<Value> {
    list.as_array().into_iter().flatten().map(|item| item[field].clone()).collect()
}

/// Runs a command over the host's directory and gives it an input.
fn run_with_input(stage: &Stage, arguments: &[&str], input: &[u8]) -> Result<Output> {
    let mut command = Command::new(tools::host(HostBuild::Normal)?);
    command.args(arguments).arg("--config").arg(stage.host.path("pelton.toml"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("a pipe")?.write_all(input)?;
    Ok(child.wait_with_output()?)
}

/// Keys stay parked until somebody does something.
pub(crate) fn never_by_itself(manifest: Manifest) -> Manifest {
    manifest.section("[release]", "after_ms = \"never\"\non_new_version = false")
}

/// Publishes what `fails` does with message `n` of a key.
pub(crate) async fn publish(stage: &Stage, key: &str, does: &str, n: u64) -> Result<u64> {
    stage.publish(key, &json!({"do": does, "n": n}).to_string()).await
}

/// The numbers of the next events, as `fails` writes them.
pub(crate) async fn numbers(stage: &mut Stage, count: usize) -> Result<Vec<u64>> {
    let events = stage.events(count).await?;
    events.iter().map(|event| Ok(event.json::<Value>()?["n"].as_u64().unwrap_or_default())).collect()
}

pub(crate) async fn wait_parked(stage: &Stage, consumer: &str, rows: u64) -> Result<()> {
    let what = format!("{rows} messages are parked");
    stage.wait_status(&what, consumer, |entry| entry["parked_rows"] == rows && entry["held"] == 0).await.map(drop)
}

/// A consumer of `fails` whose key `a` is parked: message 1 failed, 2 and 3 stand behind it. Message 4 of key `b` went through.
async fn parked_key() -> Result<Stage> {
    let mut stage = Stage::running_with("fails", never_by_itself).await?;
    publish(&stage, "a", "retry", 1).await?;
    publish(&stage, "a", "ok", 2).await?;
    publish(&stage, "a", "ok", 3).await?;
    publish(&stage, "b", "ok", 4).await?;
    assert_eq!(numbers(&mut stage, 1).await?, [4], "another key goes on");
    wait_parked(&stage, "fails", 3).await?;
    stage.no_more_events().await;
    Ok(stage)
}

#[tokio::test]
async fn a_parked_key_is_listed_shown_exported_and_counted() -> Result<()> {
    let stage = parked_key().await?;
    let list = tells(&stage, &["parked"])?;
    assert_eq!(each(&list, "cause"), ["exhausted", "behind", "behind"]);
    assert_eq!(each(&list, "sequence"), [1, 2, 3]);
    assert_eq!(tells(&stage, &["parked", "list", "fails", "--key", "a"])?, list);
    assert_holds(&says(&stage, &["parked"])?, &["exhausted", "behind", "asked to retry at attempt 3"]);
    for (arguments, count) in [
        (&["--key", "b"][..], 0),
        (&["--reason", "behind"], 2),
        (&["--reason", "gap"], 0),
        (&["--older-than", "1h"], 0),
        (&["--older-than", "1ms"], 3),
        (&["--limit", "2"], 2),
        (&["--key", "a", "--reason", "exhausted", "fails"], 1),
    ] {
        let found = tells(&stage, &[&["parked", "list"], arguments].concat())?;
        assert_eq!(found.as_array().map(Vec::len), Some(count), "{arguments:?}: {found}");
    }
    let ids = each(&list, "id").iter().map(Value::to_string).collect::<Vec<_>>();
    let first = tells(&stage, &["parked", "show", "fails", &ids[0]])?;
    assert_eq!((&first["attempts"], &first["holds_key"], &first["behind"]), (&json!(3), &json!(true), &Value::Null));
    assert_eq!(each(&first["history"], "kind"), ["retry", "retry", "retry"]);
    assert_eq!(each(&first["history"], "version")[2], stage.status_of("fails").await?["version"]);
    assert_eq!(first["payload"], "{\"do\":\"retry\",\"n\":1}");
    let second = tells(&stage, &["parked", "show", "fails", &ids[1]])?;
    assert_eq!((&second["behind"]["id"], &second["behind"]["sequence"]), (&first["id"], &json!(1)));
    let text = says(&stage, &["parked", "show", "fails", &ids[1]])?;
    assert_holds(&text, &["in.a", "behind", "(sequence 1, exhausted)", "JSON", "{\"do\":\"ok\",\"n\":2}"]);
    assert_eq!(says(&stage, &["parked", "show", "fails", &ids[1], "--raw"])?, "{\"do\":\"ok\",\"n\":2}");
    let lines = says(&stage, &["parked", "export", "fails", "--key", "a"])?;
    let exported = lines.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    assert_eq!(json!(exported), list, "an export has what the list has");
    let consumers = tells(&stage, &["consumers"])?;
    let fails = &consumers[0];
    assert_eq!(
        (&fails["parked_rows"], &fails["parked_keys"], &fails["failures"]["retry"]),
        (&json!(3), &json!(1), &json!(3))
    );
    assert_holds(&says(&stage, &["status"])?, &["PARKED", "failed attempts: 3 retry"]);
    Ok(())
}

#[tokio::test]
async fn an_explanation_says_why_a_key_is_where_it_is_and_what_frees_it() -> Result<()> {
    let stage = parked_key().await?;
    let text = says(&stage, &["explain", "fails", "a"])?;
    let told = ["Key \"a\" is parked since 2", "message 1", "failed 3 times", "by retry: asked to retry at attempt 3"];
    assert_holds(&text, &told);
    assert_holds(&text, &["Parked behind it, in order: 2 messages", "not tried again by itself"]);
    assert_holds(&text, &["pelton parked release fails --key \"a\"", "pelton parked drop fails"]);
    let explained = tells(&stage, &["explain", "fails", "a"])?;
    assert_eq!((&explained["parked"]["messages"], &explained["parked"]["held"]), (&json!(3), &json!(true)));
    assert_eq!(each(&explained["parked"]["first"], "sequence"), [1, 2, 3]);
    assert_holds(&says(&stage, &["explain", "fails", "b"])?, &["Nothing of key \"b\" waits"]);
    publish(&stage, "c", "reject", 5).await?;
    stage.wait_status("it is given up", "fails", |entry| entry["dead_letters"] == 1).await?;
    assert_holds(&says(&stage, &["explain", "fails", "c"])?, &["Nothing of key", "Given up: 1 message of the key"]);
    Ok(())
}

#[tokio::test]
async fn a_key_between_attempts_is_explained_with_its_next_one() -> Result<()> {
    let change = |manifest: Manifest| manifest.section("[park]", "delay_ms = 60000");
    let stage = Stage::running_with("fails", change).await?;
    stage.publish("a", &json!({"do": "park", "n": 1, "after_ms": 50_000}).to_string()).await?;
    wait_parked(&stage, "fails", 1).await?;
    let text = says(&stage, &["explain", "fails", "a"])?;
    assert_holds(
        &text,
        &["Set aside while the key goes on: 1 message", "not its turn: asked to park", "at the latest at 2"],
    );
    Ok(())
}

#[tokio::test]
async fn a_mended_message_is_released_with_all_that_stand_behind_it_in_order() -> Result<()> {
    let mut stage = parked_key().await?;
    let id = tells(&stage, &["parked", "--reason", "exhausted"])?[0]["id"].to_string();
    let edit = ["parked", "edit", "fails", &id, "--payload", "-"];
    let output = run_with_input(&stage, &edit, b"{\"do\":\"ok\",\"n\":11}")?;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let edited = tells(&stage, &["parked", "show", "fails", &id])?;
    assert_eq!((&edited["payload"], &edited["attempts"]), (&json!("{\"do\":\"ok\",\"n\":11}"), &json!(3)));
    assert_eq!((&edited["cause"], &edited["sequence"]), (&json!("exhausted"), &json!(1)));
    stage.no_more_events().await;
    publish(&stage, "a", "ok", 5).await?;
    wait_parked(&stage, "fails", 4).await?;
    assert_holds(&says(&stage, &["parked", "release", "fails", "--key", "a"])?, &["in order"]);
    assert_eq!(numbers(&mut stage, 4).await?, [11, 2, 3, 5]);
    wait_parked(&stage, "fails", 0).await?;
    publish(&stage, "a", "ok", 6).await?;
    assert_eq!(numbers(&mut stage, 1).await?, [6], "the key goes on");
    assert_eq!(says(&stage, &["parked"])?.trim(), "no parked messages");
    Ok(())
}

#[tokio::test]
async fn after_a_repaired_version_all_keys_are_released() -> Result<()> {
    let mut stage = Stage::new().await?;
    stage.host.component("echo", &tools::guest("fails")?)?;
    stage.host.manifest("echo", &never_by_itself(manifest_of("echo")))?;
    stage.host.start().await?;
    for n in 1..=6 {
        publish(&stage, if n % 2 == 0 { "a" } else { "b" }, "panic", n).await?;
    }
    wait_parked(&stage, "echo", 6).await?;
    let before = stage.status_of("echo").await?["version"].clone();
    stage.host.guest("echo")?;
    stage.wait_status("the other version serves", "echo", |entry| entry["version"] != before).await?;
    stage.no_more_events().await;
    // Only keys with a message that is parked for this reason; there are none, then there are both.
    assert_eq!(tells(&stage, &["parked", "release", "echo", "--all", "--reason", "gap"])?["count"], 0);
    assert_eq!(tells(&stage, &["parked", "release", "echo", "--all", "--reason", "exhausted"])?["count"], 2);
    let events = stage.events(6).await?;
    for key in ["a", "b"] {
        let of_key = events.iter().filter(|event| event.header("echo-key") == Some(key));
        let numbers = of_key.map(|event| Ok(event.json::<Value>()?["n"].as_u64())).collect::<Result<Vec<_>>>()?;
        assert!(numbers.len() == 3 && numbers.is_sorted(), "{key}: {numbers:?}");
    }
    wait_parked(&stage, "echo", 0).await
}

#[tokio::test]
async fn dropping_what_holds_a_key_frees_the_rest_and_dropping_a_key_frees_nothing() -> Result<()> {
    let mut stage = parked_key().await?;
    let id = tells(&stage, &["parked", "--reason", "exhausted"])?[0]["id"].to_string();
    says(&stage, &["parked", "drop", "fails", &id])?;
    assert_eq!(numbers(&mut stage, 2).await?, [2, 3]);
    wait_parked(&stage, "fails", 0).await?;
    for n in 5..25 {
        publish(&stage, "a", if n == 5 { "panic" } else { "ok" }, n).await?;
    }
    wait_parked(&stage, "fails", 20).await?;
    refuses(&stage, &["parked", "drop", "fails", "--key", "a"], 2, &["--yes"])?;
    let told = tells(&stage, &["parked", "drop", "fails", "--key", "a", "--yes"])?;
    assert_eq!((&told["count"], &told["busy"]), (&json!(20), &json!(0)));
    wait_parked(&stage, "fails", 0).await?;
    stage.no_more_events().await;
    publish(&stage, "a", "ok", 30).await?;
    assert_eq!(numbers(&mut stage, 1).await?, [30]);
    Ok(())
}

#[tokio::test]
async fn a_message_without_a_key_is_released_alone() -> Result<()> {
    let mut stage = Stage::new().await?;
    // A shared consumer has no state, and `fails` wants it; this one fails whatever it is given.
    stage.host.component("echo", &tools::guest("sleeps")?)?;
    stage.host.manifest("echo", &never_by_itself(manifest_of("echo").shared()))?;
    stage.host.start().await?;
    publish(&stage, "a", "ok", 1).await?;
    publish(&stage, "a", "ok", 2).await?;
    wait_parked(&stage, "echo", 2).await?;
    let before = stage.status_of("echo").await?["version"].clone();
    stage.host.guest("echo")?;
    stage.wait_status("the other version serves", "echo", |entry| entry["version"] != before).await?;
    publish(&stage, "a", "ok", 3).await?;
    assert_eq!(numbers(&mut stage, 1).await?, [3], "others go on");
    let parked = tells(&stage, &["parked"])?;
    assert_eq!(each(&parked, "key"), [Value::Null, Value::Null]);
    let second = parked.as_array().into_iter().flatten().find(|message| message["sequence"] == 2).context("it")?;
    let id = second["id"].to_string();
    let file = stage.host.path("payload").display().to_string();
    stage.host.write("payload", b"{\"do\":\"ok\",\"n\":22}")?;
    says(&stage, &["parked", "edit", "echo", &id, "--payload", &file])?;
    says(&stage, &["parked", "release", "echo", "--id", &id])?;
    assert_eq!(numbers(&mut stage, 1).await?, [22]);
    wait_parked(&stage, "echo", 1).await?;
    stage.no_more_events().await;
    assert_eq!(tells(&stage, &["parked", "drop", "echo", "--all"])?["count"], 1, "one needs no yes");
    wait_parked(&stage, "echo", 0).await
}

#[tokio::test]
async fn more_than_a_page_is_listed_exported_and_dropped_whole() -> Result<()> {
    const MESSAGES: u64 = 1_200;
    let mut stage = Stage::running_with("fails", never_by_itself).await?;
    let body = |n: u64| json!({"do": if n.is_multiple_of(1_100) { "panic" } else { "ok" }, "n": n}).to_string();
    // Key a holds 1,100 messages, key b 100.
    let outgoing = |n: u64| {
        let key = if n < 1_100 { "a" } else { "b" };
        pelton_tests::client::Outgoing::new(format!("in.{key}"), body(n))
    };
    stage.client.publish_all(&(0..MESSAGES).map(outgoing).collect::<Vec<_>>()).await?;
    wait_parked(&stage, "fails", MESSAGES).await?;
    let list = tells(&stage, &["parked", "--limit", "5000"])?;
    assert_eq!(each(&list, "sequence"), (1..=MESSAGES).map(Value::from).collect::<Vec<_>>());
    let exported = says(&stage, &["parked", "export"])?;
    assert_eq!(exported.lines().count() as u64, MESSAGES);
    assert_eq!(says(&stage, &["parked", "export", "--key", "b", "--limit", "7"])?.lines().count(), 7);
    let told = tells(&stage, &["parked", "drop", "fails", "--all", "--yes"])?;
    assert_eq!((&told["count"], &told["busy"]), (&json!(MESSAGES), &json!(0)));
    wait_parked(&stage, "fails", 0).await?;
    stage.no_more_events().await;
    Ok(())
}

#[tokio::test]
async fn a_paused_consumer_does_nothing_until_resumed_also_after_a_restart() -> Result<()> {
    let mut stage = Stage::running("fails").await?;
    publish(&stage, "a", "ok", 1).await?;
    assert_eq!(numbers(&mut stage, 1).await?, [1]);
    says(&stage, &["consumers", "pause", "fails", "--reason", "the database is being moved"])?;
    publish(&stage, "a", "ok", 2).await?;
    stage.no_more_events().await;
    let consumers = tells(&stage, &["consumers", "list"])?;
    assert_eq!(consumers[0]["holds"][0]["by"], "operator", "{consumers}");
    assert_holds(&says(&stage, &["consumers"])?, &["operator", "the database is being moved"]);
    assert_holds(&says(&stage, &["status"])?, &["paused by an operator", "the database is being moved"]);
    let text = says(&stage, &["explain", "fails", "a"])?;
    assert_holds(&text, &["paused by an operator", "the database is being moved", "consumers resume fails"]);
    stage.host.stop().await?;
    stage.host.start().await?;
    stage.no_more_events().await;
    assert_eq!(tells(&stage, &["consumers"])?[0]["holds"][0]["reason"], "the database is being moved");
    let resumed = tells(&stage, &["consumers", "resume", "fails"])?;
    assert_eq!(resumed["holds"][0]["by"], "operator");
    assert_eq!(numbers(&mut stage, 1).await?, [2]);
    assert_holds(&says(&stage, &["consumers", "resume", "fails"])?, &["neither paused nor halted"]);
    Ok(())
}

#[tokio::test]
async fn a_halted_consumer_says_why_and_goes_on_when_resumed() -> Result<()> {
    let mut stage = Stage::new().await?;
    stage.host.component("echo", &tools::guest("fails")?)?;
    stage.host.manifest("echo", &manifest_of("echo").on_exhausted("halt"))?;
    stage.host.start().await?;
    publish(&stage, "a", "panic", 1).await?;
    publish(&stage, "b", "ok", 2).await?;
    stage.wait_status("it halts", "echo", |entry| entry["phase"] == "halted").await?;
    let text = says(&stage, &["explain", "echo", "a"])?;
    assert_holds(&text, &["Consumer echo is halted: message 1", "failed 3 times", "asked to panic", "resume echo"]);
    let before = stage.status_of("echo").await?["version"].clone();
    stage.host.guest("echo")?;
    stage.wait_status("the other version serves", "echo", |entry| entry["version"] != before).await?;
    let resumed = tells(&stage, &["consumers", "resume", "echo"])?;
    assert!(resumed["halted"].to_string().contains("message 1"), "{resumed}");
    assert!(numbers(&mut stage, 1).await?.iter().all(|n| [1, 2].contains(n)));
    stage.wait_status("all is settled", "echo", |entry| entry["floor"] == 2 && entry["phase"] == "running").await?;
    Ok(())
}
