//! Whatever a batch holds comes back from its record.

use pelton_core::batch::{Binding, Newest, StreamIdentity};
use pelton_core::effects::WriteSet;
use pelton_core::ids::{ConsumerId, IdHash, ParkId, RowId};
use pelton_core::message::{DeadLetter, FailedAttempt, Failure, GivenUp, Message};
use pelton_core::parked::{ParkCause, ParkLane, ParkPlace, Parked};
use proptest::prelude::*;

use super::*;

/// The batch of a record: what a reader of the log on another machine would do.
fn to_batch(record: &BatchRecord<'_>) -> Batch {
    Batch {
        wall_ms: record.wall_ms,
        bindings: record.bindings.iter().map(to_binding).collect(),
        edits: record.edits.iter().map(to_edit).collect(),
        settlements: record.settlements.iter().map(|settlement| to_settlement(settlement, &record.versions)).collect(),
        floors: record.floors.iter().map(|(consumer, floor)| (ConsumerId(*consumer), *floor)).collect(),
        newest: (record.newest.iter())
            .map(|(id, sequence, published_at_ms)| {
                (ConsumerId(*id), Newest { sequence: *sequence, published_at_ms: *published_at_ms })
            })
            .collect(),
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
        OutcomeRecord::Stale => Outcome::Stale,
        OutcomeRecord::DeadLettered { letter, copy } => Outcome::DeadLettered {
            letter: Arc::new(letter.to_dead_letter()),
            copy: copy.as_ref().map(|(row, event)| (RowId(*row), Arc::new(event.to_event()))),
        },
        OutcomeRecord::Parked(row) => Outcome::Parked(Arc::new(row.to_parked())),
    };
    let released = settlement.released.map(PlaceRecord::to_place);
    Settlement { consumer: ConsumerId(settlement.consumer), sequence: settlement.sequence, released, outcome }
}

fn to_edit(edit: &EditRecord<'_>) -> Edit {
    let consumer = ConsumerId(edit.consumer());
    match edit {
        EditRecord::RemoveDeadLetter { sequence, published_at_ms, .. } => {
            Edit::RemoveDeadLetter { consumer, sequence: *sequence, published_at_ms: *published_at_ms }
        }
        EditRecord::Park { row, .. } => {
            assert_eq!(row.place().to_place(), row.to_parked().place());
            Edit::Park { consumer, row: Arc::new(row.to_parked()) }
        }
        EditRecord::RemoveParked { place, .. } => Edit::RemoveParked { consumer, place: place.to_place() },
        EditRecord::Hold { by, hold, .. } => {
            Edit::Hold { consumer, by: (*by).into(), hold: hold.map(HoldRecord::to_hold) }
        }
        EditRecord::MoveCursor { after, again, .. } => {
            Edit::MoveCursor { consumer, after: *after, again: again.map(Again::from) }
        }
        EditRecord::State { key, writes, .. } => {
            let writes = WriteSet { state: writes.iter().map(to_write).collect(), events: Vec::new() };
            Edit::State { consumer, key: key.map(Arc::from), writes: Arc::new(writes) }
        }
        EditRecord::Forget { .. } => Edit::Forget { consumer },
    }
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
    let space = prop_oneof![Just(Space::User), Just(Space::Mark), Just(Space::Host)];
    (space, text(), prop::option::of(value)).prop_map(|(space, key, value)| StateWrite { space, key, value })
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
        Just(GivenUp::GapNeverFilled),
    ]
}

fn stream() -> impl Strategy<Value = StreamIdentity> {
    (text(), any::<i64>()).prop_map(|(name, created_ns)| StreamIdentity { name, created_ns })
}

fn message() -> impl Strategy<Value = Arc<Message>> {
    let content = (text(), mark(), text(), key(), headers(), payload());
    let origin = (any::<u64>(), any::<u64>(), stream(), any::<Option<u64>>());
    (content, origin).prop_map(
        |((id, mark, subject, key, headers, payload), (sequence, published_at_ms, stream, entity_version))| {
            let stream = Arc::new(stream);
            Arc::new(Message {
                id,
                mark,
                subject,
                key,
                headers,
                payload,
                sequence,
                published_at_ms,
                stream,
                entity_version,
            })
        },
    )
}

fn history() -> impl Strategy<Value = Vec<FailedAttempt>> {
    let attempt = (any::<u64>(), version(), failure()).prop_map(|(at_ms, version, failure)| FailedAttempt {
        at_ms,
        version,
        failure,
    });
    prop::collection::vec(attempt, 0..3)
}

fn park_cause() -> impl Strategy<Value = ParkCause> {
    prop_oneof![
        Just(ParkCause::Exhausted),
        Just(ParkCause::Retrying),
        Just(ParkCause::Asked),
        any::<u64>().prop_map(|expected| ParkCause::Gap { expected }),
        Just(ParkCause::Behind),
        Just(ParkCause::Replayed),
    ]
}

