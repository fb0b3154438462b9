//! `isolation`: whether instances serve several attempts, seen through a plug-in that counts the attempts of its instance.

use anyhow::Result;
use pelton_tests::manifest::Manifest;
use pelton_tests::reader::Stored;
use serde_json::Value;

use crate::stage::Stage;

/// Publishes so many messages and gives what came out: which attempt of its instance each one was.
async fn counts(stage: &mut Stage, messages: usize) -> Result<Vec<u64>> {
    for n in 0..messages {
        stage.publish(&format!("k{}", n % 7), "go").await?;
    }
    let events: Vec<Value> = stage.events(messages).await?.iter().map(Stored::json).collect::<Result<_>>()?;
    Ok(events.iter().filter_map(|event| event["attempt_of_instance"].as_u64()).collect())
}

async fn running(isolation: impl FnOnce(Manifest) -> Manifest) -> Result<Stage> {
    Stage::running_with("remembers", isolation).await
}

#[tokio::test]
async fn by_default_nothing_of_an_attempt_is_left_for_the_next() -> Result<()> {
    let mut stage = running(|manifest| manifest).await?;
    assert_eq!(counts(&mut stage, 100).await?, vec![1; 100]);
    Ok(())
}

#[tokio::test]
async fn reused_instances_serve_until_their_bound_and_a_failure_ends_them() -> Result<()> {
    let mut stage =
        running(|manifest| manifest.top("isolation = \"reuse\"").section("[reuse]", "invocations_max = 5")).await?;
    let counts_seen = counts(&mut stage, 200).await?;
    assert_eq!(counts_seen.iter().max(), Some(&5), "{counts_seen:?}");
    stage.publish("k1", "fail").await?;
    // The message is at fault, also in a fresh instance.
    let letters = stage.host.wait_dead_letters("remembers", 1, crate::stage::SOON).await?;
    assert_eq!(letters[0]["cause"], "rejected");
    // The manifest goes back to the default while the host runs.
    stage.consumer("remembers", "remembers", |manifest| manifest)?;
    stage.host.wait_log("Change", crate::stage::SOON).await?;
    assert_eq!(counts(&mut stage, 50).await?, vec![1; 50]);
    Ok(())
}

#[tokio::test]
async fn an_audit_finds_a_plugin_that_remembers_and_ends_its_reuse() -> Result<()> {
    let mut stage =
        running(|manifest| manifest.top("isolation = \"audited\"").section("[reuse]", "audit_one_in = 1")).await?;
    // Every attempt that is not the first of its instance is made again, and the fresh one counts.
    assert_eq!(counts(&mut stage, 100).await?, vec![1; 100]);
    let status = stage.wait_status("the audit is told", "remembers", |entry| {
        entry["problems"].to_string().contains("keeps something between attempts")
    });
    let problems = status.await?["problems"].to_string();
    assert!(problems.contains("it emitted other events"), "{problems}");
    stage.host.wait_log("goes on with fresh instances", crate::stage::SOON).await?;
    Ok(())
}
