//! Versions: which served, which was refused, and back to one before; deployment on request.

use std::process::Output;

use anyhow::{Context, Result};
use pelton_tests::host::HostOptions;
use pelton_tests::manifest::Manifest;
use pelton_tests::tools;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::stage::{SOON, Stage, manifest_of};

/// A ledger under another digest for each label.
fn ledger(label: &str) -> Result<Vec<u8>> {
    tools::stamped(&tools::guest("ledger")?, label)
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Lays a version down and waits until it serves; gives back its digest.
async fn swap_in(stage: &Stage, bytes: &[u8]) -> Result<String> {
    stage.host.write("consumers/ledger.wasm", bytes)?;
    let version = digest(bytes);
    serves(stage, &version).await?;
    Ok(version)
}

async fn serves(stage: &Stage, version: &str) -> Result<Value> {
    stage.wait_status("the version serves", "ledger", |entry| entry["version"] == version).await
}

/// The states of the versions of `ledger`, the one that changed last first.
fn versions(stage: &Stage) -> Result<Vec<(String, String)>> {
    let shown = stage.host.run(&["versions", "ledger", "--json"])?;
    let listed: Vec<Value> = serde_json::from_slice(&shown.stdout).with_context(|| text(&shown))?;
    let word = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    Ok(listed.iter().map(|entry| (word(entry, "version"), word(entry, "state"))).collect())
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn a_rollback_brings_the_version_before_back_and_lasts_over_a_restart() -> Result<()> {
    let mut stage = Stage::running("ledger").await?;
    let one = swap_in(&stage, &ledger("one")?).await?;
    let two = swap_in(&stage, &ledger("two")?).await?;
    stage.ledger("a", 1).await?;
    let done = stage.host.run(&["rollback", "ledger"])?;
    assert!(done.status.success(), "{}", text(&done));
    serves(&stage, &one).await?;
    let state = |version: &str, state: &str| (version.to_owned(), state.to_owned());
    assert_eq!(versions(&stage)?[..2], [state(&one, "serving"), state(&two, "rolled-back")]);
    // The file still holds the version that was taken back.
    assert!(stage.problems("ledger").await?.contains("held back"));
    stage.host.stop().await?;
    stage.host.start().await?;
    serves(&stage, &one).await?;
    assert!(stage.problems("ledger").await?.contains("held back"));
    let refused = stage.host.run(&["deploy", "ledger"])?;
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(text(&refused).contains("held-back"), "{}", text(&refused));
    stage.ledger("a", 2).await?;
    assert_eq!(stage.ledger_events(2).await?[1].count, 2);
    // Another version is deployed as ever; and an operator can bring back the one that was taken back.
    let three = swap_in(&stage, &ledger("three")?).await?;
    let back = stage.host.run(&["rollback", "ledger", &two[..12]])?;
    assert!(back.status.success(), "{}", text(&back));
    serves(&stage, &two).await?;
    assert_eq!(versions(&stage)?[..2], [state(&two, "serving"), state(&three, "rolled-back")]);
    Ok(())
}

#[tokio::test]
async fn a_version_that_was_taken_back_is_deployed_again_when_the_manifest_changes() -> Result<()> {
    let stage = Stage::running("ledger").await?;
    let one = swap_in(&stage, &ledger("one")?).await?;
    let two = swap_in(&stage, &ledger("two")?).await?;
    stage.host.run(&["rollback", "ledger"])?;
    serves(&stage, &one).await?;
    stage.host.manifest("ledger", &manifest_of("ledger").section("[share]", "weight = 101"))?;
    serves(&stage, &two).await?;
    assert_eq!(stage.problems("ledger").await?, "[]");
    Ok(())
}

#[tokio::test]
async fn a_rollback_that_can_not_be_says_why() -> Result<()> {
    let stage = Stage::running("ledger").await?;
    for (arguments, why) in [
        (["rollback", "ledger", ""], "no version"),
        (["rollback", "ledger", "abcdef"], "begins with"),
        (["rollback", "nobody", "abcdef"], "does not run"),
    ] {
        let arguments: Vec<&str> = arguments.into_iter().filter(|argument| !argument.is_empty()).collect();
        let refused = stage.host.run(&arguments)?;
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}");
        assert!(text(&refused).contains(why), "{arguments:?}: {}", text(&refused));
    }
    Ok(())
}

#[tokio::test]
async fn a_version_that_trips_the_breaker_in_its_probation_goes_back_by_itself_and_nothing_is_lost() -> Result<()> {
    let breaker = "window_attempts = 5\nkeys_min = 3\nratio = 0.5\nfirst_delay_ms = 60000\nlongest_delay_ms = 60000";
    let with = |manifest: Manifest| manifest.section("[breaker]", breaker).section("[release]", "after_ms = \"never\"");
    let mut stage = Stage::running_with("ledger", with).await?;
    let good = swap_in(&stage, &ledger("good")?).await?;
    for n in 1..=5 {
        stage.ledger(&format!("k{n}"), 1).await?;
    }
    stage.events(5).await?;
    // Fails every message of this kind, and no probe comes for a minute: only the version before can handle them.
    let bad = tools::guest("fails")?;
    stage.host.write("consumers/ledger.wasm", &std::fs::read(&bad)?)?;
    let bad = digest(&std::fs::read(&bad)?);
    serves(&stage, &bad).await?;
    for n in 1..=8 {
        let payload = "{\"n\":2,\"do\":\"panic\"}";
        stage.publish(&format!("k{n}"), payload).await?;
    }
    serves(&stage, &good).await?;
    assert_eq!(stage.ledger_events(8).await?.len(), 8, "what it failed on is handled by the version before");
    let listed = versions(&stage)?;
    assert_eq!(listed[1], (bad, "rolled-back".to_owned()), "{listed:?}");
    let shown = text(&stage.host.run(&["versions", "ledger"])?);
    assert!(shown.contains("it failed in its probation"), "{shown}");
    Ok(())
}

#[tokio::test]
async fn a_digest_in_the_manifest_binds_the_component() -> Result<()> {
    let stage = Stage::new().await?;
    let (meant, other) = (ledger("meant")?, ledger("other")?);
    stage.host.write("consumers/ledger.wasm", &meant)?;
    let bound = manifest_of("ledger").text();
    let bound = format!("digest = \"sha256:{}\"\n{bound}", digest(&meant));
    stage.host.write("consumers/ledger.toml", bound.as_bytes())?;
    let mut stage = stage;
    stage.host.start().await?;
    serves(&stage, &digest(&meant)).await?;
    stage.host.write("consumers/ledger.wasm", &other)?;
    let told = stage.wait_status("the other bytes are refused", "ledger", |entry| {
        let problems = entry["problems"].to_string();
        problems.contains(&digest(&meant)) && problems.contains(&digest(&other))
    });
    told.await?;
    serves(&stage, &digest(&meant)).await?;
    // A start without the right bytes goes on with those that were kept.
    stage.host.stop().await?;
    stage.host.start().await?;
    serves(&stage, &digest(&meant)).await?;
    Ok(())
}

#[tokio::test]
async fn a_start_with_a_broken_component_goes_on_with_the_version_that_served() -> Result<()> {
    let mut stage = Stage::running("ledger").await?;
    let good = swap_in(&stage, &ledger("good")?).await?;
    stage.host.stop().await?;
    for broken in [Some(&ledger("half")?[..5_000]), None] {
        match broken {
            Some(bytes) => stage.host.write("consumers/ledger.wasm", bytes)?,
            None => std::fs::remove_file(stage.host.path("consumers/ledger.wasm"))?,
        }
        stage.host.start().await?;
        let entry = serves(&stage, &good).await?;
        assert!(entry["problems"].to_string().contains("goes on"), "{entry}");
        stage.host.stop().await?;
    }
    // What was compiled is damaged as well: it is compiled anew.
    for file in compiled(&stage)? {
        std::fs::write(&file, b"nonsense")?;
    }
    stage.host.start().await?;
    serves(&stage, &good).await?;
    stage.ledger("a", 1).await?;
    assert_eq!(stage.ledger_events(1).await?[0].count, 1);
    Ok(())
}

/// The files of compiled components.
fn compiled(stage: &Stage) -> Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    for engine in std::fs::read_dir(stage.host.path("data/versions/compiled"))? {
        for file in std::fs::read_dir(engine?.path())? {
            files.push(file?.path());
        }
    }
    assert!(!files.is_empty(), "what was compiled is kept");
    Ok(files)
}

