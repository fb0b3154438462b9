//! Traces, as a collector gets them: one from the publisher through two consumers and their events; and collectors that are not there.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use pelton_tests::client::{Outgoing, StreamSpec};
use pelton_tests::collector::{Collector, Span};
use pelton_tests::load::ledger_message;
use pelton_tests::manifest::Manifest;
use pelton_tests::metrics::Scrape;

use crate::stage::{SOON, Stage};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PUBLISHER: &str = "00f067aa0ba902b7";

fn section(url: &str, more: &str) -> String {
    format!("[telemetry]\notlp_endpoint = \"{url}\"\n{more}\n")
}

/// A stage whose host sends its traces to this collector.
async fn traced(url: &str, more: &str) -> Result<Stage> {
    Stage::with(|options| options.extra(&section(url, more))).await
}

fn attribute<'a>(span: &'a Span, name: &str) -> &'a str {
    span.attributes.get(name).map(String::as_str).unwrap_or_default()
}

fn one<'a>(spans: &'a [Span], name: &str) -> Result<&'a Span> {
    let found: Vec<&Span> = spans.iter().filter(|span| span.name == name).collect();
    anyhow::ensure!(found.len() == 1, "{} spans named {name} in {spans:#?}", found.len());
    Ok(found[0])
}

/// The ledger reads IN and emits to `mid.KEY`; the echo reads that and emits to `out.all`.
async fn two_consumers(stage: &mut Stage) -> Result<()> {
    stage.client.create_stream(&StreamSpec::new("MID", "mid.>")).await?;
    stage.host.guest("ledger")?;
    let first = Manifest::new("ledger.wasm", "IN", "in.>").emits("mid.*").section("[config]", "out = \"mid\"");
    stage.host.manifest("first", &first)?;
    stage.host.guest("echo")?;
    let second = Manifest::new("echo.wasm", "MID", "mid.>").emits("out.>").section("[config]", "out = \"out.all\"");
    stage.host.manifest("second", &second)?;
    stage.host.start().await
}

#[tokio::test]
async fn one_trace_goes_from_the_publisher_through_two_consumers_and_their_events() -> Result<()> {
    let collector = Collector::start()?;
    // Traces that begin here are not recorded: this one began with the publisher, who records it.
    let mut stage = traced(&collector.url(), "sample_ratio = 0.0").await?;
    two_consumers(&mut stage).await?;
    stage.ledger("quiet", 1).await?;
    let message = ledger_message("in.a".to_owned(), "order-1", 1, 64)
        .header("TraceParent", format!("00-{TRACE}-{PUBLISHER}-01"))
        .header("tracestate", "vendor=1");
    stage.client.publish(&message).await?;
    let events = stage.events(2).await?;
    let event = events.iter().find(|event| event.header("traceparent").is_some_and(|header| header.contains(TRACE)));
    let event = event.context("an event of the trace")?;
    let spans = collector.wait(6, SOON).await?;
    assert_eq!(spans.len(), 6, "an attempt, its commit and its event, twice: {spans:#?}");
    for span in &spans {
        assert_eq!((span.trace.as_str(), span.service.as_str()), (TRACE, "pelton"), "{span:?}");
        assert_eq!(attribute(span, "messaging.system"), "nats", "{span:?}");
        assert!(span.times_ns.0 > 0 && span.times_ns.0 <= span.times_ns.1 && span.error.is_none(), "{span:?}");
    }
    let (handled, settled, sent) =
        (one(&spans, "process in.>")?, one(&spans, "settle in.>")?, one(&spans, "send mid.*")?);
    let next = (one(&spans, "process mid.>")?, one(&spans, "settle mid.>")?, one(&spans, "send out.>")?);
    assert_eq!(handled.parent, PUBLISHER);
    assert_eq!((&settled.parent, &sent.parent), (&handled.id, &handled.id));
    assert_eq!(next.0.parent, sent.id, "the next consumer goes on from the event");
    assert_eq!((&next.1.parent, &next.2.parent), (&next.0.id, &next.0.id));
    let kinds = [handled, settled, sent, next.0, next.1, next.2].map(|span| span.kind.as_str());
    assert_eq!(kinds, ["consumer", "client", "producer", "consumer", "client", "producer"]);
    assert_eq!(event.header("traceparent"), Some(format!("00-{TRACE}-{}-01", next.2.id).as_str()));
    assert_eq!(event.header("tracestate"), Some("vendor=1"));
    let version = stage.status_of("first").await?["version"].as_str().unwrap_or_default().to_owned();
    for (span, name, wanted) in [
        (handled, "messaging.operation.type", "process"),
        (handled, "messaging.destination.name", "in.a"),
        (handled, "messaging.destination.template", "in.>"),
        (handled, "messaging.message.id", "order-1"),
        (handled, "messaging.consumer.group.name", "pelton-first"),
        (handled, "pelton.consumer", "first"),
        (handled, "pelton.version", version.as_str()),
        (handled, "pelton.attempt", "1"),
        (handled, "pelton.outcome", "ok"),
        (handled, "pelton.stream", "IN"),
        (handled, "pelton.key", "a"),
        (settled, "messaging.operation.type", "settle"),
        (sent, "messaging.operation.type", "send"),
        (sent, "messaging.destination.name", "mid.a"),
        (sent, "pelton.consumer", "first"),
        (next.0, "messaging.message.id", attribute(sent, "messaging.message.id")),
        (next.0, "pelton.consumer", "second"),
        (next.2, "messaging.destination.name", "out.all"),
    ] {
        assert_eq!(attribute(span, name), wanted, "{name} of {span:#?}");
    }
    Ok(())
}

