//! What a plug-in sees and what its effects come to: the message as it was published, state with its scope, marks.

use anyhow::Result;
use pelton_tests::client::Outgoing;
use pelton_tests::manifest::Manifest;
use serde_json::{Value, json};

use crate::stage::Stage;

#[tokio::test]
async fn a_plug_in_sees_the_message_as_it_was_published() -> Result<()> {
    let stage = Stage::running_with("echo", |manifest| manifest.section("[park]", "delay_ms = 10")).await;
    let mut stage = stage?;
    let payload: Vec<u8> = (0..=255).collect();
    let message =
        Outgoing::new("in.k1.more", payload.clone()).header("x-one", "1").header("X-Two", "zwei: ä").id("the-id");
    let sequence = stage.client.publish(&message).await?;
    let event = stage.event().await?;
    assert_eq!(event.payload, payload);
    for (name, value) in [
        ("x-one", "1"),
        ("X-Two", "zwei: ä"),
        ("echo-id", "the-id"),
        ("echo-subject", "in.k1.more"),
        ("echo-key", "k1"),
        ("echo-sequence", &sequence.to_string()),
        ("echo-attempt", "1"),
        ("echo-consumer", "echo"),
    ] {
        assert_eq!(event.header(name), Some(value), "{name}");
    }
    let version = stage.status_of("echo").await?["version"].as_str().unwrap_or_default().to_owned();
    assert_eq!(event.header("echo-version"), Some(version.as_str()));
    Ok(())
}

#[tokio::test]
async fn without_a_message_id_the_stream_and_sequence_are_the_id() -> Result<()> {
    let mut stage = Stage::running("echo").await?;
    let sequence = stage.publish("a", "x").await?;
    assert_eq!(stage.event().await?.header("echo-id"), Some(format!("IN:{sequence}").as_str()));
    Ok(())
}

#[tokio::test]
async fn a_plug_in_reads_its_config() -> Result<()> {
    let mut stage = Stage::new().await?;
    stage.host.guest("echo")?;
    let manifest = Manifest::new("echo.wasm", "IN", "in.>").emits("out.>");
    let config =
        "out = \"out.x\"\nnames = \"text,whole,part,yes,none\"\ntext = \"a b\"\nwhole = 1000\npart = 0.5\nyes = true";
    stage.host.manifest("echo", &manifest.section("[config]", config))?;
    stage.host.start().await?;
    stage.publish("a", "x").await?;
    let event = stage.event().await?;
    for (name, value) in
        [("text", Some("a b")), ("whole", Some("1000")), ("part", Some("0.5")), ("yes", Some("true")), ("none", None)]
    {
        assert_eq!(event.header(&format!("echo-config-{name}")), value, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn state_is_shared_by_all_keys_only_if_the_manifest_says_so() -> Result<()> {
    for (scope, expected) in [("consumer", (1..=30).collect::<Vec<u64>>()), ("key", vec![1; 30])] {
        let change = |manifest: Manifest| manifest.section("[state]", &format!("scope = \"{scope}\""));
        let mut stage = Stage::running_with("shared-counter", change).await?;
        for n in 0..30 {
            stage.publish(&format!("k{n}"), "x").await?;
        }
        let events = stage.events(30).await?;
        let mut counts: Vec<u64> = Vec::new();
        for event in &events {
            counts.push(event.json::<Value>()?["count"].as_u64().unwrap_or_default());
        }
        assert_eq!(counts, expected, "{scope}");
    }
    Ok(())
}

#[tokio::test]
async fn a_business_id_has_one_effect_until_its_mark_is_forgotten() -> Result<()> {
    let mut stage = Stage::running("business-ids").await?;
    let answer = |body: &Value| (body["outcome"].clone(), body["count"].clone());
    for (payload, outcome, count) in [
        (json!({"request": "r1"}), "applied", 1),
        (json!({"request": "r1"}), "repeated", 1),
        // A failed attempt leaves no mark: the second one still applies it.
        (json!({"request": "r2", "fails": 1}), "applied", 2),
        (json!({"request": "r2"}), "repeated", 2),
        (json!({"request": "r3", "forget_ms": 1}), "applied", 3),
    ] {
        stage.publish("a", &payload.to_string()).await?;
        let body: Value = stage.event().await?.json()?;
        assert_eq!(answer(&body), (json!(outcome), json!(count)), "{payload}");
    }
    // Time passes for the host as it does for us: soon its clock is past the mark's end.
    let mut last = json!("repeated");
    while last == "repeated" {
        stage.publish("a", "{\"request\":\"r3\"}").await?;
        last = stage.event().await?.json::<Value>()?["outcome"].clone();
    }
    assert_eq!(last, "applied");
    // Another key has marks of its own.
    stage.publish("b", "{\"request\":\"r1\"}").await?;
    assert_eq!(answer(&stage.event().await?.json()?), (json!("applied"), json!(1)));
    Ok(())
}
