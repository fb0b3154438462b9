//! Whatever a batch holds comes back from its record.

use pelton_core::batch::{Binding, StreamIdentity};
use pelton_core::effects::WriteSet;
use pelton_core::ids::{ConsumerId, RowId};
use proptest::prelude::*;

use super::*;

/// The batch of a record: what a reader of the log on another machine would do.
fn to_batch(record: &BatchRecord<'_>) -> Batch {
    Batch {
        wall_ms: record.wall_ms,
        bindings: record.bindings.iter().map(to_binding).collect(),
        settlements: record.settlements.iter().map(|settlement| to_settlement(settlement, &record.versions)).collect(),
        floors: record.floors.iter().map(|(consumer, floor)| (ConsumerId(*consumer), *floor)).collect(),
        stretches: record.stretches.iter().map(|(id, first, last)| (ConsumerId(*id), *first, *last)).collect(),
        published: record.published.iter().copied().map(RowId).collect(),
    }
}

fn to_binding(binding: &BindingRecord<'_>) -> Binding {
    Binding {
        consumer: ConsumerId(binding.consumer),
        name: binding.name.into(),
        stream: StreamIdentity { name: binding.stream.into(), created_ns: binding.created_ns },
        floor: binding.floor,
    }
}

fn to_settlement(settlement: &SettlementRecord<'_>, versions: &[[u8; 32]]) -> Settlement {
    let outcome = match &settlement.outcome {
        OutcomeRecord::Applied(applied) => Outcome::Applied {
            version: Version(versions[applied.version as usize]),
            mark: applied.mark.map(|mark| IdHash(u128::from_be_bytes(mark))),
            state_key: applied.state_key.map(Arc::from),
            writes: WriteSet {
                state: applied.state.iter().map(to_write).collect(),
                events: applied.events.iter().map(|event| Arc::new(event.to_event())).collect(),
            },
            first_row: RowId(applied.first_row),
        },
        OutcomeRecord::Duplicate => Outcome::Duplicate,
        OutcomeRecord::DeadLettered(letter) => Outcome::DeadLettered(Arc::new(letter.to_dead_letter())),
    };
    Settlement { consumer: ConsumerId(settlement.consumer), sequence: settlement.sequence, outcome }
}

fn to_write(write: &StateRecord<'_>) -> StateWrite {
    let value = write
        .value
        .map(|value| StateValue { bytes: Bytes::copy_from_slice(value.bytes), expires_at_ms: value.expires_at_ms });
    StateWrite { space: write.space.into(), key: write.key.into(), value }
}

fn text() -> impl Strategy<Value = Box<str>> {
    "\\PC{0,12}".prop_map(Box::from)
}

fn key() -> impl Strategy<Value = Option<Arc<str>>> {
    prop::option::of(text().prop_map(Arc::from))
}

fn payload() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn headers() -> impl Strategy<Value = Headers> {
    prop::collection::vec((text(), text()), 0..3)
}

fn version() -> impl Strategy<Value = Version> {
    (0_u8..3).prop_map(|byte| Version([byte; 32]))
}

fn mark() -> impl Strategy<Value = Option<IdHash>> {
    prop::option::of(any::<u128>().prop_map(IdHash))
}

fn write() -> impl Strategy<Value = StateWrite> {
    let value =
        (payload(), any::<Option<u64>>()).prop_map(|(bytes, expires_at_ms)| StateValue { bytes, expires_at_ms });
    (prop::bool::ANY, text(), prop::option::of(value)).prop_map(|(user, key, value)| {
        let space = if user { Space::User } else { Space::Mark };
        StateWrite { space, key, value }
    })
}

fn event() -> impl Strategy<Value = Event> {
    (text(), text(), key(), headers(), payload()).prop_map(|(id, subject, key, headers, payload)| Event {
        id,
        subject,
        key,
        headers,
        payload,
    })
}