/// A stage whose host changes nothing unless it is asked to.
async fn unwatched() -> Result<Stage> {
    let mut stage = Stage::with(|options: HostOptions| options.extra("[consumers]\nwatch = false")).await?;
    stage.consumer("ledger", "ledger", |manifest| manifest)?;
    stage.host.start().await?;
    Ok(stage)
}

fn steps(output: &Output) -> Result<Vec<(String, String, String)>> {
    let view: Value = serde_json::from_slice(&output.stdout).with_context(|| text(output))?;
    let word = |entry: &Value, name: &str| entry[name].as_str().unwrap_or("-").to_owned();
    let all = view["consumers"].as_array().cloned().unwrap_or_default();
    Ok(all.iter().map(|step| (word(step, "consumer"), word(step, "step"), word(step, "result"))).collect())
}

#[tokio::test]
async fn a_plan_says_what_would_be_done_and_a_deployment_does_it() -> Result<()> {
    let stage = unwatched().await?;
    let before = stage.status_of("ledger").await?["version"].clone();
    let step = |consumer: &str, step: &str, result: &str| (consumer.to_owned(), step.to_owned(), result.to_owned());
    let plan = ["deploy", "--plan", "--json"];
    assert_eq!(steps(&stage.host.run(&plan)?)?, [step("ledger", "-", "unchanged")]);
    stage.host.write("consumers/ledger.wasm", &ledger("two")?)?;
    stage.consumer("second", "versioned-a", |manifest| manifest)?;
    let planned = stage.host.run(&plan)?;
    assert_eq!(steps(&planned)?, [step("ledger", "swap", "planned"), step("second", "start", "planned")]);
    assert!(planned.status.success());
    assert_eq!(stage.status_of("ledger").await?["version"], before, "a plan changes nothing");
    assert!(stage.status_of("second").await?.is_null());
    let done = stage.host.run(&["deploy", "second", "--json"])?;
    assert_eq!(steps(&done)?, [step("second", "start", "done")]);
    let file = stage.host.path("consumers/ledger.toml").display().to_string();
    let done = stage.host.run(&["deploy", &file, "--json"])?;
    assert_eq!(steps(&done)?, [step("ledger", "swap", "done")]);
    assert_eq!(stage.status_of("ledger").await?["version"], digest(&ledger("two")?).as_str());
    stage.host.remove_manifest("second")?;
    assert_eq!(steps(&stage.host.run(&plan)?)?, [step("ledger", "-", "unchanged"), step("second", "stop", "planned")]);
    assert!(stage.host.run(&["deploy"])?.status.success());
    let gone = stage.status_of("second").await?;
    assert!(gone["phase"] == "stopped", "{gone}");
    Ok(())
}

