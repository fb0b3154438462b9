//! What the broker does to consumers: poison, streams that went backwards or are gone, work queues that are taken.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use pelton_tests::checker::LedgerEvent;
use pelton_tests::client::StreamSpec;
use pelton_tests::load::ledger_message;
use pelton_tests::manifest::Manifest;

use crate::stage::{QUIET, SOON, Stage};

/// Publishes what no client would let through.
fn publish_raw(stage: &Stage, subject: &str, header: &[u8], payload: &[u8]) -> Result<()> {
    let url = stage.nats.url();
    let address = url.strip_prefix("nats://").context("an address")?;
    let mut socket = TcpStream::connect(address)?;
    let mut text = b"CONNECT {\"verbose\":false,\"headers\":true}\r\n".to_vec();
    text.extend(format!("HPUB {subject} {} {}\r\n", header.len(), header.len() + payload.len()).bytes());
    text.extend([header, payload, b"\r\nPING\r\n"].concat());
    socket.write_all(&text)?;
    let mut seen = Vec::new();
    while !seen.windows(4).any(|window| window == b"PONG") {
        let mut buffer = [0; 1024];
        let count = socket.read(&mut buffer)?;
        ensure!(count > 0, "the server hung up: {}", String::from_utf8_lossy(&seen));
        seen.extend(&buffer[..count]);
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// A consumer `other` of its own stream OTHER, which must never notice.
async fn with_another(stage: &mut Stage) -> Result<()> {
    stage.client.create_stream(&StreamSpec::new("OTHER", "other.>")).await?;
    stage.consumer("ledger", "ledger", |manifest| manifest)?;
    let manifest = Manifest::new("ledger.wasm", "OTHER", "other.>").emits("out.>").section("[config]", "out = \"out\"");
    stage.host.manifest("other", &manifest)?;
    stage.host.start().await
}

async fn other_works(stage: &mut Stage, n: u64) -> Result<()> {
    stage.client.publish(&ledger_message("other.o".to_owned(), &format!("o{n}"), n, 64)).await?;
    let event = stage.event().await?;
    assert_eq!(event.subject, "out.o");
    Ok(())
}

#[tokio::test]
async fn poison_becomes_one_dead_letter_each_and_everyone_else_goes_on() -> Result<()> {
    let mut stage = Stage::new().await?;
    with_another(&mut stage).await?;
    let blocks: [&[u8]; 3] = [
        b"NATS/1.0\r\nNats-Msg-Id: p1\r\nx: a\rb\r\n\r\n",
        b"NATS/1.0\r\nNats-Msg-Id: p2\r\nx: \xff\r\n\r\n",
        b"NATS/1.0\r\nno colon\r\n\r\n",
    ];
    for (n, block) in (1..).zip(blocks) {
        publish_raw(&stage, "in.a", block, b"{\"n\":1}")?;
        stage.ledger("a", n).await?;
        assert_eq!(stage.ledger_events(1).await?[0].count, n);
        other_works(&mut stage, n).await?;
    }
    let letters = stage.host.wait_dead_letters("ledger", blocks.len(), SOON).await?;
    for letter in &letters {
        assert_eq!(letter["cause"], "unreadable", "{letter}");
        assert_eq!(letter["payload"], "{\"n\":1}", "{letter}");
        assert!(letter["reason"].to_string().contains("the nats client can't read this message"), "{letter}");
    }
    // The next start meets them again, and knows them.
    stage.host.kill()?;
    stage.host.start().await?;
    stage.ledger("a", 4).await?;
    assert_eq!(stage.ledger_events(1).await?[0].count, 4);
    assert_eq!(stage.host.dead_letters("ledger").await?.len(), blocks.len());
    stage.no_more_events().await;
    Ok(())
}

#[tokio::test]
async fn a_stream_that_went_backwards_halts_its_consumer_and_no_other() -> Result<()> {
    for meanwhile in [0, 5, 30] {
        let mut stage = Stage::new().await?;
        with_another(&mut stage).await?;
        for n in 1..=10 {
            stage.ledger("a", n).await?;
        }
        stage.ledger_events(10).await?;
        stage.nats.stop().await?;
        let store = stage.nats.stream_path("IN");
        let backup = stage.host.path("backup");
        copy(&store, &backup)?;
        stage.nats.start_again().await?;
        for n in 11..=20 {
            stage.ledger("a", n).await?;
        }
        stage.ledger_events(10).await?;
        stage.nats.kill()?;
        fs::remove_dir_all(&store)?;
        copy(&backup, &store)?;
        stage.nats.start_again().await?;
        for n in 0..meanwhile {
            stage.ledger("b", n).await?;
        }
        let told = |consumer: &serde_json::Value| {
            consumer["phase"] == "halted" && consumer["problems"].to_string().contains("stream IN went backwards")
        };
        stage.wait_status("it is halted, and why", "ledger", told).await?;
        ensure!(stage.host.log().contains("consumer halted"), "it is in the log");
        other_works(&mut stage, 1).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_stream_that_is_deleted_is_named_and_read_from_the_start_when_it_is_made_anew() -> Result<()> {
    let mut stage = Stage::new().await?;
    with_another(&mut stage).await?;
    stage.ledger("a", 1).await?;
    assert_eq!(stage.ledger_events(1).await?[0].count, 1);
    stage.client.delete_stream("IN").await?;
    let missing = |consumer: &serde_json::Value| consumer["problems"].to_string().contains("stream IN doesn't exist");
    stage.wait_status("the problem is shown", "ledger", missing).await?;
    stage.host.wait_log("stream IN doesn't exist", SOON).await?;
    other_works(&mut stage, 1).await?;
    stage.client.create_stream(&StreamSpec::new("IN", "in.>")).await?;
    stage.ledger("a", 2).await?;
    assert_eq!(stage.ledger_events(1).await?[0].count, 2, "the state is kept");
    stage.wait_status("all is well", "ledger", |consumer| consumer["problems"] == serde_json::json!([])).await?;
    Ok(())
}

#[tokio::test]
async fn events_wait_while_their_stream_is_gone_and_all_leave_when_it_is_back() -> Result<()> {
    let mut stage = Stage::running("ledger").await?;
    stage.ledger("a", 1).await?;
    stage.event().await?;
    stage.client.delete_stream("OUT").await?;
    for n in 2..=20 {
        stage.ledger("a", n).await?;
    }
    stage.host.wait_log("no stream takes in subject out.a", SOON).await?;
    let waiting = |consumer: &serde_json::Value| consumer["outbox_pending"] == 19;
    stage.wait_status("the outbox keeps all", "ledger", waiting).await?;
    stage.client.create_stream(&StreamSpec::new("OUT", "out.>")).await?;
    // It begins at 1 again, so it is read anew.
    let mut output = stage.client.read("OUT");
    let events = output.take(19, SOON).await?;
    let counts: Vec<u64> = events.iter().map(|event| Ok(event.json::<LedgerEvent>()?.count)).collect::<Result<_>>()?;
    assert_eq!(counts, (2..=20).collect::<Vec<u64>>());
    let more = output.some(QUIET).await;
    assert!(more.is_empty(), "{more:?}");
    Ok(())
}

#[tokio::test]
async fn a_work_queue_has_one_consumer_per_subject_and_a_second_one_is_told_whose_it_is() -> Result<()> {
    let mut stage = Stage::new().await?;
    stage.client.create_stream(&StreamSpec::new("JOBS", "jobs.>").work_queue()).await?;
    stage.host.guest("ledger")?;
    let manifest = |subjects: &str| {
        Manifest::new("ledger.wasm", "JOBS", subjects).emits("out.>").section("[config]", "out = \"out\"")
    };
    stage.host.manifest("orders", &manifest("jobs.>"))?;
    stage.host.start().await?;
    stage.client.publish(&ledger_message("jobs.a".to_owned(), "j1", 1, 64)).await?;
    stage.event().await?;
    stage.host.manifest("billing", &manifest("jobs.a"))?;
    let told = |consumer: &serde_json::Value| {
        let problems = consumer["problems"].to_string();
        problems.contains("work queue") && problems.contains("jobs.a is read by consumer orders")
    };
    stage.wait_status("the refusal is shown", "billing", told).await?;
    stage.host.wait_log("is read by consumer orders", SOON).await?;
    stage.client.publish(&ledger_message("jobs.a".to_owned(), "j2", 2, 64)).await?;
    assert_eq!(stage.ledger_events(1).await?[0].count, 2);
    stage.no_more_events().await;
    Ok(())
}