fn parked() -> impl Strategy<Value = Arc<Parked>> {
    let times = (any::<Option<u64>>(), any::<u64>());
    let counts = (any::<u32>(), any::<u32>(), any::<u32>());
    (any::<u64>(), message(), park_cause(), times, counts, history()).prop_map(
        |(id, message, cause, (until_ms, parked_at_ms), (releases, attempts, failures), history)| {
            let id = ParkId(id);
            Arc::new(Parked { id, message, cause, until_ms, parked_at_ms, releases, attempts, failures, history })
        },
    )
}

fn place() -> impl Strategy<Value = ParkPlace> {
    let lane = prop_oneof![
        text().prop_map(|key| ParkLane::Key(key.into())),
        any::<u64>().prop_map(|id| ParkLane::Alone(ParkId(id))),
    ];
    (lane, any::<u64>(), any::<u64>()).prop_map(|(lane, order, id)| ParkPlace { lane, order, id: ParkId(id) })
}

fn edit() -> impl Strategy<Value = Edit> {
    let consumer = || any::<u32>().prop_map(ConsumerId);
    let by = prop_oneof![Just(HoldBy::Operator), Just(HoldBy::Breaker)];
    let hold = prop::option::of((any::<u64>(), text()).prop_map(|(since_ms, reason)| Hold { since_ms, reason }));
    prop_oneof![
        (consumer(), any::<u64>(), any::<u64>()).prop_map(|(consumer, sequence, published_at_ms)| {
            Edit::RemoveDeadLetter { consumer, sequence, published_at_ms }
        }),
        (consumer(), parked()).prop_map(|(consumer, row)| Edit::Park { consumer, row }),
        (consumer(), place()).prop_map(|(consumer, place)| Edit::RemoveParked { consumer, place }),
        (consumer(), by, hold).prop_map(|(consumer, by, hold)| Edit::Hold { consumer, by, hold }),
        (consumer(), any::<u64>(), any::<Option<(u32, u64, u64)>>()).prop_map(|(consumer, after, again)| {
            let again = again.map(|(number, after, until)| Again { number, after, until });
            Edit::MoveCursor { consumer, after, again }
        }),
        (consumer(), key(), prop::collection::vec(write(), 0..3)).prop_map(|(consumer, key, state)| {
            Edit::State { consumer, key, writes: Arc::new(WriteSet { state, events: Vec::new() }) }
        }),
        consumer().prop_map(|consumer| Edit::Forget { consumer }),
    ]
}

fn dead_letter() -> impl Strategy<Value = Arc<DeadLetter>> {
    (message(), cause(), history(), any::<u32>(), any::<u64>()).prop_map(
        |(message, cause, history, attempts, at_ms)| Arc::new(DeadLetter { message, cause, history, attempts, at_ms }),
    )
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let writes = (prop::collection::vec(write(), 0..3), prop::collection::vec(event(), 0..3))
        .prop_map(|(state, events)| WriteSet { state, events: events.into_iter().map(Arc::new).collect() });
    let applied =
        (version(), mark(), key(), writes, any::<u64>()).prop_map(|(version, mark, state_key, writes, row)| {
            Outcome::Applied { version, mark, state_key, writes, first_row: RowId(row) }
        });
    let copy = prop::option::of((any::<u64>().prop_map(RowId), event().prop_map(Arc::new)));
    prop_oneof![
        4 => applied,
        1 => Just(Outcome::Duplicate),
        1 => Just(Outcome::Stale),
        1 => (dead_letter(), copy).prop_map(|(letter, copy)| Outcome::DeadLettered { letter, copy }),
        1 => parked().prop_map(Outcome::Parked),
    ]
}

fn batch() -> impl Strategy<Value = Batch> {
    let binding =
        (any::<u32>(), text(), text(), any::<i64>(), any::<u64>()).prop_map(|(id, name, stream, created_ns, floor)| {
            Binding { consumer: ConsumerId(id), name, stream: StreamIdentity { name: stream, created_ns }, floor }
        });
    let settlement = (any::<u32>(), any::<u64>(), prop::option::of(place()), outcome()).prop_map(
        |(id, sequence, released, outcome)| Settlement { consumer: ConsumerId(id), sequence, released, outcome },
    );
    let stretch = (any::<u32>().prop_map(ConsumerId), any::<u64>(), any::<u64>());
    let floor = (any::<u32>().prop_map(ConsumerId), any::<u64>());
    let newest = (any::<u32>(), any::<u64>(), any::<u64>())
        .prop_map(|(id, sequence, published_at_ms)| (ConsumerId(id), Newest { sequence, published_at_ms }));
    (
        any::<u64>(),
        prop::collection::vec(binding, 0..3),
        prop::collection::vec(edit(), 0..4),
        prop::collection::vec(settlement, 0..6),
        prop::collection::vec(floor, 0..3),
        prop::collection::vec(newest, 0..3),
        prop::collection::vec(stretch, 0..3),
        prop::collection::vec(any::<u64>().prop_map(RowId), 0..5),
    )
        .prop_map(|(wall_ms, bindings, edits, settlements, floors, newest, stretches, published)| Batch {
            wall_ms,
            bindings,
            edits,
            settlements,
            floors,
            newest,
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