#[tokio::test]
async fn what_can_not_be_deployed_is_told_with_its_exit_status() -> Result<()> {
    let stage = unwatched().await?;
    let before = stage.status_of("ledger").await?["version"].clone();
    stage.host.write("consumers/ledger.wasm", b"\0asm\x01\0\0\0")?;
    for arguments in [&["deploy", "--plan"][..], &["deploy"]] {
        let refused = stage.host.run(arguments)?;
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
        assert!(text(&refused).contains("a core WebAssembly module"), "{}", text(&refused));
    }
    stage.host.manifest("ledger", &manifest_of("ledger").section("[state]", "scoop = \"key\""))?;
    let refused = stage.host.run(&["deploy", "ledger"])?;
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(text(&refused).contains("scoop"), "{}", text(&refused));
    assert_eq!(stage.status_of("ledger").await?["version"], before, "what runs goes on");
    let unknown = stage.host.run(&["deploy", "nobody"])?;
    assert_eq!(unknown.status.code(), Some(1), "{}", text(&unknown));
    assert!(text(&unknown).contains("neither a manifest"), "{}", text(&unknown));
    let elsewhere = stage.host.run(&["deploy", "elsewhere.toml"])?;
    assert_eq!(elsewhere.status.code(), Some(2), "{}", text(&elsewhere));
    let mut stage = stage;
    stage.host.stop().await?;
    let nobody = stage.host.run(&["deploy", "--plan"])?;
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody).contains("pelton run"), "{}", text(&nobody));
    Ok(())
}

