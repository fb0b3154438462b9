//! The transaction against a view held in a map.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::batch::StreamIdentity;
use crate::ids::{ConsumerId, Version};

#[derive(Default)]
struct MapView(BTreeMap<Box<str>, Bytes>);

impl StateView for MapView {
    fn get(&self, _: &Scope, space: Space, key: &str, _: u64) -> Result<Option<Bytes>, ReadError> {
        Ok(if space == Space::User { self.0.get(key).cloned() } else { None })
    }

    fn range(
        &self,
        _: &Scope,
        prefix: &str,
        from: Bound<&str>,
        limit: usize,
        _: u64,
    ) -> Result<Vec<(Box<str>, Bytes)>, ReadError> {
        let inside = |key: &str| match from {
            Bound::Excluded(after) => key > after,
            Bound::Included(first) => key >= first,
            Bound::Unbounded => true,
        };
        let entries = self.0.iter().filter(|(key, _)| key.starts_with(prefix) && inside(key));
        Ok(entries.take(limit).map(|(k, v)| (k.clone(), v.clone())).collect())
    }
}

fn message(headers: &[(&str, &str)]) -> Arc<Message> {
    Arc::new(Message {
        id: "m-1".into(),
        mark: None,
        subject: "orders.new".into(),
        key: Some("alice".into()),
        headers: headers.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect(),
        payload: Bytes::new(),
        sequence: 7,
        published_at_ms: 0,
        stream: Arc::new(StreamIdentity { name: "S".into(), created_ns: 1 }),
        entity_version: None,
    })
}

fn terms(limits: EffectLimits) -> Arc<Terms> {
    let grants = Grants { emit: vec!["out.>".into()] };
    Arc::new(Terms {
        grants,
        limits,
        mark_ttl_ms: 1_000,
        consumer_name: "c".into(),
        shared_state: false,
        version: Version([0xab; 32]).to_string().into(),
    })
}

fn begin(view: MapView, limits: EffectLimits) -> Transaction {
    Transaction::new(Arc::new(view), terms(limits), ConsumerId(1), message(&[]), 5_000)
}

fn view(entries: &[(&str, &str)]) -> MapView {
    MapView(entries.iter().map(|(k, v)| (Box::from(*k), Bytes::copy_from_slice(v.as_bytes()))).collect())
}

#[test]
fn reads_see_own_writes_and_deletes() {
    let mut tx = begin(view(&[("a", "old"), ("b", "old")]), EffectLimits::default());
    tx.set("a", Bytes::from_static(b"new"), None).unwrap();
    tx.delete("b").unwrap();
    assert_eq!(tx.get("a").unwrap().unwrap(), "new");
    assert_eq!(tx.get("b").unwrap(), None);
    assert_eq!(tx.into_writes().state.len(), 2);
}

#[test]
fn a_time_to_live_of_zero_is_over_at_once() {
    let mut tx = begin(MapView::default(), EffectLimits::default());
    tx.set("a", Bytes::from_static(b"x"), Some(0)).unwrap();
    assert_eq!(tx.get("a").unwrap(), None);
}

#[test]
fn marks_and_state_do_not_meet() {
    let mut tx = begin(MapView::default(), EffectLimits::default());
    tx.set("id", Bytes::from_static(b"x"), None).unwrap();
    assert!(!tx.seen("id").unwrap());
    tx.mark("id", None).unwrap();
    assert!(tx.seen("id").unwrap());
    let writes = tx.into_writes();
    assert_eq!(writes.state.len(), 2);
    assert_eq!(writes.state[1].value.as_ref().unwrap().expires_at_ms, Some(6_000));
}

#[test]
fn events_have_ids_that_depend_on_message_and_position_only() {
    let emit = |key| {
        let mut tx = begin(MapView::default(), EffectLimits::default());
        let first = tx.emit("out.a", Bytes::new(), &[], key).unwrap().unwrap();
        let second = tx.emit("out.b", Bytes::new(), &[], key).unwrap().unwrap();
        (first, second, tx.into_writes().events[0].key.clone())
    };
    let (first, second, key) = emit(None);
    assert_eq!((first.as_str(), second.as_str()), ("c:S:1:7:0", "c:S:1:7:1"));
    assert_eq!(key.as_deref(), Some("alice"));
    assert_eq!(emit(Some("bob")).2.as_deref(), Some("bob"));
}

#[test]
fn an_event_id_stays_the_same_from_version_to_version_of_the_host() {
    let mut extreme = Message::clone(&message(&[]));
    extreme.stream = Arc::new(StreamIdentity { name: "ORDERS".into(), created_ns: 1_764_144_503_000_000_000 });
    assert_eq!(event_id("shop", &extreme, 12), "shop:ORDERS:187b801421c5e600:7:12");
    extreme.stream = Arc::new(StreamIdentity { name: Box::default(), created_ns: i64::MIN });
    extreme.sequence = u64::MAX;
    let again = format_args!("{}:again-{}", usize::MAX, u32::MAX).to_string();
    let id = format!("c::8000000000000000:18446744073709551615:{again}");
    assert_eq!(event_id("c", &extreme, again), id);
}

