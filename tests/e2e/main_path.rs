//! From a published message to its event: ids, headers, order, duplicates.

use std::time::Duration;

use anyhow::Result;
use pelton_tests::checker::{Checker, Published};
use pelton_tests::client::Outgoing;
use pelton_tests::load::ledger_message;
use pelton_tests::random::{Random, Zipf};

use crate::stage::Stage;

#[tokio::test]
async fn an_event_carries_where_it_came_from() -> Result<()> {
    let mut stage = Stage::running("ledger").await?;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let message =
        ledger_message("in.a".to_owned(), "order-7", 1, 64).header("traceparent", trace).header("tracestate", "x=1");
    let sequence = stage.client.publish(&message).await?;
    let event = stage.event().await?;
    assert_eq!(event.subject, "out.a");
    assert_eq!(event.header("traceparent"), Some(trace));
    assert_eq!(event.header("tracestate"), Some("x=1"));
    assert_eq!(event.header("pelton-causation-id"), Some("order-7"));
    assert_eq!(event.header("pelton-correlation-id"), Some("order-7"));
    assert!(event.id().is_some_and(|id| id.contains(&sequence.to_string())), "{event:?}");
    let body: serde_json::Value = event.json()?;
    assert_eq!((body["id"].as_str(), body["sequence"].as_u64()), (Some("order-7"), Some(sequence)));
    Ok(())
}

#[tokio::test]
async fn a_correlation_id_is_handed_on() -> Result<()> {
    let mut stage = Stage::running("ledger").await?;
    let message = ledger_message("in.a".to_owned(), "order-8", 1, 64).header("pelton-correlation-id", "journey-1");
    stage.client.publish(&message).await?;
    let event = stage.event().await?;
    assert_eq!(event.header("pelton-correlation-id"), Some("journey-1"));
    assert_eq!(event.header("pelton-causation-id"), Some("order-8"));
    Ok(())
}

#[tokio::test]
async fn skewed_keys_with_duplicates_keep_order_and_count_once() -> Result<()> {
    let mut stage = Stage::running("ledger").await?;
    let (zipf, mut random) = (Zipf::new(40, 1.1), Random::new(11));
    let (mut checker, mut numbers, mut messages) = (Checker::default(), [0_u64; 40], Vec::<Outgoing>::new());
    for _ in 0..5_000 {
        if random.chance(0.1) && !messages.is_empty() {
            let place = usize::try_from(random.between(0, messages.len() as u64))?;
            messages.push(messages[place].clone());
            continue;
        }
        let place = zipf.draw(&mut random);
        numbers[place] += 1;
        let (key, n) = (format!("k{place}"), numbers[place]);
        let id = format!("{key}-{n}");
        messages.push(ledger_message(format!("in.{key}"), &id, n, 100));
        checker.published(Published { key, n, id });
    }
    stage.client.publish_all(&messages).await?;
    let fresh = checker.missing();
    for event in stage.events(fresh).await? {
        checker.came_out(&event)?;
    }
    stage.no_more_events().await;
    let verdict = checker.verdict();
    assert_eq!(verdict.violations.total(), 0, "{:?}", verdict.details);
    Ok(())
}

#[tokio::test]
async fn a_known_id_is_skipped_also_after_a_restart() -> Result<()> {
    let mut stage = Stage::running("ledger").await?;
    stage.ledger("a", 1).await?;
    stage.event().await?;
    stage.host.kill()?;
    // JetStream's own window is shorter than a restart.
    tokio::time::sleep(Duration::from_millis(150)).await;
    stage.ledger("a", 1).await?;
    stage.ledger("a", 2).await?;
    stage.host.start().await?;
    assert_eq!(stage.ledger_events(1).await?[0].count, 2);
    stage.wait_status("the duplicate is counted", "ledger", |consumer| consumer["duplicates"] == 1).await?;
    stage.no_more_events().await;
    Ok(())
}

#[tokio::test]
async fn the_id_is_taken_from_where_the_manifest_says() -> Result<()> {
    for (rule, header, payload) in [
        ("header = \"event-id\"", Some("event-id"), "{\"n\":1}"),
        ("json_pointer = \"/event/id\"", None, "{\"n\":1,\"event\":{\"id\":\"e1\"}}"),
    ] {
        let mut stage = Stage::running_with("ledger", |manifest| manifest.section("[id]", rule)).await?;
        for _ in 0..2 {
            let message = Outgoing::new("in.a", payload);
            stage.client.publish(&header.map_or(message.clone(), |name| message.header(name, "e1"))).await?;
        }
        let body: serde_json::Value = stage.event().await?.json()?;
        assert_eq!(body["id"], "e1", "{rule}");
        stage.wait_status("the duplicate is counted", "ledger", |consumer| consumer["duplicates"] == 1).await?;
        stage.no_more_events().await;
    }
    Ok(())
}

#[tokio::test]
async fn the_key_is_taken_from_where_the_manifest_says() -> Result<()> {
    let message =
        Outgoing::new("in.token.deep", "{\"n\":1,\"customer\":{\"id\":\"pointed\"}}").header("customer", "headed");
    for (rule, key) in [
        ("subject_token = 3", "deep"),
        ("header = \"customer\"", "headed"),
        ("json_pointer = \"/customer/id\"", "pointed"),
    ] {
        let mut stage = Stage::running_with("ledger", |manifest| manifest.key(rule)).await?;
        stage.client.publish(&message.clone().id("m")).await?;
        let body: serde_json::Value = stage.event().await?.json()?;
        assert_eq!(body["key"], key, "{rule}");
    }
    Ok(())
}

#[tokio::test]
async fn several_consumers_of_one_stream_work_side_by_side() -> Result<()> {
    let mut stage = Stage::new().await?;
    stage.consumer("first", "ledger", |manifest| manifest)?;
    stage.consumer("second", "ledger", |manifest| manifest)?;
    stage.host.start().await?;
    stage.ledger("a", 1).await?;
    let events = stage.events(2).await?;
    assert_ne!(events[0].id(), events[1].id(), "the consumer is part of the event's id");
    let names = stage.host.status().await?;
    assert_eq!(names["consumers"].as_array().map(Vec::len), Some(2));
    stage
        .wait_status("nothing is left to do", "second", |consumer| consumer["pending"] == 0 && consumer["held"] == 0)
        .await?;
    Ok(())
}
