//! What the command line shows of a running host.

use anyhow::Result;
use pelton_tests::host::{Host, HostOptions};
use serde_json::Value;

use crate::stage::{SOON, Stage, manifest_of};

#[tokio::test]
async fn check_accepts_what_run_accepts() -> Result<()> {
    let host = Host::prepare(HostOptions::on("nats://127.0.0.1:1"))?;
    host.guest("ledger")?;
    host.manifest("ledger", &manifest_of("ledger"))?;
    let output = host.run(&["check"])?;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 consumer"), "{output:?}");
    Ok(())
}

#[tokio::test]
async fn status_shows_what_is_going_on() -> Result<()> {
    let mut stage = Stage::running("ledger").await?;
    for n in 1..=3 {
        stage.ledger("a", n).await?;
    }
    stage.events(3).await?;
    stage.wait_status("all is settled", "ledger", |entry| entry["floor"] == 3 && entry["outbox_pending"] == 0).await?;
    let output = stage.host.run(&["status", "--json"])?;
    assert_eq!(output.status.code(), Some(0));
    let status: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(status["ready"]["ok"], true);
    let ledger = &status["consumers"][0];
    assert_eq!(
        (&ledger["name"], &ledger["applied"], &ledger["published"], &ledger["held"], &ledger["phase"]),
        (&"ledger".into(), &3.into(), &3.into(), &0.into(), &"running".into())
    );
    let text = String::from_utf8(stage.host.run(&["status"])?.stdout)?;
    assert!(text.contains("ledger") && text.contains("running") && text.contains("IN"), "{text}");
    Ok(())
}

#[tokio::test]
async fn without_a_host_status_fails_and_says_what_to_do() -> Result<()> {
    let host = Host::prepare(HostOptions::on("nats://127.0.0.1:1"))?;
    let output = host.run(&["status"])?;
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr)?;
    assert!(text.contains("no host answers") && text.contains("pelton run"), "{text}");
    Ok(())
}

#[tokio::test]
async fn dead_letters_are_listed_and_shown_whole() -> Result<()> {
    let stage = Stage::running_with("ledger", |manifest| manifest.key("header = \"customer\"")).await?;
    let sequence = stage.publish("a", "{\"n\":1}").await?;
    stage.host.wait_dead_letters("ledger", 1, SOON).await?;
    let list = String::from_utf8(stage.host.run(&["dead-letters"])?.stdout)?;
    assert!(list.contains("ledger") && list.contains("unreadable") && list.contains("customer"), "{list}");
    let json: Value = serde_json::from_slice(&stage.host.run(&["dead-letters", "--json"])?.stdout)?;
    assert_eq!(json[0]["sequence"], sequence);
    let one = String::from_utf8(stage.host.run(&["dead-letters", "ledger", &sequence.to_string()])?.stdout)?;
    assert!(one.contains("in.a") && one.contains("{\"n\":1}"), "{one}");
    let none = stage.host.run(&["dead-letters", "ledger", "99"])?;
    assert_eq!(none.status.code(), Some(1));
    Ok(())
}

#[tokio::test]
async fn health_is_told_over_http() -> Result<()> {
    let stage = Stage::running("ledger").await?;
    for (path, status) in [("/livez", 200), ("/readyz", 200), ("/status", 200), ("/nothing", 404)] {
        assert_eq!(stage.host.get(path).await?.status, status, "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn top_without_a_terminal_names_what_tells_the_same() -> Result<()> {
    let host = Host::prepare(HostOptions::on("nats://127.0.0.1:1"))?;
    let output = host.run(&["top"])?;
    let told = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("status --json"), "{told}");
    Ok(())
}
