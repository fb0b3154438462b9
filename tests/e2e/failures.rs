//! Attempts that fail: what is retried, what is given up, and that nothing of a failed attempt remains.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use pelton_tests::host::HostOptions;
use pelton_tests::manifest::Manifest;
use serde_json::{Value, json};

use crate::stage::{SOON, Stage};

/// A behaviour of the guest `fails`, and how the message must end: cause, kind of the last attempt, attempts, a part of the reason.
type Case = (&'static str, &'static str, &'static str, u64, &'static str);

const CASES: [Case; 17] = [
    ("retry", "exhausted", "retry", 3, "asked to retry at attempt 3"),
    ("reject", "rejected", "reject", 1, "asked to reject"),
    ("error", "rejected", "reject", 1, "invalid digit"),
    ("panic", "exhausted", "trap", 3, "asked to panic"),
    ("spin", "exhausted", "timeout", 3, "200 ms"),
    ("oom", "exhausted", "", 3, ""),
    ("recurse", "exhausted", "trap", 3, "stack"),
    ("exit", "exhausted", "trap", 3, "exit"),
    ("big-value", "exhausted", "limit", 3, "state_value_bytes_max"),
    ("big-key", "exhausted", "limit", 3, "state_key_bytes_max"),
    ("many-puts", "exhausted", "limit", 3, "_max"),
    ("many-emits", "exhausted", "limit", 3, "_max"),
    ("big-event", "exhausted", "limit", 3, "_max"),
    ("big-list", "exhausted", "limit", 3, "_max"),
    ("emit-ungranted", "rejected", "reject", 1, "ungranted.subject"),
    ("bad-subject", "rejected", "reject", 1, "*"),
    ("reserved-header", "rejected", "reject", 1, "Nats-Msg-Id"),
];

async fn fails(stage: &Stage, key: &str, payload: &Value) -> Result<u64> {
    stage.publish(key, &payload.to_string()).await
}

#[tokio::test]
async fn every_way_to_fail_ends_as_it_should_and_leaves_nothing() -> Result<()> {
    let change = |manifest: Manifest| {
        manifest.section("[limits]", "timeout_ms = 200").emits("fails.out.>").on_exhausted("dead-letter")
    };
    let mut stage = Stage::running_with("fails", change).await?;
    // One key for each, with a sound message behind the failing one; and a key in no trouble.
    for (behaviour, ..) in CASES {
        fails(&stage, behaviour, &json!({"do": behaviour})).await?;
        fails(&stage, behaviour, &json!({"do": "ok"})).await?;
    }
    fails(&stage, "sound", &json!({"do": "ok"})).await?;
    let letters = stage.host.wait_dead_letters("fails", CASES.len(), SOON).await?;
    let by_key: BTreeMap<&str, &Value> =
        letters.iter().filter_map(|letter| Some((letter["key"].as_str()?, letter))).collect();
    for (behaviour, cause, kind, attempts, reason) in CASES {
        let letter = by_key.get(behaviour).with_context(|| format!("no dead letter of {behaviour}"))?;
        assert_eq!(letter["cause"], cause, "{behaviour}: {letter}");
        assert_eq!(letter["attempts"], attempts, "{behaviour}: {letter}");
        let last = letter["history"].as_array().and_then(|history| history.last()).context("a history")?;
        assert!(kind.is_empty() || last["kind"] == kind, "{behaviour}: {letter}");
        assert!(letter["reason"].to_string().contains(reason), "{behaviour}: {letter}");
    }
    for event in stage.events(CASES.len() + 1).await? {
        let body: Value = event.json()?;
        assert_eq!(
            (&body["do"], &body["applied"], &body["marked"]),
            (&json!("ok"), &json!(1), &json!(false)),
            "{body}"
        );
    }
    stage.no_more_events().await;
    Ok(())
}