fn failure() -> impl Strategy<Value = Failure> {
    prop_oneof![
        (text(), any::<Option<u64>>()).prop_map(|(reason, after_ms)| Failure::Retry { reason, after_ms }),
        text().prop_map(|reason| Failure::Reject { reason }),
        (text(), any::<Option<u64>>()).prop_map(|(reason, after_ms)| Failure::Park { reason, after_ms }),
        text().prop_map(|reason| Failure::Trap { reason }),
        any::<u64>().prop_map(|limit_ms| Failure::Timeout { limit_ms }),
        text().prop_map(|reason| Failure::Limit { reason }),
    ]
}

fn cause() -> impl Strategy<Value = GivenUp> {
    prop_oneof![
        text().prop_map(GivenUp::Unreadable),
        Just(GivenUp::Rejected),
        Just(GivenUp::Exhausted),
        Just(GivenUp::ParkedTooLong),
    ]
}

fn dead_letter() -> impl Strategy<Value = DeadLetter> {
    let message = (text(), mark(), text(), key(), headers(), payload(), any::<u64>(), any::<u64>()).prop_map(
        |(id, mark, subject, key, headers, payload, sequence, published_at_ms)| {
            Arc::new(Message { id, mark, subject, key, headers, payload, sequence, published_at_ms })
        },
    );
    let attempt = (any::<u64>(), version(), failure()).prop_map(|(at_ms, version, failure)| FailedAttempt {
        at_ms,
        version,
        failure,
    });
    (message, cause(), prop::collection::vec(attempt, 0..3), any::<u32>(), any::<u64>())
        .prop_map(|(message, cause, history, attempts, at_ms)| DeadLetter { message, cause, history, attempts, at_ms })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let writes = (prop::collection::vec(write(), 0..3), prop::collection::vec(event(), 0..3))
        .prop_map(|(state, events)| WriteSet { state, events: events.into_iter().map(Arc::new).collect() });
    let applied =
        (version(), mark(), key(), writes, any::<u64>()).prop_map(|(version, mark, state_key, writes, row)| {
            Outcome::Applied { version, mark, state_key, writes, first_row: RowId(row) }
        });
    prop_oneof![
        4 => applied,
        1 => Just(Outcome::Duplicate),
        1 => dead_letter().prop_map(|letter| Outcome::DeadLettered(Arc::new(letter))),
    ]
}

fn batch() -> impl Strategy<Value = Batch> {
    let binding =
        (any::<u32>(), text(), text(), any::<i64>(), any::<u64>()).prop_map(|(id, name, stream, created_ns, floor)| {
            Binding { consumer: ConsumerId(id), name, stream: StreamIdentity { name: stream, created_ns }, floor }
        });
    let settlement = (any::<u32>(), any::<u64>(), outcome()).prop_map(|(id, sequence, outcome)| Settlement {
        consumer: ConsumerId(id),
        sequence,
        outcome,
    });
    let stretch = (any::<u32>().prop_map(ConsumerId), any::<u64>(), any::<u64>());
    let floor = (any::<u32>().prop_map(ConsumerId), any::<u64>());
    (
        any::<u64>(),
        prop::collection::vec(binding, 0..3),
        prop::collection::vec(settlement, 0..6),
        prop::collection::vec(floor, 0..3),
        prop::collection::vec(stretch, 0..3),
        prop::collection::vec(any::<u64>().prop_map(RowId), 0..5),
    )
        .prop_map(|(wall_ms, bindings, settlements, floors, stretches, published)| Batch {
            wall_ms,
            bindings,
            settlements,
            floors,
            stretches,
            published,
        })
}

proptest! {
    #[test]
    fn a_batch_comes_back_from_its_record(batch in batch()) {
        let bytes = encode(&BatchRecord::from(&batch), Vec::new()).unwrap();
        let record: BatchRecord<'_> = decode(&bytes).unwrap();
        prop_assert_eq!(to_batch(&record), batch);
    }

    #[test]
    fn bytes_that_are_no_record_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut bytes = bytes;
        let _may_be_either = decode::<BatchRecord<'_>>(&bytes);
        bytes.insert(0, FORMAT + 1);
        prop_assert!(matches!(decode::<BatchRecord<'_>>(&bytes), Err(RecordError::Format(_))));
    }
}
