//! Scrapes against the table of metrics: what is there, and that nothing else is.

use std::collections::{BTreeMap, BTreeSet};

use pelton_core::batch::{Hold, StreamIdentity};
use pelton_core::histogram::Histogram;
use pelton_core::ids::{ConsumerId, Version};
use pelton_core::{Counters, Failures};

use super::*;
use crate::telemetry::table::TABLE;

fn consumer(name: &str) -> ConsumerStatus {
    let mut end_to_end_ms = Histogram::default();
    [4, 4, 300].into_iter().for_each(|ms| end_to_end_ms.record(ms));
    let counters = Counters { applied: 3, dead_letters: 2, failures: Failures::default(), ..Counters::default() };
    ConsumerStatus {
        id: ConsumerId(1),
        name: name.into(),
        phase: "running",
        stream: Some(StreamIdentity { name: "S".into(), created_ns: 1 }),
        floor: 7,
        high: 9,
        held: 2,
        held_bytes: 512,
        lanes: 2,
        running: 1,
        waiting_retry: 0,
        outbox_pending: 1,
        outbox_oldest_ms: Some(8_500),
        quiet: false,
        settled_above: Vec::new(),
        highest_settled: 7,
        again: None,
        keys: 2,
        requested: 0,
        parked_rows: 0,
        parked_lanes: 0,
        lanes_releasing: 0,
        holds: vec![(HoldBy::Breaker, Hold { since_ms: 0, reason: "".into() })],
        counters,
        end_to_end_ms,
    }
}

fn scrape(books: bool) -> Scrape {
    let meters = Meters::default();
    let of_consumer = meters.consumer("orders");
    let version = Version([0xab; 32]);
    of_consumer.version(version).attempt(Called::Ok, 120);
    of_consumer.version(version).attempt(Called::Trap, 90);
    of_consumer.queue_wait_us.record(30);
    meters.commit_outcomes.record(3);
    meters.busy_us.add(2_500_000);
    meters.swap(Swap::Refused);
    let entry = Entry { version: Some(version), pending: 5, ..Entry::default() };
    let consumers = vec![consumer("orders")];
    let status = Status { consumers, relay_in_flight: 1, relay_queued: 0, relay_waiting: 0, draining: false };
    Scrape {
        wall_ms: 10_000,
        uptime_ms: 1_500,
        driver_age_ms: 20,
        meters: Arc::new(meters),
        books: books.then_some(status),
        entries: BTreeMap::from([("orders".into(), entry)]),
        overlay_bytes: 64,
        files: vec![("log", 4_096), ("view", 8_192)],
        connections: [("consume", true), ("publish", false)],
    }
}

#[test]
fn all_of_the_table_is_told_and_nothing_else() {
    let told = scrape(true).encode(Form::OpenMetrics).unwrap();
    let families: Vec<&str> = told.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let wanted: Vec<String> = TABLE
        .iter()
        .map(|metric| {
            let unit = metric.base.map(|base| format!("_{}", base.unit().as_str())).unwrap_or_default();
            format!("{}{unit} {}", metric.stem, metric.kind.as_str())
        })
        .collect();
    assert_eq!(families, wanted);
}

#[test]
fn values_come_out_under_their_labels() {
    let told = scrape(true).encode(Form::OpenMetrics).unwrap();
    let lines: BTreeSet<&str> = told.lines().collect();
    for line in [
        "pelton_messages_total{consumer=\"orders\",outcome=\"applied\"} 3",
        "pelton_messages_total{consumer=\"orders\",outcome=\"dead_letter\"} 2",
        "pelton_attempts_total{consumer=\"orders\",version=\"abababababab\",outcome=\"ok\"} 1",
        "pelton_attempts_total{consumer=\"orders\",version=\"abababababab\",outcome=\"trap\"} 1",
        "pelton_handler_duration_seconds_count{consumer=\"orders\",version=\"abababababab\"} 2",
        "pelton_handler_duration_seconds_bucket{le=\"0.00025\",consumer=\"orders\",version=\"abababababab\"} 2",
        "pelton_queue_wait_seconds_bucket{le=\"0.00005\",consumer=\"orders\"} 1",
        "pelton_end_to_end_seconds_sum{consumer=\"orders\"} 0.308",
        "pelton_end_to_end_seconds_bucket{le=\"+Inf\",consumer=\"orders\"} 3",
        "pelton_in_flight{consumer=\"orders\"} 2",
        "pelton_in_flight_bytes{consumer=\"orders\"} 512",
        "pelton_stream_lag{consumer=\"orders\",stream=\"S\"} 7",
        "pelton_outbox_oldest_age_seconds{consumer=\"orders\"} 1.5",
        "pelton_consumer_state{consumer=\"orders\",phase=\"running\"} 1",
        "pelton_consumer_state{consumer=\"orders\",phase=\"halted\"} 0",
        "pelton_consumer_paused{consumer=\"orders\",by=\"breaker\"} 1",
        "pelton_consumer_paused{consumer=\"orders\",by=\"operator\"} 0",
        "pelton_consumer_version_info{consumer=\"orders\",version=\"abababababab\"} 1",
        "pelton_executor_busy_seconds_total 2.5",
        "pelton_nats_connected{connection=\"publish\"} 0",
        "pelton_swap_total{result=\"refused\"} 1",
        "pelton_swap_total{result=\"swapped\"} 0",
        "pelton_store_bytes{file=\"view\"} 8192",
        "# EOF",
    ] {
        assert!(lines.contains(line), "{line}\n{told}");
    }
}

#[test]
fn a_driver_that_is_silent_hides_nothing_but_what_it_alone_knows() {
    let told = scrape(false).encode(Form::OpenMetrics).unwrap();
    assert!(told.contains("pelton_driver_heartbeat_age_seconds 0.02"), "{told}");
    assert!(told.contains("pelton_attempts_total{") && told.contains("pelton_store_bytes{"), "{told}");
    assert!(!told.contains("pelton_messages") && told.ends_with("# EOF\n"), "{told}");
}

#[test]
fn the_older_text_is_told_to_whoever_takes_nothing_else() {
    let openmetrics = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
    for (accept, form) in [
        (None, Form::OpenMetrics),
        (Some("*/*"), Form::OpenMetrics),
        (Some(openmetrics), Form::OpenMetrics),
        (Some("text/plain"), Form::Text),
        (Some("Text/Plain; version=0.0.4, */*"), Form::Text),
    ] {
        assert_eq!(Form::accepted(accept), form, "{accept:?}");
    }
    let told = scrape(true).encode(Form::Text).unwrap();
    assert!(told.contains("# TYPE pelton_messages_total counter") && !told.contains("# EOF"), "{told}");
}
