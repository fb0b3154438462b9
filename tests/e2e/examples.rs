//! The examples, as their READMEs tell them: examples/tickets and examples/retail.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use pelton_tests::client::{Client, Outgoing};
use pelton_tests::demo::{self, DemoOptions};
use pelton_tests::host::{Host, HostOptions};
use pelton_tests::nats::NatsServer;
use pelton_tests::tools;
use serde_json::{Value, json};

use crate::stage::SOON;

/// A running host with the booking system, and a client.
async fn tickets(change: impl FnOnce(String) -> String) -> Result<(NatsServer, Host, Client)> {
    let nats = NatsServer::start().await?;
    let mut host = Host::prepare(HostOptions::on(&nats.url()))?;
    host.component("tickets", &tools::example("tickets")?)?;
    host.example_manifest("examples/tickets", "tickets")?;
    let file = "consumers/tickets.toml";
    let text = change(std::fs::read_to_string(host.path(file))?);
    host.write(file, text.as_bytes())?;
    host.start().await?;
    let client = nats.client().await?;
    Ok((nats, host, client))
}

fn command(show: &str, name: &str, body: &Value) -> Outgoing {
    Outgoing::new(format!("tickets.{show}.{name}"), body.to_string())
}

#[tokio::test]
async fn seats_are_sold_once_as_the_readme_tells() -> Result<()> {
    let (_nats, _host, client) = tickets(|text| text).await?;
    let claim = |request: &str, customer: &str| json!({"request": request, "seat": 7, "customer": customer});
    for message in [
        command("hamlet", "open", &json!({"request": "r1", "seats": 50})),
        command("hamlet", "reserve", &claim("r2", "ada")),
        command("hamlet", "reserve", &claim("r3", "bob")),
        command("hamlet", "book", &claim("r4", "ada")),
        command("hamlet", "book", &claim("r4", "ada")),
        command("hamlet", "cancel", &claim("r5", "ada")),
    ] {
        client.publish(&message).await?;
    }
    let mut outcomes = Vec::new();
    for event in client.read("TICKET_EVENTS").take(6, SOON).await? {
        let body: Value = event.json()?;
        assert_eq!((&body["show"], event.subject.as_str()), (&json!("hamlet"), "ticket-events.hamlet"));
        outcomes.push((body["request"].clone(), body["outcome"].clone(), body["reason"].clone()));
    }
    let expected = [
        ("r1", "opened", Value::Null),
        ("r2", "reserved", Value::Null),
        ("r3", "refused", json!("seat-reserved")),
        ("r4", "booked", Value::Null),
        ("r4", "repeated", Value::Null),
        ("r5", "cancelled", Value::Null),
    ];
    assert_eq!(outcomes, expected.map(|(request, outcome, reason)| (json!(request), json!(outcome), reason)));
    Ok(())
}

#[tokio::test]
async fn a_reservation_that_is_over_is_told_and_the_seat_is_free() -> Result<()> {
    let (_nats, _host, client) = tickets(|text| text.replace("hold_minutes = 10", "hold_minutes = 0")).await?;
    client.publish(&command("lear", "open", &json!({"request": "r1"}))).await?;
    client.publish(&command("lear", "reserve", &json!({"request": "r2", "seat": 1, "customer": "ada"}))).await?;
    let mut reader = client.read("TICKET_EVENTS");
    reader.take(2, SOON).await?;
    client.publish(&command("lear", "reserve", &json!({"request": "r3", "seat": 1, "customer": "bob"}))).await?;
    let mut outcomes = Vec::new();
    for event in reader.take(2, SOON).await? {
        let body: Value = event.json()?;
        outcomes.push((body["outcome"].clone(), body["customer"].clone()));
    }
    assert_eq!(outcomes, [(json!("expired"), json!("ada")), (json!("reserved"), json!("bob"))]);
    Ok(())
}

#[tokio::test]
async fn two_hundred_customers_race_for_every_seat_and_each_is_given_once() -> Result<()> {
    let (_nats, host, client) = tickets(|text| text).await?;
    let mut messages = Vec::new();
    for show in ["a", "b", "c"] {
        messages.push(command(show, "open", &json!({"request": "open", "seats": 20})));
        for customer in 0..200 {
            let body = json!({"request": format!("r{customer}"), "seat": customer % 20 + 1, "customer": format!("c{customer}")});
            messages.push(command(show, "reserve", &body));
        }
    }
    messages.push(command("a", "demolish", &json!({})));
    client.publish_all(&messages).await?;
    let mut holders: BTreeMap<(String, u64), u64> = BTreeMap::new();
    for event in client.read("TICKET_EVENTS").take(603, SOON).await? {
        let body: Value = event.json()?;
        if body["outcome"] == "reserved" {
            let seat = body["seat"].as_u64().context("a seat")?;
            *holders.entry((body["show"].to_string(), seat)).or_default() += 1;
        }
    }
    assert_eq!(holders.len(), 60);
    assert!(holders.values().all(|count| *count == 1), "{holders:?}");
    let letters = host.wait_dead_letters("tickets", 1, SOON).await?;
    assert!(letters[0]["reason"].to_string().contains("no such command"), "{letters:?}");
    Ok(())
}

#[tokio::test]
async fn the_retail_chain_comes_to_what_is_calculated() -> Result<()> {
    let report = demo::run(&DemoOptions { data: None, count: 4_000, seed: 9 }).await?;
    assert!(report.is_good(), "{}\n{}", report.table(), report.verdict());
    Ok(())
}

#[tokio::test]
async fn the_examples_own_configurations_are_sound() -> Result<()> {
    let binary = tools::host(tools::HostBuild::Normal)?;
    for example in ["tickets", "retail"] {
        let config = tools::root().join("examples").join(example).join("pelton.toml");
        let output = std::process::Command::new(&binary).arg("check").arg("--config").arg(&config).output()?;
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        // Where nobody has built them in place, the components are missing; nothing else may be.
        let complaints: Vec<&str> =
            text.lines().filter(|line| line.contains("PC0") && !line.contains("PC015")).collect();
        assert!(complaints.is_empty(), "{example}: {text}");
    }
    Ok(())
}
