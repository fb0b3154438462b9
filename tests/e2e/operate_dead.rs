//! What an operator does with dead letters, on the command line: look, replay, drop, export.

use std::thread;

use anyhow::Result;
use pelton_tests::tools;
use serde_json::{Value, json};

use crate::operate::{assert_holds, each, numbers, publish, refuses, says, tells, wait_parked};
use crate::stage::{SOON, Stage, manifest_of};

/// A consumer of `fails` that has rejected messages 1 and 3 of key `a` and 2 of key `b`, and could not read message 4.
async fn rejected() -> Result<Stage> {
    let stage = Stage::running_with("fails", |manifest| manifest.subscription("payload = \"json\"")).await?;
    publish(&stage, "a", "reject", 1).await?;
    publish(&stage, "b", "reject", 2).await?;
    publish(&stage, "a", "reject", 3).await?;
    stage.host.wait_dead_letters("fails", 3, SOON).await?;
    stage.publish("b", "no JSON").await?;
    stage.host.wait_dead_letters("fails", 4, SOON).await?;
    Ok(stage)
}

#[tokio::test]
async fn dead_letters_are_found_by_what_is_known_of_them() -> Result<()> {
    let stage = rejected().await?;
    let list = tells(&stage, &["dead-letters"])?;
    assert_eq!(each(&list, "sequence"), [1, 2, 3, 4]);
    assert_eq!(tells(&stage, &["dead-letters", "list", "fails"])?, list);
    let newest = tells(&stage, &["dead-letters", "list", "--newest", "--limit", "3"])?;
    let times = each(&newest, "at").iter().map(Value::to_string).collect::<Vec<_>>();
    assert!(times.len() == 3 && times.is_sorted_by(|a, b| a >= b), "{times:?}");
    assert_eq!(newest[0]["sequence"], 4, "{times:?}");
    for (arguments, sequences) in [
        (&["--key", "a"][..], &[1, 3][..]),
        (&["--reason", "unreadable"], &[4]),
        (&["--reason", "rejected", "--key", "b"], &[2]),
        (&["--older-than", "1h"], &[]),
        (&["--older-than", "1ms", "--limit", "3"], &[1, 2, 3]),
    ] {
        assert_eq!(each(&tells(&stage, &[&["dead-letters", "list"], arguments].concat())?, "sequence"), sequences);
    }
    let shown = tells(&stage, &["dead-letters", "show", "fails", "3"])?;
    assert_eq!(shown, list[2]);
    assert_holds(
        &says(&stage, &["dead-letters", "show", "fails", "3"])?,
        &["asked to reject", "{\"do\":\"reject\",\"n\":3}"],
    );
    assert_eq!(says(&stage, &["dead-letters", "show", "fails", "4", "--raw"])?, "no JSON");
    let lines = says(&stage, &["dead-letters", "export", "fails"])?;
    let exported = lines.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    assert_eq!(json!(exported), list);
    Ok(())
}

#[tokio::test]
async fn a_dead_letter_is_replayed_with_another_payload_under_its_own_id() -> Result<()> {
    let mut stage = rejected().await?;
    let id = tells(&stage, &["dead-letters", "show", "fails", "3"])?["id"].clone();
    stage.host.write("payload", b"{\"do\":\"ok\",\"n\":33}")?;
    let file = stage.host.path("payload").display().to_string();
    says(&stage, &["dead-letters", "replay", "fails", "3", "--payload", &file])?;
    let event: Value = stage.event().await?.json()?;
    assert_eq!((&event["n"], &event["id"], &event["applied"]), (&json!(33), &id, &json!(1)), "{event}");
    assert_eq!(each(&tells(&stage, &["dead-letters"])?, "sequence"), [1, 2, 4]);
    refuses(&stage, &["dead-letters", "replay", "fails", "3"], 1, &["no dead letter with sequence 3"])?;
    // One that is not mended becomes a dead letter again, with its attempts counted on.
    says(&stage, &["dead-letters", "replay", "fails", "1"])?;
    pelton_tests::wait::until("it is given up again", SOON, || async {
        let letters = stage.host.dead_letters("fails").await?;
        Ok(letters.iter().any(|letter| letter["sequence"] == 1 && letter["attempts"] == 2).then_some(()))
    })
    .await?;
    wait_parked(&stage, "fails", 0).await
}

