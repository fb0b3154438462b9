//! Starting, ending, and starting again.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use pelton_tests::client::{Outgoing, StreamSpec};
use pelton_tests::host::{Host, HostOptions};
use pelton_tests::load::ledger_message;
use pelton_tests::manifest::Manifest;
use pelton_tests::wait;
use rustix::process::Signal;

use crate::stage::{SOON, Stage, manifest_of};

#[tokio::test]
async fn sigterm_drains_and_ends_with_status_0() -> Result<()> {
    let mut stage = Stage::running("ledger").await?;
    for n in 1..=200 {
        stage.ledger("a", n).await?;
    }
    let status = stage.host.stop().await?;
    assert_eq!(status.code(), Some(0));
    // What was applied before the end was also published before it; the rest comes after the next start.
    stage.host.start().await?;
    let counts: Vec<u64> = stage.ledger_events(200).await?.iter().map(|event| event.count).collect();
    assert_eq!(counts, (1..=200).collect::<Vec<u64>>());
    stage.no_more_events().await;
    Ok(())
}

/// Under load a thread that takes the core from the one that woke it costs more than what it came for.
#[tokio::test]
async fn no_thread_of_the_host_preempts_another() -> Result<()> {
    const SCHED_BATCH: &str = "3";
    let stage = Stage::running("ledger").await?;
    let pid = stage.host.pid().context("the host runs")?;
    let mut seen = BTreeSet::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        // A thread may end meanwhile.
        let Ok(stat) = fs::read_to_string(task.join("stat")) else { continue };
        let (name, rest) = stat.rsplit_once(')').context("a thread has a name")?;
        let name = name.split_once('(').context("a thread has a name")?.1.to_owned();
        // The 41st field of proc_pid_stat(5); these begin with the third.
        assert_eq!(rest.split_whitespace().nth(38), Some(SCHED_BATCH), "thread {name}");
        seen.insert(name);
    }
    for name in ["driver", "executor-0", "committer", "checkpointer", "io"] {
        assert!(seen.contains(name), "{seen:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_second_signal_ends_at_once() -> Result<()> {
    let mut stage = Stage::running_with("fails", |manifest| manifest.section("[limits]", "timeout_ms = 30000")).await?;
    stage.publish("a", "{\"do\":\"spin\"}").await?;
    stage.wait_status("an attempt runs", "fails", |consumer| consumer["running"] == 1).await?;
    stage.host.signal(Signal::TERM)?;
    stage.host.wait_log("signal", SOON).await?;
    assert!(stage.host.exited()?.is_none(), "the attempt is waited for");
    stage.host.signal(Signal::TERM)?;
    let status = stage.host.wait_exit(Duration::from_secs(5)).await?;
    assert_eq!(status.code(), Some(1), "what was under way was cut off");
    Ok(())
}

#[tokio::test]
async fn a_killed_host_goes_on_where_it_was() -> Result<()> {
    let mut stage = Stage::running("ledger").await?;
    for n in 1..=50 {
        stage.ledger("a", n).await?;
    }
    let mut events = stage.ledger_events(50).await?;
    stage.host.kill()?;
    for n in 51..=100 {
        stage.ledger("a", n).await?;
    }
    stage.host.start().await?;
    events.extend(stage.ledger_events(50).await?);
    let counts: Vec<u64> = events.iter().map(|event| event.count).collect();
    assert_eq!(counts, (1..=100).collect::<Vec<u64>>());
    stage.no_more_events().await;
    Ok(())
}

#[tokio::test]
async fn a_host_without_its_data_repeats_everything_under_the_same_event_ids() -> Result<()> {
    let mut stage = Stage::running("ledger").await?;
    for n in 1..=10 {
        stage.ledger("a", n).await?;
    }
    stage.events(10).await?;
    stage.host.kill()?;
    // JetStream drops what it has under these ids already: nothing new may come out.
    std::fs::remove_dir_all(stage.host.path("data"))?;
    stage.host.start().await?;
    stage.wait_status("all are applied again", "ledger", |consumer| consumer["applied"] == 10).await?;
    stage.wait_status("all events are published", "ledger", |consumer| consumer["outbox_pending"] == 0).await?;
    stage.no_more_events().await;
    Ok(())
}

#[tokio::test]
async fn a_work_queue_is_emptied_and_nothing_is_handled_twice() -> Result<()> {
    let mut stage = Stage::new().await?;
    stage.client.create_stream(&StreamSpec::new("JOBS", "jobs.>").work_queue()).await?;
    stage.host.guest("ledger")?;
    let manifest = Manifest::new("ledger.wasm", "JOBS", "jobs.>").emits("out.>").section("[config]", "out = \"out\"");
    stage.host.manifest("jobs", &manifest)?;
    stage.host.start().await?;
    for n in 1..=100 {
        stage.client.publish(&ledger_message("jobs.a".to_owned(), &format!("j{n}"), n, 64)).await?;
    }
    let counts: Vec<u64> = stage.ledger_events(100).await?.iter().map(|event| event.count).collect();
    assert_eq!(counts, (1..=100).collect::<Vec<u64>>());
    wait::until("the work queue is empty", SOON, || async {
        Ok((stage.client.stream_size("JOBS").await?.0 == 0).then_some(()))
    })
    .await?;
    stage.no_more_events().await;
    Ok(())
}

#[tokio::test]
async fn declared_streams_are_created() -> Result<()> {
    let mut stage = Stage::new().await?;
    let streams = "name = \"MADE\"\nsubjects = [\"made.>\"]\nduplicate_window_ms = 1000";
    stage.host.guest("ledger")?;
    let manifest = Manifest::new("ledger.wasm", "MADE", "made.>").emits("out.>").section("[config]", "out = \"out\"");
    stage.host.manifest("made", &manifest.section("[[streams]]", streams))?;
    stage.host.start().await?;
    stage.client.publish(&ledger_message("made.x".to_owned(), "m", 1, 64)).await?;
    assert_eq!(stage.event().await?.subject, "out.x");
    Ok(())
}

#[tokio::test]
async fn start_new_leaves_alone_what_was_there_before() -> Result<()> {
    let mut stage = Stage::new().await?;
    stage.ledger("old", 1).await?;
    stage.consumer("ledger", "ledger", |manifest| manifest.subscription("start = \"new\""))?;
    stage.host.start().await?;
    stage.wait_status("it runs", "ledger", |consumer| consumer["phase"] == "running").await?;
    stage.ledger("fresh", 1).await?;
    assert_eq!(stage.event().await?.subject, "out.fresh");
    stage.no_more_events().await;
    Ok(())
}

#[tokio::test]
async fn the_server_may_go_away_and_come_back() -> Result<()> {
    let mut stage = Stage::running("ledger").await?;
    stage.ledger("a", 1).await?;
    stage.event().await?;
    stage.nats.kill()?;
    stage.nats.start_again().await?;
    wait::until("publishing works again", SOON, || async { Ok(stage.ledger("a", 2).await.ok()) }).await?;
    assert_eq!(stage.ledger_events(1).await?[0].count, 2);
    Ok(())
}

#[tokio::test]
async fn the_embedded_server_serves_and_survives_a_kill_of_the_host() -> Result<()> {
    let mut host = Host::prepare(HostOptions::embedded())?;
    host.guest("ledger")?;
    let manifest = manifest_of("ledger").section("[[streams]]", "name = \"IN\"\nsubjects = [\"in.>\"]");
    host.manifest("ledger", &manifest.section("[[streams]]", "name = \"OUT\"\nsubjects = [\"out.>\"]"))?;
    host.start().await?;
    let client = host.embedded_client().await?;
    client.publish(&ledger_message("in.a".to_owned(), "m1", 1, 64)).await?;
    client.read("OUT").take(1, SOON).await?;
    host.kill()?;
    host.start().await?;
    let client = host.embedded_client().await?;
    client.publish(&ledger_message("in.a".to_owned(), "m2", 2, 64)).await?;
    let events = client.read("OUT").take(2, SOON).await?;
    assert!(events.len() == 2 && events[0].id() != events[1].id());
    let server = *host.children().first().unwrap_or(&0);
    assert_eq!(host.stop().await?.code(), Some(0));
    assert!(pelton_tests::process::Usage::of(server).is_err(), "the server ends with the host");
    Ok(())
}

#[tokio::test]
async fn events_without_a_stream_wait_and_leave_when_there_is_one() -> Result<()> {
    let mut stage = Stage::new().await?;
    stage.client.delete_stream("OUT").await?;
    stage.consumer("ledger", "ledger", |manifest| manifest)?;
    stage.host.start().await?;
    stage.ledger("a", 1).await?;
    stage.host.wait_log("no stream takes in subject out.a", SOON).await?;
    stage.client.create_stream(&StreamSpec::new("OUT", "out.>")).await?;
    assert_eq!(stage.event().await?.subject, "out.a");
    stage.client.publish(&Outgoing::new("in.b", "{\"n\":1}").id("b-1")).await?;
    assert_eq!(stage.event().await?.subject, "out.b");
    Ok(())
}
