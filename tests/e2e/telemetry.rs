//! What can be seen of a host from outside: metrics over HTTP, after traffic that is known to the message.

use std::collections::BTreeSet;

use anyhow::Result;
use pelton_tests::client::Outgoing;
use pelton_tests::metrics::{Scrape, listed};
use pelton_tests::tools;
use pelton_tests::wait;

use crate::stage::{SOON, Stage, manifest_of};

/// Scrapes until a sample has this value.
async fn scrape_until(stage: &Stage, name: &str, labels: &[(&str, &str)], wanted: f64) -> Result<Scrape> {
    let what = format!("{name}{labels:?} is {wanted}");
    let waiting = wait::until(&what, SOON, || async {
        let scrape = Scrape::of(&stage.host).await?;
        // A consumer that was just deployed is not told of yet.
        let there = scrape.value(name, labels).is_ok_and(|value| (value - wanted).abs() < f64::EPSILON);
        Ok(there.then_some(scrape))
    });
    waiting.await
}

/// 50 messages of 5 keys that are applied, 3 duplicates, 1 that is applied at its second attempt, 2 that are rejected.
async fn known_traffic(stage: &Stage) -> Result<()> {
    for n in 1..=10 {
        for key in ["a", "b", "c", "d", "e"] {
            stage.ledger(key, n).await?;
        }
    }
    // JetStream's own window is shorter than this.
    tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    for n in 1..=3 {
        stage.ledger("a", n).await?;
    }
    stage.client.publish(&Outgoing::new("in.f", r#"{"n":1,"fails":1}"#).id("fails-once")).await?;
    for id in ["bad-1", "bad-2"] {
        stage.client.publish(&Outgoing::new("in.private-key", r#"{"n":1,"poison":true}"#).id(id)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn metrics_tell_exactly_what_happened() -> Result<()> {
    let mut stage = Stage::running("ledger").await?;
    known_traffic(&stage).await?;
    stage.events(51).await?;
    scrape_until(&stage, "pelton_messages_total", &[("outcome", "dead_letter")], 2.0).await?;
    // The acknowledgement of the last event comes after the event itself.
    let scrape = scrape_until(&stage, "pelton_outbox_pending", &[], 0.0).await?;
    let version = stage.status_of("ledger").await?["version"].as_str().unwrap_or_default()[..12].to_owned();
    for (name, labels, wanted) in [
        ("pelton_messages_total", vec![("outcome", "applied")], 51.0),
        ("pelton_messages_total", vec![("outcome", "duplicate")], 3.0),
        ("pelton_messages_total", vec![("outcome", "stale")], 0.0),
        ("pelton_messages_total", vec![("outcome", "parked")], 0.0),
        ("pelton_attempts_total", vec![("outcome", "ok"), ("version", version.as_str())], 51.0),
        ("pelton_attempts_total", vec![("outcome", "retry")], 1.0),
        ("pelton_attempts_total", vec![("outcome", "reject")], 2.0),
        ("pelton_attempts_total", vec![("outcome", "trap")], 0.0),
        ("pelton_retries_total", vec![], 1.0),
        ("pelton_dead_letters_total", vec![], 2.0),
        ("pelton_handler_duration_seconds_count", vec![("version", version.as_str())], 54.0),
        ("pelton_handler_duration_seconds_bucket", vec![("le", "+Inf")], 54.0),
        ("pelton_queue_wait_seconds_count", vec![], 56.0),
        ("pelton_end_to_end_seconds_count", vec![], 51.0),
        ("pelton_events_published_total", vec![], 51.0),
        ("pelton_outbox_oldest_age_seconds", vec![], 0.0),
        ("pelton_in_flight", vec![], 0.0),
        ("pelton_in_flight_bytes", vec![], 0.0),
        ("pelton_lanes", vec![], 0.0),
        ("pelton_stream_lag", vec![("stream", "IN")], 0.0),
        ("pelton_parked", vec![], 0.0),
        ("pelton_consumer_state", vec![("phase", "running")], 1.0),
        ("pelton_consumer_paused", vec![("by", "operator")], 0.0),
        ("pelton_consumer_version_info", vec![("version", version.as_str())], 1.0),
        ("pelton_nats_connected", vec![("connection", "publish")], 1.0),
        ("pelton_compile_duration_seconds_count", vec![], 1.0),
        ("pelton_commit_batch_size_sum", vec![], 56.0),
        ("pelton_swap_total", vec![("result", "swapped")], 0.0),
    ] {
        assert!((scrape.value(name, &labels)? - wanted).abs() < f64::EPSILON, "{name}{labels:?} of {scrape:#?}");
    }
    for (name, labels) in [
        ("pelton_executors", vec![]),
        ("pelton_executor_busy_seconds_total", vec![]),
        ("pelton_handler_duration_seconds_sum", vec![]),
        ("pelton_commit_duration_seconds_count", vec![]),
        ("pelton_store_bytes", vec![("file", "log")]),
        ("pelton_store_bytes", vec![("file", "view")]),
        ("pelton_uptime_seconds", vec![]),
    ] {
        assert!(scrape.value(name, &labels)? > 0.0, "{name}{labels:?} of {scrape:#?}");
    }
    Ok(())
}

#[tokio::test]
async fn every_metric_of_the_list_comes_out_as_it_says_and_no_other() -> Result<()> {
    let mut stage = Stage::running("ledger").await?;
    known_traffic(&stage).await?;
    stage.events(51).await?;
    let scrape = Scrape::of(&stage.host).await?;
    let listed = listed()?;
    assert!(listed.len() > 30, "{listed:?}");
    let mut names = BTreeSet::new();
    for metric in &listed {
        assert_eq!(scrape.kinds.get(metric.family()), Some(&metric.kind), "{metric:?}");
        assert_eq!(scrape.helps.get(metric.family()), Some(&metric.help), "{metric:?}");
        for name in metric.samples() {
            let mut found = scrape.samples.iter().filter(|sample| sample.name == name).peekable();
            assert!(found.peek().is_some(), "{name} is not told");
            for sample in found {
                let labels: BTreeSet<String> = sample.labels.keys().filter(|label| *label != "le").cloned().collect();
                assert_eq!(labels, metric.labels, "{sample:?}");
            }
            names.insert(name);
        }
    }
    let more: Vec<_> = scrape.samples.iter().filter(|sample| !names.contains(&sample.name)).collect();
    assert!(more.is_empty(), "not in host/METRICS.md: {more:?}");
    Ok(())
}

#[tokio::test]
async fn no_label_is_a_key_or_a_subject() -> Result<()> {
    let mut stage = Stage::running("ledger").await?;
    known_traffic(&stage).await?;
    stage.events(51).await?;
    scrape_until(&stage, "pelton_messages_total", &[("outcome", "dead_letter")], 2.0).await?;
    let told = stage.host.get("/metrics").await?.body;
    assert!(!told.contains("private-key") && !told.contains("in."), "{told}");
    Ok(())
}

#[tokio::test]
async fn both_text_forms_are_told_to_who_asks_for_them() -> Result<()> {
    let stage = Stage::running("ledger").await?;
    let address = std::fs::read_to_string(stage.host.path("data/admin.address"))?;
    for (accept, kind, first) in [
        (
            "application/openmetrics-text; version=1.0.0",
            "application/openmetrics-text",
            "# TYPE pelton_messages counter",
        ),
        ("text/plain", "text/plain; version=0.0.4", "# TYPE pelton_messages_total counter"),
    ] {
        let url = format!("http://{address}/metrics");
        let asked = tokio::task::spawn_blocking(move || ureq::get(&url).header("Accept", accept).call());
        let mut answer = asked.await??;
        let told = answer.headers().get("content-type").and_then(|told| told.to_str().ok()).unwrap_or_default();
        assert!(told.starts_with(kind), "{told}");
        let body = answer.body_mut().read_to_string()?;
        assert!(body.lines().any(|line| line == first), "{body}");
    }
    Ok(())
}

#[tokio::test]
async fn swaps_and_refusals_are_counted() -> Result<()> {
    let stage = Stage::running("ledger").await?;
    stage.host.write("consumers/ledger.wasm", b"no component")?;
    scrape_until(&stage, "pelton_swap_total", &[("result", "refused")], 1.0).await?;
    let changed = tools::stamped(&tools::guest("ledger")?, "another version")?;
    stage.host.write("consumers/ledger.wasm", &changed)?;
    let scrape = scrape_until(&stage, "pelton_swap_total", &[("result", "swapped")], 1.0).await?;
    assert!((scrape.value("pelton_swap_total", &[("result", "refused")])? - 1.0).abs() < f64::EPSILON, "{scrape:?}");
    Ok(())
}

#[tokio::test]
async fn a_plug_in_that_writes_too_much_is_cut_short_and_told_of() -> Result<()> {
    let limits = "log_lines_per_second = 0\nlog_lines_burst = 10";
    let stage = Stage::running_with("fails", |manifest| manifest.section("[limits]", limits)).await?;
    stage.publish("a", r#"{"do":"log-flood"}"#).await?;
    // Of ten thousand lines an attempt may write 64, of which the consumer may write ten, and one tells of the rest.
    let scrape = scrape_until(&stage, "pelton_log_lines_total", &[("outcome", "dropped")], 9_991.0).await?;
    assert!((scrape.value("pelton_log_lines_total", &[("outcome", "written")])? - 10.0).abs() < f64::EPSILON);
    stage.host.wait_log("lines of the plug-in were dropped", SOON).await?;
    let log = stage.host.log();
    assert_eq!(log.lines().filter(|line| line.contains("one of many lines")).count(), 10, "{log}");
    let told = log.lines().find(|line| line.contains("lines of the plug-in were dropped")).unwrap_or_default();
    assert!(told.contains("consumer=fails") && told.contains("lines=55"), "{told}");
    // A larger limit holds as soon as the manifest says so.
    let manifest = manifest_of("fails").section("[limits]", "log_lines_per_second = 100000\nlog_lines_burst = 100000");
    stage.host.manifest("fails", &manifest)?;
    let last = std::cell::Cell::new(0.0);
    let more = wait::until("more lines are written", SOON, || async {
        stage.publish("a", r#"{"do":"log-flood"}"#).await?;
        let scrape = Scrape::of(&stage.host).await?;
        last.set(scrape.value("pelton_log_lines_total", &[("outcome", "written")])?);
        Ok((last.get() > 100.0).then_some(()))
    });
    more.await
}

#[tokio::test]
async fn status_tells_how_fast_a_consumer_is() -> Result<()> {
    let mut stage = Stage::running("ledger").await?;
    for n in 1..=100 {
        stage.ledger("a", n).await?;
    }
    stage.events(100).await?;
    let fast = |consumer: &serde_json::Value| {
        consumer["rate"].as_f64().is_some_and(|rate| rate > 0.0)
            && consumer["handler_p99_us"].is_u64()
            && consumer["end_to_end_p99_ms"].is_u64()
    };
    let status = stage.wait_status("there are figures", "ledger", fast).await?;
    let percentile = |name: &str| status[name].as_u64().unwrap_or_default();
    assert!((1..1_000_000).contains(&percentile("handler_p50_us")), "{status}");
    assert!(percentile("handler_p50_us") <= percentile("handler_p99_us"), "{status}");
    assert!(percentile("end_to_end_p50_ms") <= percentile("end_to_end_p99_ms"), "{status}");
    let shown = stage.host.run(&["status"])?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("HANDLER P50/P99") && shown.contains("/s "), "{shown}");
    Ok(())
}