#[tokio::test]
async fn held_keys_come_back_when_another_version_serves_after_a_restart() -> Result<()> {
    let with = |manifest: Manifest| manifest.section("[release]", "after_ms = \"never\"");
    let mut stage = Stage::running_with("ledger", with).await?;
    let bad = std::fs::read(tools::guest("fails")?)?;
    stage.host.write("consumers/ledger.wasm", &bad)?;
    serves(&stage, &digest(&bad)).await?;
    stage.publish("a", "{\"n\":1,\"do\":\"panic\"}").await?;
    stage.wait_status("the key is held", "ledger", |entry| entry["parked_rows"] == 1).await?;
    stage.host.stop().await?;
    stage.host.write("consumers/ledger.wasm", &ledger("good")?)?;
    stage.host.start().await?;
    assert_eq!(stage.ledger_events(1).await?[0].n, 1);
    stage.host.wait_log("deployed", SOON).await?;
    Ok(())
}

#[tokio::test]
async fn a_rehearsal_refuses_a_version_that_traps_on_what_came_last() -> Result<()> {
    let with = |manifest: Manifest| manifest.section("[deploy]", "rehearse = 20\ntrap_ratio_max = 0.2");
    let mut stage = Stage::running_with("ledger", with).await?;
    let before = stage.status_of("ledger").await?["version"].clone();
    for n in 1..=10 {
        stage.publish("a", &format!("{{\"n\":{n},\"do\":\"panic\"}}")).await?;
    }
    stage.events(10).await?;
    stage.host.write("consumers/ledger.wasm", &std::fs::read(tools::guest("fails")?)?)?;
    let told = |entry: &Value| entry["problems"].to_string().contains("in its rehearsal 10 of 10 messages");
    stage.wait_status("the rehearsal refuses it", "ledger", told).await?;
    assert_eq!(stage.status_of("ledger").await?["version"], before);
    // One that handles them is rehearsed and serves, and nothing of its rehearsal is left.
    swap_in(&stage, &ledger("good")?).await?;
    stage.ledger("a", 11).await?;
    assert_eq!(stage.ledger_events(1).await?[0].count, 11, "a rehearsal leaves nothing");
    stage.no_more_events().await;
    Ok(())
}

#[tokio::test]
async fn editors_that_write_in_place_slowly_or_by_renaming_end_with_what_they_meant() -> Result<()> {
    use std::io::Write as _;
    let stage = Stage::running("ledger").await?;
    // In place and slowly: half of a manifest is told, and changes nothing.
    let text = manifest_of("ledger").section("[limits]", "timeout_ms = 777\nevents_max = 7").text();
    let mut file = std::fs::File::create(stage.host.path("consumers/ledger.toml"))?;
    file.write_all(&text.as_bytes()[..40])?;
    file.sync_all()?;
    let told = |entry: &Value| entry["problems"] != serde_json::json!([]);
    stage.wait_status("half a manifest is refused", "ledger", told).await?;
    assert_eq!(stage.status_of("ledger").await?["phase"], "running");
    file.write_all(&text.as_bytes()[40..])?;
    let sound = |entry: &Value| entry["problems"] == serde_json::json!([]);
    stage.wait_status("the whole manifest is applied", "ledger", sound).await?;
    // By renaming, as most editors do, with a copy of the old one beside it.
    let (manifest, backup) = (stage.host.path("consumers/ledger.toml"), stage.host.path("consumers/ledger.toml~"));
    std::fs::rename(&manifest, &backup)?;
    std::fs::write(&manifest, "nonsense")?;
    stage.wait_status("nonsense is refused", "ledger", told).await?;
    std::fs::rename(&backup, &manifest)?;
    stage.wait_status("the manifest is as it was", "ledger", sound).await?;
    Ok(())
}
