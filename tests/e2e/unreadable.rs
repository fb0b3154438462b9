//! Messages that no plug-in can be given: one dead letter each, and everyone else goes on.

use anyhow::Result;
use pelton_tests::client::Outgoing;
use pelton_tests::manifest::Manifest;

use crate::stage::{SOON, Stage};

/// The manifest's key rule and subscription, a message that does not keep to it, and a part of the reason.
const CASES: [(&str, &str, &str, &str); 7] = [
    ("subject_token = 3", "", "{\"n\":1}", "token 3"),
    ("header = \"customer\"", "", "{\"n\":1}", "customer"),
    ("json_pointer = \"/customer\"", "", "{\"n\":1}", "/customer"),
    ("json_pointer = \"/customer\"", "", "{\"customer\":{}}", "/customer"),
    ("json_pointer = \"/customer\"", "", "{\"customer\":\"\"}", "empty"),
    ("json_pointer = \"/customer\"", "", "not json", "JSON"),
    ("subject_token = 2", "payload = \"json\"", "{\"n\":", "JSON"),
];

#[tokio::test]
async fn a_message_without_its_key_or_its_json_becomes_a_dead_letter() -> Result<()> {
    for (key, subscription, payload, reason) in CASES {
        let change = |manifest: Manifest| manifest.key(key).subscription(subscription);
        let mut stage = Stage::running_with("ledger", change).await?;
        let sequence = stage.publish("bad", payload).await?;
        let letters = stage.host.wait_dead_letters("ledger", 1, SOON).await?;
        let letter = &letters[0];
        assert_eq!(
            (&letter["cause"], &letter["sequence"]),
            (&"unreadable".into(), &sequence.into()),
            "{key}: {letter}"
        );
        assert_eq!(letter["payload"], payload, "it is kept whole");
        assert!(letter["reason"].to_string().contains(reason), "{key}: {letter}");
        let sound = Outgoing::new("in.sound.sound", "{\"n\":1,\"customer\":\"sound\"}").header("customer", "sound");
        stage.client.publish(&sound).await?;
        assert_eq!(stage.event().await?.subject, "out.sound", "{key}");
    }
    Ok(())
}

#[tokio::test]
async fn the_plug_ins_own_complaint_about_a_payload_is_kept() -> Result<()> {
    let mut stage = Stage::running("ledger").await?;
    stage.publish("a", "not json").await?;
    stage.publish("a", "{\"n\":\"seven\"}").await?;
    stage.publish("a", "").await?;
    stage.ledger("a", 1).await?;
    assert_eq!(stage.ledger_events(1).await?[0].count, 1);
    let letters = stage.host.wait_dead_letters("ledger", 3, SOON).await?;
    assert!(letters.iter().all(|letter| letter["cause"] == "rejected"), "{letters:?}");
    Ok(())
}

#[tokio::test]
async fn a_payload_that_is_no_text_is_kept_in_hex() -> Result<()> {
    let stage = Stage::running("ledger").await?;
    stage.client.publish(&Outgoing::new("in.a", vec![0xff, 0x00, 0xfe])).await?;
    let letters = stage.host.wait_dead_letters("ledger", 1, SOON).await?;
    assert_eq!(letters[0]["payload_base64"], "/wD+", "{letters:?}");
    Ok(())
}

#[tokio::test]
async fn messages_without_a_key_are_handled_side_by_side() -> Result<()> {
    let mut stage = Stage::running_with("echo", Manifest::shared).await?;
    for n in 0..50 {
        stage.publish("x", &n.to_string()).await?;
    }
    let events = stage.events(50).await?;
    let mut numbers: Vec<u32> =
        events.iter().filter_map(|event| String::from_utf8_lossy(&event.payload).parse().ok()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..50).collect::<Vec<u32>>());
    assert!(events.iter().all(|event| event.header("echo-key").is_none()));
    Ok(())
}
