//! Changes while traffic flows: components and manifests come, change and go without a restart.

use anyhow::Result;
use pelton_tests::checker::{Checker, Published};
use pelton_tests::manifest::Manifest;
use pelton_tests::tools;

use crate::stage::{SOON, Stage, manifest_of};

/// The version that serves a consumer.
async fn version(stage: &Stage, consumer: &str) -> Result<String> {
    Ok(stage.status_of(consumer).await?["version"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_changed_component_is_swapped_in_under_load() -> Result<()> {
    let mut stage = Stage::running("ledger").await?;
    let mut checker = Checker::default();
    let mut versions = vec![version(&stage, "ledger").await?];
    for round in 0..4_u64 {
        for n in round * 100 + 1..=round * 100 + 100 {
            let key = format!("k{}", n % 7);
            let number = n / 7 + 1;
            let id = format!("{key}-{number}");
            stage.ledger(&key, number).await?;
            checker.published(Published { key, n: number, id });
        }
        let changed = tools::stamped(&tools::guest("ledger")?, &format!("round {round}"))?;
        stage.host.write("consumers/ledger.wasm", &changed)?;
        let before = versions.last().cloned();
        let after = stage.wait_status("another version serves", "ledger", |entry| {
            entry["version"].as_str().map(str::to_owned) != before
        });
        versions.push(after.await?["version"].as_str().unwrap_or_default().to_owned());
    }
    for event in stage.events(400).await? {
        checker.came_out(&event)?;
    }
    let verdict = checker.verdict();
    assert_eq!(verdict.violations.total(), 0, "{:?}", verdict.details);
    versions.dedup();
    assert_eq!(versions.len(), 5, "{versions:?}");
    Ok(())
}

#[tokio::test]
async fn the_new_versions_events_follow_the_old_ones_in_each_key() -> Result<()> {
    let mut stage = Stage::new().await?;
    stage.host.component("versioned", &tools::guest("versioned-a")?)?;
    stage.host.manifest("versioned", &manifest_of("versioned"))?;
    stage.host.start().await?;
    for n in 0..100 {
        stage.publish(&format!("k{}", n % 5), &format!("{{\"n\":{n}}}")).await?;
    }
    stage.events(100).await?;
    stage.host.component("versioned", &tools::guest("versioned-b")?)?;
    let mut labels = Vec::new();
    let mut n = 100;
    while labels.last().map(String::as_str) != Some("b") {
        assert!(n < 5_000, "version b never served");
        stage.publish("k1", &format!("{{\"n\":{n}}}")).await?;
        n += 1;
        let body: serde_json::Value = stage.event().await?.json()?;
        labels.push(body["label"].as_str().unwrap_or_default().to_owned());
    }
    stage.publish("k1", &format!("{{\"n\":{n}}}")).await?;
    let body: serde_json::Value = stage.event().await?.json()?;
    labels.push(body["label"].as_str().unwrap_or_default().to_owned());
    labels.dedup();
    assert!(labels == ["a", "b"] || labels == ["b"], "{labels:?}");
    Ok(())
}

#[tokio::test]
async fn a_broken_component_is_refused_and_the_version_before_goes_on() -> Result<()> {
    let mut stage = Stage::running("ledger").await?;
    let before = version(&stage, "ledger").await?;
    stage.host.write("consumers/ledger.wasm", b"\0asm\x01\0\0\0")?;
    stage.host.wait_log("a core WebAssembly module, not a component", SOON).await?;
    let told = stage.wait_status("the refusal is told", "ledger", |entry| {
        entry["problems"].to_string().contains("core WebAssembly module")
    });
    told.await?;
    stage.ledger("a", 1).await?;
    assert_eq!(stage.ledger_events(1).await?[0].count, 1);
    assert_eq!(version(&stage, "ledger").await?, before);
    // Whole again, it serves, and the problem is gone.
    let repaired = tools::stamped(&tools::guest("ledger")?, "repaired")?;
    stage.host.write("consumers/ledger.wasm", &repaired)?;
    stage
        .wait_status("the repaired one serves", "ledger", |entry| {
            entry["problems"].as_array().is_some_and(Vec::is_empty) && entry["version"] != before.as_str()
        })
        .await?;
    stage.ledger("a", 2).await?;
    assert_eq!(stage.ledger_events(1).await?[0].count, 2, "state stays with the consumer");
    Ok(())
}

#[tokio::test]
async fn a_new_manifest_starts_and_a_removed_one_stops() -> Result<()> {
    let mut stage = Stage::running("ledger").await?;
    stage.ledger("a", 1).await?;
    stage.event().await?;
    stage.consumer("second", "ledger", |manifest| manifest)?;
    let event = stage.event().await?;
    assert!(
        event.id().is_some_and(|id| id.contains("second")),
        "a new consumer begins with the first message: {event:?}"
    );
    stage.host.remove_manifest("ledger")?;
    stage.wait_status("it is gone", "ledger", |entry| entry.is_null() || entry["phase"] == "stopped").await?;
    stage.ledger("a", 2).await?;
    let event = stage.event().await?;
    assert!(event.id().is_some_and(|id| id.contains("second")), "{event:?}");
    stage.no_more_events().await;
    // Back again, it goes on where it was.
    stage.consumer("ledger", "ledger", |manifest| manifest)?;
    let back = stage.ledger_events(1).await?;
    assert_eq!((back[0].n, back[0].count), (2, 2));
    Ok(())
}

#[tokio::test]
async fn a_broken_manifest_is_refused_and_the_one_before_goes_on() -> Result<()> {
    let mut stage = Stage::running("ledger").await?;
    stage.host.manifest("ledger", &manifest_of("ledger").section("[state]", "scoop = \"key\""))?;
    stage.host.wait_log("scoop", SOON).await?;
    stage.ledger("a", 1).await?;
    assert_eq!(stage.event().await?.subject, "out.a");
    Ok(())
}

#[tokio::test]
async fn a_changed_grant_applies_without_a_restart() -> Result<()> {
    let mut stage = Stage::new().await?;
    stage.host.guest("ledger")?;
    let manifest = |config: &str| {
        let base = Manifest::new("ledger.wasm", "IN", "in.>").emits("out.>").quick_retries(2);
        base.section("[config]", &format!("out = \"{config}\""))
    };
    stage.host.manifest("ledger", &manifest("secret"))?;
    stage.host.start().await?;
    stage.ledger("a", 1).await?;
    let letters = stage.host.wait_dead_letters("ledger", 1, SOON).await?;
    assert!(letters[0]["reason"].to_string().contains("secret.a"), "{letters:?}");
    stage.host.manifest("ledger", &manifest("out"))?;
    stage.host.wait_log("ledger", SOON).await?;
    // Which of the next messages is the first under the new manifest is not known: they are published until one gets through.
    let mut n = 1;
    let event = loop {
        n += 1;
        assert!(n < 1_000, "the changed manifest was never applied");
        stage.ledger("a", n).await?;
        let mut events = stage.output().some(std::time::Duration::from_millis(100)).await;
        if let Some(event) = events.pop() {
            break event;
        }
    };
    assert_eq!(event.subject, "out.a");
    Ok(())
}

/// Lays out the directories of a build anew, with `ledger` in it under another version for each label.
fn build(stage: &Stage, label: &str) -> Result<()> {
    let target = stage.host.path("target");
    if target.exists() {
        std::fs::remove_dir_all(&target)?;
    }
    std::fs::create_dir_all(target.join("wasm32-wasip2/release"))?;
    stage.host.write(COMPONENT, &tools::stamped(&tools::guest("ledger")?, label)?)
}

const COMPONENT: &str = "target/wasm32-wasip2/release/ledger.wasm";

#[tokio::test]
async fn a_directory_of_builds_that_appears_later_or_is_made_anew_is_followed() -> Result<()> {
    let mut stage = Stage::new().await?;
    let manifest = Manifest::new(&format!("../{COMPONENT}"), "IN", "in.>").emits("out.>");
    stage.host.manifest("ledger", &manifest.section("[config]", "out = \"out\""))?;
    stage.host.start().await?;
    let missing = |entry: &serde_json::Value| entry["problems"].to_string().contains("can't be read");
    stage.wait_status("the component is missing", "ledger", missing).await?;
    let mut versions = vec![String::new()];
    for round in 0..3 {
        build(&stage, &format!("build {round}"))?;
        let another = |entry: &serde_json::Value| {
            entry["version"].as_str().is_some_and(|version| versions.last().is_none_or(|last| last != version))
        };
        stage.wait_status("the build serves", "ledger", another).await?;
        versions.push(version(&stage, "ledger").await?);
    }
    std::fs::remove_dir_all(stage.host.path("target"))?;
    stage.wait_status("it is told that the component is gone", "ledger", missing).await?;
    stage.ledger("a", 1).await?;
    assert_eq!(stage.ledger_events(1).await?[0].count, 1, "the version before goes on");
    build(&stage, "build 2")?;
    let sound = |entry: &serde_json::Value| entry["problems"].as_array().is_some_and(Vec::is_empty);
    stage.wait_status("the same build is back", "ledger", sound).await?;
    Ok(())
}

#[tokio::test]
async fn a_consumer_directory_that_is_made_anew_is_followed() -> Result<()> {
    let mut stage = Stage::running("ledger").await?;
    let before = version(&stage, "ledger").await?;
    std::fs::remove_dir_all(stage.host.path("consumers"))?;
    std::fs::create_dir(stage.host.path("consumers"))?;
    stage.consumer("ledger", "ledger", |manifest| manifest)?;
    stage.consumer("second", "ledger", |manifest| manifest)?;
    stage.wait_status("the new manifest is found", "second", |entry| entry["version"] == before.as_str()).await?;
    stage.host.write("consumers/ledger.wasm", &tools::stamped(&tools::guest("ledger")?, "anew")?)?;
    stage
        .wait_status("the new component serves", "ledger", |entry| {
            entry["version"].as_str().is_some_and(|version| version != before)
        })
        .await?;
    stage.ledger("a", 1).await?;
    stage.events(2).await?;
    Ok(())
}

#[tokio::test]
async fn a_problem_is_gone_when_the_files_are_as_they_were() -> Result<()> {
    let mut stage = Stage::running("ledger").await?;
    let before = version(&stage, "ledger").await?;
    let told = |part: &'static str| move |entry: &serde_json::Value| entry["problems"].to_string().contains(part);
    let sound = |entry: &serde_json::Value| {
        entry["problems"].as_array().is_some_and(Vec::is_empty) && entry["version"] == before.as_str()
    };
    stage.host.manifest("ledger", &manifest_of("ledger").section("[state]", "scoop = \"key\""))?;
    stage.wait_status("the manifest is refused", "ledger", told("scoop")).await?;
    stage.host.manifest("ledger", &manifest_of("ledger"))?;
    stage.wait_status("the manifest is as it was", "ledger", sound).await?;
    // A refused component is told again after a broken manifest hid it.
    stage.host.write("consumers/ledger.wasm", b"\0asm\x01\0\0\0")?;
    stage.wait_status("the component is refused", "ledger", told("core WebAssembly module")).await?;
    stage.host.manifest("ledger", &manifest_of("ledger").section("[state]", "scoop = \"key\""))?;
    stage.wait_status("the manifest is refused, too", "ledger", told("scoop")).await?;
    stage.host.manifest("ledger", &manifest_of("ledger"))?;
    stage.wait_status("the component is still refused", "ledger", told("core WebAssembly module")).await?;
    stage.host.guest("ledger")?;
    stage.wait_status("the component is as it was", "ledger", sound).await?;
    stage.ledger("a", 1).await?;
    assert_eq!(stage.ledger_events(1).await?[0].count, 1);
    Ok(())
}

#[tokio::test]
async fn a_consumer_that_never_ran_is_forgotten_with_its_manifest() -> Result<()> {
    let stage = Stage::running("ledger").await?;
    stage.host.write("consumers/broken.toml", b"nonsense")?;
    stage.host.write("consumers/No Name.toml", b"nonsense")?;
    stage.wait_status("it is refused", "broken", |entry| entry["phase"] == "refused").await?;
    let shown = stage.host.run(&["status"])?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("No Name.toml") && shown.matches("broken.toml").count() == 1, "{shown}");
    assert!(stage.status_of("No Name").await?.is_null());
    assert_eq!(stage.host.get("/readyz").await?.status, 200, "the others are served");
    stage.host.remove_manifest("broken")?;
    stage.wait_status("it is forgotten", "broken", serde_json::Value::is_null).await?;
    Ok(())
}