#[tokio::test]
async fn what_a_plug_in_may_survive_is_applied() -> Result<()> {
    let mut stage = Stage::running("fails").await?;
    for behaviour in ["retry-until-attempt-3", "panic-once", "stdout-flood", "log-flood", "emit-ungranted-caught"] {
        fails(&stage, behaviour, &json!({"do": behaviour})).await?;
        let body: Value = stage.event().await?.json()?;
        let attempt = match behaviour {
            "retry-until-attempt-3" => 3,
            "panic-once" => 2,
            _ => 1,
        };
        assert_eq!(
            (&body["do"], &body["attempt"], &body["applied"]),
            (&json!(behaviour), &json!(attempt), &json!(1)),
            "{body}"
        );
        if behaviour == "emit-ungranted-caught" {
            assert!(body["error"].to_string().contains("ungranted.caught"), "{body}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_is_set_aside_lets_its_key_go_on_and_comes_back_without_another_attempt() -> Result<()> {
    let change = |manifest: Manifest| manifest.section("[park]", "delay_ms = 50");
    let mut stage = Stage::running_with("fails", change).await?;
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    fails(&stage, "parked", &json!({"do": "park", "until_ms": now_ms + 3_000, "n": 1})).await?;
    fails(&stage, "parked", &json!({"do": "ok", "n": 2})).await?;
    fails(&stage, "parked", &json!({"do": "ok", "n": 3})).await?;
    let mut order = Vec::new();
    for event in stage.events(3).await? {
        let body: Value = event.json()?;
        assert_eq!(body["attempt"], 1, "parking is no attempt: {body}");
        order.push(body["n"].as_u64().unwrap_or_default());
    }
    assert_eq!(order, [2, 3, 1]);
    Ok(())
}

#[tokio::test]
async fn what_is_parked_for_too_long_is_given_up() -> Result<()> {
    let change = |manifest: Manifest| manifest.section("[park]", "delay_ms = 20\nlongest_ms = 200");
    let mut stage = Stage::running_with("fails", change).await?;
    fails(&stage, "a", &json!({"do": "park"})).await?;
    fails(&stage, "a", &json!({"do": "ok", "n": 2})).await?;
    let letters = stage.host.wait_dead_letters("fails", 1, SOON).await?;
    assert_eq!(letters[0]["cause"], "parked-too-long", "{letters:?}");
    assert!(letters[0]["reason"].to_string().contains("asked to park"), "{letters:?}");
    let body: Value = stage.event().await?.json()?;
    assert_eq!((&body["n"], &body["applied"]), (&json!(2), &json!(1)));
    Ok(())
}

#[tokio::test]
async fn a_message_in_retry_holds_up_its_key_only_and_is_applied_once() -> Result<()> {
    let mut stage = Stage::running("ledger").await?;
    stage.publish("a", "{\"n\":1,\"fails\":2}").await?;
    stage.publish("a", "{\"n\":2}").await?;
    stage.publish("a", "{\"n\":3,\"poison\":true}").await?;
    stage.publish("a", "{\"n\":4}").await?;
    let events = stage.ledger_events(3).await?;
    let seen: Vec<(u64, u64)> = events.iter().map(|event| (event.n, event.count)).collect();
    assert_eq!(seen, [(1, 1), (2, 2), (4, 3)]);
    stage.host.wait_dead_letters("ledger", 1, SOON).await?;
    stage
        .wait_status("the retries are counted", "ledger", |entry| entry["retries"] == 2 && entry["dead_letters"] == 1)
        .await?;
    Ok(())
}

#[tokio::test]
async fn dead_letters_and_parked_messages_survive_a_kill() -> Result<()> {
    let mut stage = Stage::running_with("fails", |manifest| manifest.section("[park]", "delay_ms = 50")).await?;
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    fails(&stage, "dead", &json!({"do": "reject"})).await?;
    fails(&stage, "parked", &json!({"do": "park", "until_ms": now_ms + 3_000, "n": 1})).await?;
    fails(&stage, "parked", &json!({"do": "ok", "n": 2})).await?;
    fails(&stage, "sound", &json!({"do": "ok", "n": 3})).await?;
    stage.host.wait_dead_letters("fails", 1, SOON).await?;
    stage.events(2).await?;
    stage.host.kill()?;
    stage.host.start().await?;
    assert_eq!(stage.host.dead_letters("fails").await?.len(), 1);
    let body: Value = stage.event().await?.json()?;
    assert_eq!((&body["n"], &body["applied"]), (&json!(1), &json!(2)), "it comes behind what went on without it");
    stage.no_more_events().await;
    assert_eq!(stage.host.dead_letters("fails").await?.len(), 1, "it is given up once");
    Ok(())
}

#[tokio::test]
async fn a_plug_in_can_not_sleep() -> Result<()> {
    let stage = Stage::running_with("sleeps", |manifest| manifest.on_exhausted("dead-letter")).await?;
    stage.publish("a", "x").await?;
    let letters = stage.host.wait_dead_letters("sleeps", 1, SOON).await?;
    assert!(letters[0]["reason"].to_string().contains("can't sleep"), "{letters:?}");
    Ok(())
}

#[tokio::test]
async fn what_was_handed_over_while_a_plug_in_was_quick_holds_up_nobody_when_it_is_slow() -> Result<()> {
    const SLOW: usize = 60;
    let extra = "[limits]\nexecutor_threads = 2".to_owned();
    let mut stage = Stage::with(|options| HostOptions { extra, ..options }).await?;
    for guest in ["fails", "ledger"] {
        stage.host.guest(guest)?;
    }
    let noisy = Manifest::new("fails.wasm", "IN", "in.noisy.*").key("subject_token = 3").emits("out.>");
    let noisy = noisy.section("[limits]", "timeout_ms = 300").section("[config]", "out = \"out\"");
    let noisy = noisy.top("isolation = \"reuse\"").quick_retries(1).on_exhausted("dead-letter");
    stage.host.manifest("noisy", &noisy)?;
    let quiet = Manifest::new("ledger.wasm", "IN", "in.quiet").emits("out.>");
    stage.host.manifest("quiet", &quiet.section("[config]", "out = \"out\""))?;
    stage.host.start().await?;
    // The host learns that attempts are short.
    for n in 0..1_000 {
        fails(&stage, &format!("noisy.{n}"), &json!({"do": "ok"})).await?;
    }
    stage.events(1_000).await?;
    for n in 0..SLOW {
        fails(&stage, &format!("noisy.{n}"), &json!({"do": "spin"})).await?;
    }
    stage.wait_status("it is slow", "noisy", |entry| entry["running"].as_u64() >= Some(2)).await?;
    stage.ledger("quiet", 1).await?;
    stage.ledger_events(1).await?;
    let done = stage.status_of("noisy").await?["dead_letters"].as_u64().context("a number")?;
    assert!(done < 20, "{done} of {SLOW} went first");
    Ok(())
}