#[test]
fn events_carry_causes_and_the_trace() {
    let caused = |headers: &[(&str, &str)]| {
        let view = Arc::new(MapView::default());
        let mut tx = Transaction::new(view, terms(EffectLimits::default()), ConsumerId(1), message(headers), 0);
        tx.emit("out.a", Bytes::new(), &[("X".into(), "y".into())], None).unwrap().unwrap();
        let event = tx.into_writes().events.remove(0);
        event.headers.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>()
    };
    let version = format!("pelton-version={}", "ab".repeat(32));
    assert_eq!(caused(&[]), ["pelton-correlation-id=m-1", "pelton-causation-id=m-1", &version, "X=y"]);
    assert_eq!(
        caused(&[("Pelton-Correlation-Id", "first"), ("Traceparent", "00-1")]),
        ["pelton-correlation-id=first", "pelton-causation-id=m-1", &version, "traceparent=00-1", "X=y"]
    );
}

#[test]
fn a_refused_event_leaves_nothing() {
    let mut tx = begin(MapView::default(), EffectLimits::default());
    for subject in ["out.*", "out.>", "", "out..a", "out.a b"] {
        let refused = tx.emit(subject, Bytes::new(), &[], None).unwrap();
        assert!(matches!(refused, Err(EmitRefused::InvalidSubject(_))), "{subject}");
    }
    for subject in ["other.a", "$JS.API.STREAM.PURGE.X", "_INBOX.x"] {
        assert!(
            matches!(tx.emit(subject, Bytes::new(), &[], None).unwrap(), Err(EmitRefused::NotGranted(_))),
            "{subject}"
        );
    }
    for (name, value) in [
        ("", "x"),
        ("a:b", "x"),
        ("a", "x\r\ny"),
        ("a", "\r"),
        ("Nats-Msg-Id", "x"),
        ("pelton-x", "y"),
        ("PELTON-", "y"),
    ] {
        let refused = tx.emit("out.a", Bytes::new(), &[(name.into(), value.into())], None).unwrap();
        assert!(matches!(refused, Err(EmitRefused::InvalidHeader(_))), "{name:?}: {value:?}");
    }
    assert!(tx.into_writes().events.is_empty());
}

#[test]
fn each_limit_ends_the_attempt_and_names_itself() {
    let small = EffectLimits {
        state_key_bytes_max: 3,
        state_value_bytes_max: 4,
        writes_max: 2,
        write_bytes_max: 6,
        reads_max: 2,
        events_max: 1,
        event_bytes_max: 4,
        event_header_bytes_max: 4,
    };
    let four = || Bytes::from_static(b"four");
    type Call = fn(&mut Transaction) -> Result<(), CallError>;
    let emit = |tx: &mut Transaction, bytes: &'static [u8], value: &str| {
        tx.emit("out.a", Bytes::from_static(bytes), &[("a".into(), value.into())], None).map(drop)
    };
    type BoxedCall = Box<dyn Fn(&mut Transaction) -> Result<(), CallError>>;
    let cases: [(&str, BoxedCall); 8] = [
        ("state_key_bytes_max", Box::new(|tx| tx.get("long").map(drop))),
        ("state_value_bytes_max", Box::new(|tx| tx.set("a", Bytes::from_static(b"12345"), None))),
        ("writes_max", Box::new(|tx| ["a", "a", "a"].iter().try_for_each(|key| tx.delete(key)))),
        ("write_bytes_max", Box::new(move |tx| ["a", "b"].iter().try_for_each(|key| tx.set(key, four(), None)))),
        ("reads_max", Box::new((|tx| ["a", "b", "c"].iter().try_for_each(|key| tx.get(key).map(drop))) as Call)),
        ("events_max", Box::new(move |tx| emit(tx, b"", "").and_then(|()| emit(tx, b"", "")))),
        ("event_bytes_max", Box::new(move |tx| emit(tx, b"12345", ""))),
        ("event_header_bytes_max", Box::new(move |tx| emit(tx, b"", "1234"))),
    ];
    for (name, call) in cases {
        match call(&mut begin(MapView::default(), small)) {
            Err(CallError::Limit(passed)) => assert_eq!(passed.limit, name),
            other => panic!("{name}: {other:?}"),
        }
    }
}

proptest! {
    #[test]
    fn pages_put_together_are_the_merged_whole(
        stored in prop::collection::btree_map("[ab]{1,4}", "[xy]{0,3}", 0..300),
        writes in prop::collection::vec(("[ab]{1,4}", prop::option::of("[xy]{0,3}")), 0..40),
        prefix in "[ab]{0,2}",
        limit in 1_usize..40,
    ) {
        let stored: Vec<(&str, &str)> = stored.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let mut model: BTreeMap<String, String> = stored.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let mut tx = begin(view(&stored), EffectLimits::default());
        for (key, value) in &writes {
            if let Some(value) = value {
                tx.set(key, Bytes::copy_from_slice(value.as_bytes()), None).unwrap();
                model.insert(key.clone(), value.clone());
            } else {
                tx.delete(key).unwrap();
                model.remove(key);
            }
        }
        model.retain(|key, _| key.starts_with(&prefix));
        let mut listed = BTreeMap::new();
        let mut after: Option<Box<str>> = None;
        loop {
            let page = tx.list(&prefix, after.as_deref(), limit).unwrap();
            prop_assert!(page.entries.len() <= limit);
            for (key, value) in page.entries {
                prop_assert!(after.as_deref().is_none_or(|after| key.as_ref() > after));
                after = Some(key.clone());
                listed.insert(key.to_string(), String::from_utf8(value.to_vec()).unwrap());
            }
            if page.next.is_none() { break; }
            prop_assert_eq!(&page.next, &after);
        }
        prop_assert_eq!(listed, model);
    }
}
