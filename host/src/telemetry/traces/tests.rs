//! What is recorded of attempts, commits and events, without a collector.

use bytes::Bytes;
use opentelemetry::trace::{SpanId, SpanKind, Status};
use pelton_core::batch::{Settlement, StreamIdentity};
use pelton_core::effects::WriteSet;

use super::*;

const PUBLISHER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn message(sequence: u64, headers: &[(&str, &str)]) -> Message {
    Message {
        id: "m-1".into(),
        mark: None,
        subject: "orders.eu.new".into(),
        key: Some("alice".into()),
        headers: headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        payload: Bytes::from_static(b"12345"),
        sequence,
        published_at_ms: 0,
        stream: Arc::new(StreamIdentity { name: "ORDERS".into(), created_ns: 1 }),
        entity_version: None,
    }
}

fn traces(sample_ratio: f64, queue: usize) -> (Traces, mpsc::Receiver<SpanData>, Arc<Spans>) {
    let (spans, recorded) = mpsc::channel(queue);
    let counts = Arc::<Spans>::default();
    (Traces::new(sample_ratio, 7, spans, Arc::clone(&counts)), recorded, counts)
}

fn event(id: &str, ids: SpanIds) -> Arc<Event> {
    let headers = vec![(TRACEPARENT.into(), ids.to_string().into())];
    Arc::new(Event { id: id.into(), subject: "out.a".into(), key: None, headers, payload: Bytes::new() })
}

fn applied(sequence: u64) -> Batch {
    let outcome = Outcome::Applied {
        version: Version([1; 32]),
        mark: None,
        state_key: None,
        writes: WriteSet { state: Vec::new(), events: Vec::new() },
        first_row: RowId(0),
    };
    let settlement = Settlement { consumer: ConsumerId(1), sequence, released: None, outcome };
    Batch { settlements: vec![settlement], ..Batch::default() }
}

/// The span of a commit is only asked for after that of its attempt, which needs a deployed consumer: here it is entered by hand.
fn wait_for_commit(traces: &Traces, sequence: u64, ids: SpanIds) {
    let applied = Applied { ids, handled: SystemTime::now(), consumer: "orders".into(), pattern: "orders.>".into() };
    traces.dropped(traces.applied.insert((ConsumerId(1), sequence), applied));
}

#[test]
fn a_message_goes_on_with_the_trace_of_its_publisher() {
    let (traces, ..) = traces(0.0, 1);
    let attempt = traces.attempt(ConsumerId(1), &message(1, &[("TraceParent", PUBLISHER)]), 1, 5);
    let publisher = SpanIds::parse(PUBLISHER).unwrap();
    assert_eq!((attempt.ids.trace, attempt.parent), (publisher.trace, Some(publisher.span)));
    assert!(attempt.ids.sampled, "the publisher decided, whatever the ratio");
    assert_ne!(attempt.ids.span, publisher.span);
}

#[test]
fn a_message_without_a_trace_begins_one_that_all_its_attempts_share() {
    let (traces, ..) = traces(1.0, 1);
    let first = traces.attempt(ConsumerId(1), &message(1, &[]), 1, 5);
    let again = traces.attempt(ConsumerId(1), &message(1, &[]), 2, 6);
    let elsewhere = traces.attempt(ConsumerId(2), &message(1, &[]), 1, 5);
    let other = traces.attempt(ConsumerId(1), &message(2, &[]), 1, 5);
    assert!(first.ids.sampled && first.parent.is_none());
    assert_eq!((again.ids.trace, elsewhere.ids.trace), (first.ids.trace, first.ids.trace));
    assert_ne!(other.ids.trace, first.ids.trace);
    let spans = [first, again, elsewhere, other].map(|attempt| attempt.ids.span);
    assert_eq!(std::collections::BTreeSet::from(spans).len(), 4);
    let same = traces.attempt(ConsumerId(1), &message(1, &[]), 1, 5);
    assert_eq!(same.ids, first.ids, "ids follow from the attempt and its time");
}

#[test]
fn so_many_traces_are_recorded_as_the_ratio_says() {
    for (ratio, range) in [(0.0, 0..=0), (0.25, 2_300..=2_700), (1.0, 10_000..=10_000)] {
        let (traces, ..) = traces(ratio, 1);
        let sampled = |sequence: &u64| traces.attempt(ConsumerId(1), &message(*sequence, &[]), 1, 5).ids.sampled;
        let recorded = (0..10_000).filter(sampled).count();
        assert!(range.contains(&recorded), "{ratio}: {recorded}");
    }
}

#[test]
fn the_commit_is_a_child_of_its_attempt() {
    let (traces, mut recorded, _) = traces(1.0, 4);
    let attempt = traces.attempt(ConsumerId(1), &message(1, &[]), 1, 5);
    wait_for_commit(&traces, 1, attempt.ids);
    traces.committed(&applied(2));
    assert!(recorded.try_recv().is_err(), "another message's commit");
    traces.committed(&applied(1));
    let span = recorded.try_recv().unwrap();
    assert_eq!((span.name.as_ref(), span.span_kind), ("settle orders.>", SpanKind::Client));
    assert_eq!(span.parent_span_id, SpanId::from_bytes(attempt.ids.span.to_be_bytes()));
    assert_eq!(span.status, Status::Unset);
    traces.committed(&applied(1));
    assert!(recorded.try_recv().is_err(), "it is told once");
}

#[test]
fn an_event_knows_the_attempt_that_emitted_it_also_after_a_restart() {
    let (traces, mut recorded, _) = traces(1.0, 4);
    let attempt = SpanIds::parse(PUBLISHER).unwrap();
    traces.leaving(RowId(3), &event("orders:ORDERS:1:9:2", attempt.event(2)), |_| None);
    traces.leaving(RowId(6), &event("orders:ORDERS:1:9:2:again-1", attempt.event(2)), |_| None);
    traces.acknowledged(&[RowId(6)]);
    let again = recorded.try_recv().unwrap();
    assert_eq!(again.parent_span_id, SpanId::from_bytes(attempt.span.to_be_bytes()), "also after a rewind");
    traces.acknowledged(&[RowId(2), RowId(3)]);
    let span = recorded.try_recv().unwrap();
    assert_eq!(span.span_kind, SpanKind::Producer);
    assert_eq!(span.parent_span_id, SpanId::from_bytes(attempt.span.to_be_bytes()));
    assert_eq!(span.span_context.span_id(), SpanId::from_bytes(attempt.event(2).span.to_be_bytes()));
    let copy = event("orders:ORDERS:1:9:dead-letter", attempt);
    let unsampled = event("orders:ORDERS:1:9:0", SpanIds { sampled: false, ..attempt });
    traces.leaving(RowId(4), &copy, |_| None);
    traces.leaving(RowId(5), &unsampled, |_| None);
    traces.acknowledged(&[RowId(4), RowId(5)]);
    assert!(recorded.try_recv().is_err(), "neither a copy of a dead letter nor what nobody records");
}

#[test]
fn a_full_queue_drops_and_counts() {
    let (traces, _recorded, counts) = traces(1.0, 2);
    for sequence in 0..5 {
        let attempt = traces.attempt(ConsumerId(1), &message(sequence, &[]), 1, 5);
        wait_for_commit(&traces, sequence, attempt.ids);
        traces.committed(&applied(sequence));
    }
    assert_eq!(counts.dropped.get(), 3);
}
