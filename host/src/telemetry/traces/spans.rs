//! The spans themselves, with the names of OpenTelemetry's messaging conventions. What they have no name for begins with `pelton.`.

use std::borrow::Cow;
use std::time::SystemTime;

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use pelton_core::trace::SpanIds;

use super::{Applied, Attempt, AttemptEnd, Leaving};
use crate::nats::durable_name;
use crate::telemetry::meters::Called;

/// An attempt: the handler is called with one message.
pub(super) fn process(attempt: &Attempt, end: &AttemptEnd<'_>, pattern: &str, ended: SystemTime) -> SpanData {
    let AttemptEnd { deployed, message, version, number, failure, took_us: _ } = end;
    let outcome = failure.map_or(Called::Ok, Called::failed).word();
    let mut attributes = vec![
        system(),
        KeyValue::new("messaging.operation.name", "process"),
        KeyValue::new("messaging.operation.type", "process"),
        KeyValue::new("messaging.destination.name", message.subject.to_string()),
        KeyValue::new("messaging.destination.template", pattern.to_owned()),
        KeyValue::new("messaging.consumer.group.name", durable_name(&deployed.name)),
        KeyValue::new("messaging.message.id", message.id.to_string()),
        KeyValue::new("messaging.message.body.size", number_of(message.payload.len())),
        consumer(&deployed.name),
        KeyValue::new("pelton.version", version.to_string()),
        KeyValue::new("pelton.attempt", i64::from(*number)),
        KeyValue::new("pelton.outcome", outcome),
        KeyValue::new("pelton.stream", message.stream.name.to_string()),
        KeyValue::new("pelton.sequence", i64::try_from(message.sequence).unwrap_or(i64::MAX)),
    ];
    attributes.extend(message.key.as_deref().map(|key| KeyValue::new("pelton.key", key.to_owned())));
    let status = match failure {
        None => Status::Unset,
        Some(failure) => {
            attributes.push(KeyValue::new("error.type", outcome));
            Status::error(failure.reason())
        }
    };
    SpanData {
        parent_span_is_remote: attempt.parent.is_some(),
        status,
        ..span(
            attempt.ids,
            attempt.parent,
            SpanKind::Consumer,
            format!("process {pattern}"),
            (attempt.started, ended),
            attributes,
        )
    }
}

/// From the end of the handler until its effects were durable.
pub(super) fn commit(applied: &Applied, batch: usize, durable: SystemTime) -> SpanData {
    let ids = SpanIds { span: applied.ids.event(u64::MAX - 1).span, ..applied.ids };
    let attributes = vec![
        system(),
        KeyValue::new("messaging.operation.name", "commit"),
        KeyValue::new("messaging.operation.type", "settle"),
        KeyValue::new("messaging.destination.template", applied.pattern.to_string()),
        KeyValue::new("messaging.consumer.group.name", durable_name(&applied.consumer)),
        consumer(&applied.consumer),
        KeyValue::new("pelton.batch.outcomes", number_of(batch)),
    ];
    let name = format!("settle {}", applied.pattern);
    span(ids, Some(applied.ids.span), SpanKind::Client, name, (applied.handled, durable), attributes)
}

/// From when an event was first handed to JetStream until it was acknowledged.
pub(super) fn send(leaving: &Leaving, acknowledged: SystemTime) -> SpanData {
    let Leaving { ids, cause, event, consumer: emitted_by, pattern, handed_over } = leaving;
    let mut attributes = vec![
        system(),
        KeyValue::new("messaging.operation.name", "publish"),
        KeyValue::new("messaging.operation.type", "send"),
        KeyValue::new("messaging.destination.name", event.subject.to_string()),
        KeyValue::new("messaging.message.id", event.id.to_string()),
        KeyValue::new("messaging.message.body.size", number_of(event.payload.len())),
        consumer(emitted_by),
    ];
    let name = match pattern {
        Some(pattern) => {
            attributes.push(KeyValue::new("messaging.destination.template", pattern.to_string()));
            format!("send {pattern}")
        }
        None => "send".to_owned(),
    };
    span(*ids, Some(*cause), SpanKind::Producer, name, (*handed_over, acknowledged), attributes)
}

fn span(
    ids: SpanIds,
    parent: Option<u64>,
    kind: SpanKind,
    name: String,
    (start_time, end_time): (SystemTime, SystemTime),
    attributes: Vec<KeyValue>,
) -> SpanData {
    let id = |id: u64| SpanId::from_bytes(id.to_be_bytes());
    let trace = TraceId::from_bytes(ids.trace.to_be_bytes());
    SpanData {
        span_context: SpanContext::new(trace, id(ids.span), TraceFlags::SAMPLED, false, TraceState::NONE),
        parent_span_id: parent.map_or(SpanId::INVALID, id),
        parent_span_is_remote: false,
        span_kind: kind,
        name: Cow::Owned(name),
        start_time,
        end_time: end_time.max(start_time),
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::builder("pelton").with_version(env!("CARGO_PKG_VERSION")).build(),
    }
}

fn system() -> KeyValue {
    KeyValue::new("messaging.system", "nats")
}

fn consumer(name: &str) -> KeyValue {
    KeyValue::new("pelton.consumer", name.to_owned())
}

fn number_of(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