#[tokio::test]
async fn one_that_could_not_be_read_is_replayed_once_it_can_be_and_has_its_key_then() -> Result<()> {
    let mut stage = Stage::running_with("fails", |manifest| {
        manifest.key("json_pointer = \"/customer\"").section("[id]", "json_pointer = \"/n\"")
    })
    .await?;
    stage.publish("x", "no JSON").await?;
    stage.publish("x", r#"{"do":"reject","n":7,"customer":"alice"}"#).await?;
    stage.host.wait_dead_letters("fails", 2, SOON).await?;
    refuses(&stage, &["dead-letters", "replay", "fails", "1"], 1, &["still can't be read", "--payload FILE"])?;
    refuses(&stage, &["dead-letters", "replay", "fails", "--all"], 1, &["1 can't be read and were left"])?;
    stage.host.write("payload", br#"{"do":"ok","n":8,"customer":"bob"}"#)?;
    let file = stage.host.path("payload").display().to_string();
    says(&stage, &["dead-letters", "replay", "fails", "1", "--payload", &file])?;
    let event = stage.event().await?;
    assert!(event.subject.ends_with(".bob"), "its key is known now: {}", event.subject);
    assert_eq!(event.json::<Value>()?["id"], "8");
    stage.publish("x", r#"{"do":"ok","n":8,"customer":"bob"}"#).await?;
    stage.wait_status("its id is used up", "fails", |entry| entry["duplicates"] == 1).await?;
    Ok(())
}

#[tokio::test]
async fn dead_letters_of_a_key_and_all_others_are_replayed_in_order_once_the_plug_in_is_repaired() -> Result<()> {
    const MESSAGES: u64 = 1_100;
    let mut stage = Stage::new().await?;
    stage.host.component("echo", &tools::guest("fails")?)?;
    stage.host.manifest("echo", &manifest_of("echo"))?;
    stage.host.start().await?;
    let outgoing = |n: u64| {
        let body = json!({"do": "reject", "n": n}).to_string();
        pelton_tests::client::Outgoing::new(format!("in.k{}", n % 3), body)
    };
    stage.client.publish_all(&(1..=MESSAGES).map(outgoing).collect::<Vec<_>>()).await?;
    stage.wait_status("all are given up", "echo", |entry| entry["dead_letters"] == MESSAGES).await?;
    let before = stage.status_of("echo").await?["version"].clone();
    stage.host.guest("echo")?;
    stage.wait_status("the other version serves", "echo", |entry| entry["version"] != before).await?;
    let of_key = MESSAGES / 3;
    assert_eq!(tells(&stage, &["dead-letters", "replay", "echo", "--key", "k0"])?["count"], of_key);
    let count = usize::try_from(of_key)?;
    assert_eq!(numbers(&mut stage, count).await?, (1..=of_key).map(|n| n * 3).collect::<Vec<_>>());
    let rest = MESSAGES - of_key;
    assert_eq!(tells(&stage, &["dead-letters", "replay", "echo", "--all", "--reason", "rejected"])?["count"], rest);
    let mut last = std::collections::BTreeMap::new();
    for n in numbers(&mut stage, usize::try_from(rest)?).await? {
        let before = last.insert(n % 3, n).unwrap_or_default();
        assert!(n > before, "{n} of its key came after {before}");
    }
    assert_eq!(says(&stage, &["dead-letters"])?.trim(), "no dead letters");
    stage.no_more_events().await;
    Ok(())
}

#[tokio::test]
async fn a_dead_letter_that_many_replay_at_once_is_applied_once() -> Result<()> {
    let mut stage = Stage::new().await?;
    stage.host.component("echo", &tools::guest("fails")?)?;
    stage.host.manifest("echo", &manifest_of("echo"))?;
    stage.host.start().await?;
    for n in 1..=40 {
        publish(&stage, &format!("k{n}"), "reject", n).await?;
    }
    stage.host.wait_dead_letters("echo", 40, SOON).await?;
    let before = stage.status_of("echo").await?["version"].clone();
    stage.host.guest("echo")?;
    stage.wait_status("the other version serves", "echo", |entry| entry["version"] != before).await?;
    let host = &stage.host;
    let told: Vec<Value> = thread::scope(|scope| {
        let replay = || -> Result<Value> {
            let output = host.run(&["dead-letters", "replay", "echo", "--all", "--json"])?;
            Ok(serde_json::from_slice(&output.stdout)?)
        };
        let operators: Vec<_> = (0..4).map(|_| scope.spawn(replay)).collect();
        operators.into_iter().map(|operator| operator.join().expect("no panic")).collect::<Result<_>>()
    })?;
    assert_eq!(told.iter().filter_map(|told| told["count"].as_u64()).sum::<u64>(), 40, "{told:?}");
    let mut all = numbers(&mut stage, 40).await?;
    all.sort_unstable();
    assert_eq!(all, (1..=40).collect::<Vec<_>>());
    stage.no_more_events().await;
    wait_parked(&stage, "echo", 0).await
}

#[tokio::test]
async fn dropped_dead_letters_are_gone_also_after_a_restart() -> Result<()> {
    let mut stage = rejected().await?;
    says(&stage, &["dead-letters", "drop", "fails", "4"])?;
    refuses(&stage, &["dead-letters", "drop", "fails", "--key", "a"], 2, &["--yes"])?;
    assert_eq!(tells(&stage, &["dead-letters", "drop", "fails", "--key", "a", "--yes"])?["count"], 2);
    assert_eq!(each(&tells(&stage, &["dead-letters"])?, "sequence"), [2]);
    stage.host.stop().await?;
    stage.host.start().await?;
    assert_eq!(each(&tells(&stage, &["dead-letters"])?, "sequence"), [2]);
    assert_eq!(tells(&stage, &["dead-letters", "drop", "fails", "--all"])?["count"], 1, "one needs no yes");
    assert_eq!(says(&stage, &["dead-letters"])?.trim(), "no dead letters");
    stage.no_more_events().await;
    Ok(())
}