#[tokio::test]
async fn every_attempt_of_a_message_without_a_trace_is_in_one_and_failures_say_why() -> Result<()> {
    let collector = Collector::start()?;
    let stage = traced(&collector.url(), "").await?;
    stage.consumer("ledger", "ledger", |manifest| manifest)?;
    let mut stage = stage;
    stage.host.start().await?;
    stage.client.publish(&Outgoing::new("in.a", r#"{"n":1,"fails":2}"#).id("third-time")).await?;
    stage.event().await?;
    let spans = collector.wait(5, SOON).await?;
    let mut attempts: Vec<&Span> = spans.iter().filter(|span| span.kind == "consumer").collect();
    attempts.sort_by_key(|span| span.times_ns);
    let told = |name| attempts.iter().map(|span| attribute(span, name)).collect::<Vec<_>>();
    assert_eq!(told("pelton.attempt"), ["1", "2", "3"], "{spans:#?}");
    assert_eq!(told("pelton.outcome"), ["retry", "retry", "ok"]);
    assert_eq!(told("error.type"), ["retry", "retry", ""]);
    assert!(attempts[0].error.as_deref().is_some_and(|error| error.contains("as the payload asked")), "{attempts:#?}");
    assert!(attempts.iter().all(|span| span.parent.is_empty()), "{attempts:#?}");
    assert!(spans.iter().all(|span| span.trace == spans[0].trace), "{spans:#?}");
    Ok(())
}

#[tokio::test]
async fn an_event_that_is_published_after_a_restart_is_still_in_its_trace() -> Result<()> {
    let collector = Collector::start()?;
    let mut stage = traced(&collector.url(), "").await?;
    // Nobody keeps what the consumer emits until the host was killed.
    stage.host.guest("ledger")?;
    let manifest = Manifest::new("ledger.wasm", "IN", "in.>").emits("late.>").section("[config]", "out = \"late\"");
    stage.host.manifest("ledger", &manifest)?;
    stage.host.start().await?;
    stage.ledger("a", 1).await?;
    let spans = collector.wait(2, SOON).await?;
    let handled = one(&spans, "process in.>")?.clone();
    stage.host.kill()?;
    stage.client.create_stream(&StreamSpec::new("LATE", "late.>")).await?;
    stage.host.start().await?;
    let spans = collector.wait(3, SOON).await?;
    // Its consumer may not be deployed yet when it leaves, so the pattern of its grants need not be known.
    let sent = spans.iter().find(|span| span.kind == "producer").context("the event")?;
    assert!(sent.name.starts_with("send") && attribute(sent, "messaging.destination.name") == "late.a", "{sent:?}");
    assert_eq!((&sent.trace, &sent.parent), (&handled.trace, &handled.id));
    Ok(())
}

#[tokio::test]
async fn a_collector_that_is_dead_or_never_answers_costs_nothing_but_its_spans() -> Result<()> {
    // One that takes connections and says nothing, and one that is not there.
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    for address in [silent.local_addr()?, nobody] {
        let mut stage = traced(&format!("http://{address}"), "").await?;
        stage.consumer("ledger", "ledger", |manifest| manifest)?;
        stage.host.start().await?;
        // More spans than the queue holds.
        let messages: Vec<Outgoing> =
            (1..=6_000).map(|n| ledger_message(format!("in.k{}", n % 50), &format!("m{n}"), n, 64)).collect();
        stage.client.publish_all(&messages).await?;
        stage.events(6_000).await?;
        let lost = Scrape::of(&stage.host).await?;
        let of = |outcome| lost.value("pelton_spans_total", &[("outcome", outcome)]);
        assert!(of("exported")?.abs() < f64::EPSILON && of("dropped")? + of("failed")? > 1_000.0, "{lost:#?}");
        let begun = Instant::now();
        assert!(stage.host.stop().await?.success());
        assert!(begun.elapsed() < Duration::from_secs(15), "the stop waits for no collector");
        let log = stage.host.log();
        let told = log.lines().filter(|line| line.contains("spans could not be sent")).count();
        assert!(told <= 2, "once a minute, and perhaps at the end: {log}");
    }
    Ok(())
}

#[tokio::test]
async fn the_environment_names_the_collector_and_the_service() -> Result<()> {
    let collector = Collector::start()?;
    let mut stage = Stage::new().await?;
    stage.consumer("ledger", "ledger", |manifest| manifest)?;
    stage.host.add_environment("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url());
    stage.host.add_environment("OTEL_SERVICE_NAME", "orders-host");
    stage.host.start().await?;
    stage.ledger("a", 1).await?;
    let spans = collector.wait(3, SOON).await?;
    assert!(spans.iter().all(|span| span.service == "orders-host"), "{spans:#?}");
    Ok(())
}

#[tokio::test]
async fn what_is_no_collector_is_refused_at_the_start() -> Result<()> {
    let mut stage = Stage::new().await?;
    stage.host.add_environment("OTEL_EXPORTER_OTLP_ENDPOINT", "nowhere");
    stage.host.spawn()?;
    let status = stage.host.wait_exit(SOON).await?;
    assert_eq!(status.code(), Some(1));
    let log = stage.host.log();
    assert!(
        log.contains("OTEL_EXPORTER_OTLP_ENDPOINT") && log.contains("nowhere") && log.contains("is no collector"),
        "{log}"
    );
    let stage = traced("localhost:4318", "sample_ratio = 2").await?;
    let checked = stage.host.run(&["check"])?;
    let said = String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout);
    assert_eq!(checked.status.code(), Some(2), "{said}");
    assert!(said.contains("otlp_endpoint") && said.contains("sample_ratio"), "{said}");
    Ok(())
}

#[tokio::test]
async fn times_of_traced_attempts_lead_to_their_traces() -> Result<()> {
    let collector = Collector::start()?;
    let mut stage = traced(&collector.url(), "").await?;
    stage.consumer("ledger", "ledger", |manifest| manifest)?;
    stage.host.start().await?;
    stage.ledger("a", 1).await?;
    let spans = collector.wait(3, SOON).await?;
    let told = stage.host.get("/metrics").await?.body;
    let exemplar = format!("# {{trace_id=\"{}\"}}", spans[0].trace);
    let line = told.lines().find(|line| line.contains(&exemplar)).with_context(|| format!("{exemplar} in {told}"))?;
    assert!(line.starts_with("pelton_traced_handler_duration_seconds_bucket{"), "{line}");
    Ok(())
}
