//! Keys, ids and versions from every source, what is unreadable and why, and the pointers against serde_json's own.

use std::cell::Cell;
use std::path::Path;

use bytes::Bytes;
use pelton_core::batch::StreamIdentity;
use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn ingest(sections: &str) -> Ingest {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("x.toml");
    std::fs::write(&file, format!("component = \"x.wasm\"\n{sections}")).unwrap();
    Ingest::new(&Manifest::load(Path::new(&file)).unwrap())
}

fn stream() -> Arc<StreamIdentity> {
    Arc::new(StreamIdentity { name: "ORDERS".into(), created_ns: 5 })
}

/// With an ordering key, unless this is empty: then the subscription is shared.
fn with(key: &str, id: &str, payload: &str) -> Ingest {
    let subscription =
        format!("[subscription]\nstream = \"ORDERS\"\nsubjects = [\"orders.>\"]\npayload = \"{payload}\"");
    let key = if key.is_empty() { "mode = \"shared\"".to_owned() } else { format!("[key]\n{key}") };
    ingest(&format!("{subscription}\n{key}\n[id]\n{id}\n"))
}

fn by_version(key: &str, id: &str, order: &str) -> Ingest {
    ingest(&format!(
        "[subscription]\nstream = \"ORDERS\"\nsubjects = [\"orders.>\"]\n[key]\n{key}\n[id]\n{id}\n[order]\nby = \"version\"\n{order}\n"
    ))
}

fn hash(id: &str) -> IdHash {
    IdHash(id.bytes().fold(7, |sum, byte| sum * 31 + u128::from(byte)))
}

fn read(ingest: &Ingest, headers: &[(&str, &str)], payload: &[u8]) -> (Message, Option<Box<str>>) {
    ingest.read(delivered(headers, payload), &hash)
}

fn delivered(headers: &[(&str, &str)], payload: &[u8]) -> Message {
    Message {
        id: Box::default(),
        mark: None,
        subject: "orders.alice.new".into(),
        key: None,
        headers: headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        payload: Bytes::copy_from_slice(payload),
        sequence: 7,
        published_at_ms: 1_000,
        stream: stream(),
        entity_version: None,
    }
}

/// The key, or why there is none.
fn key(ingest: &Ingest, headers: &[(&str, &str)], payload: &str) -> Result<Option<String>, String> {
    let (message, unreadable) = read(ingest, headers, payload.as_bytes());
    unreadable.map_or_else(|| Ok(message.key.map(|key| key.to_string())), |reason| Err(reason.into()))
}

#[test]
fn keys_come_from_where_the_manifest_says() {
    let ok = |text: &str| Ok(Some(text.to_owned()));
    assert_eq!(key(&with("subject_token = 2", "", "bytes"), &[], ""), ok("alice"));
    assert_eq!(key(&with("header = \"Customer\"", "", "bytes"), &[("cusTomer", "bob")], ""), ok("bob"));
    assert_eq!(key(&with("", "", "bytes"), &[], "\u{1}"), Ok(None));
    let pointer = with("json_pointer = \"/a/1/b~1c\"", "", "bytes");
    for (value, text) in [
        ("\"x\"", "x"),
        ("12", "12"),
        ("-3", "-3"),
        ("1.5", "1.5"),
        ("true", "true"),
        ("0.1000000000000000055", "0.1000000000000000055"),
        ("123456789012345678901", "123456789012345678901"),
        ("1e9", "1e9"),
    ] {
        assert_eq!(key(&pointer, &[], &format!(r#"{{"z":[1],"a":[0,{{"b/c":{value}}}],"y":{{}}}}"#)), ok(text));
    }
    assert_eq!(key(&pointer, &[], r#"{"a":[0,{"b/c":1,"b/c":2}]}"#), ok("2"));
    assert_eq!(key(&pointer, &[], r#"{"a":[0,{"b/c" : "\u00e4\n" }]}"#), ok("ä\n"));
}

#[test]
fn a_message_without_a_key_says_what_was_missing() {
    let pointer = with("json_pointer = \"/a/b\"", "", "bytes");
    for (payload, reason) in [
        (r#"{"a":{}}"#, "no key: the payload has nothing at /a/b"),
        (r#"{"a":{"b":{}}}"#, "no key: there is an object at /a/b"),
        (r#"{"a":{"b":[1]}}"#, "no key: there is a list at /a/b"),
        (r#"{"a":{"b":null}}"#, "no key: there is null at /a/b"),
        (r#"{"a":{"b":""}}"#, "no key: the text at /a/b is empty"),
        (r#"{"a":{"b":1},"a":3}"#, "no key: the payload has nothing at /a/b"),
        (r#"{"a":{"b":"\ud800"}}"#, "no key: there is a string that is no text at /a/b"),
        (r#"{"a":{"b":"x"}"#, "the payload is not JSON: EOF while parsing an object at line 1 column 14"),
        (r#"{"a":{"b":"x"}} y"#, "the payload is not JSON: trailing characters at line 1 column 17"),
        ("", "the payload is not JSON: EOF while parsing a value at line 1 column 0"),
    ] {
        assert_eq!(key(&pointer, &[], payload), Err(reason.into()), "{payload}");
    }
    let header = with("header = \"customer\"", "", "bytes");
    assert_eq!(key(&header, &[], ""), Err("no key: there is no header \"customer\"".into()));
    assert_eq!(key(&header, &[("Customer", "")], ""), Err("no key: header \"customer\" is empty".into()));
    assert_eq!(key(&header, &[("Customer", &"x".repeat(512))], ""), Ok(Some("x".repeat(512))));
    assert_eq!(
        key(&header, &[("Customer", &"x".repeat(513))], ""),
        Err("no key: header \"customer\" has 513 bytes; 512 are the most".into())
    );
    assert_eq!(
        key(&with("subject_token = 4", "", "bytes"), &[], ""),
        Err("no key: subject \"orders.alice.new\" has 3 tokens, and the key is token 4".into())
    );
}

#[test]
fn ids_come_from_where_the_manifest_says_and_carry_a_mark() {
    for (id, headers, payload, expected) in [
        ("", &[("nats-msg-id", "m-1")][..], "", "m-1"),
        ("header = \"event-id\"", &[("Nats-Msg-Id", "m-1"), ("Event-Id", "e-1")], "", "e-1"),
        ("json_pointer = \"/id\"", &[("Nats-Msg-Id", "m-1")], r#"{"id":42}"#, "42"),
    ] {
        let (message, unreadable) = read(&with("", id, "bytes"), headers, payload.as_bytes());
        assert_eq!((message.id.as_ref(), unreadable), (expected, None));
        assert_eq!(message.mark, Some(hash(expected)));
    }
}

#[test]
fn a_message_without_an_id_goes_by_its_sequence_unless_an_id_was_promised() {
    let sequence = |headers: &[(&str, &str)], id: &str, payload: &str| {
        let (message, unreadable) = read(&with("", id, "bytes"), headers, payload.as_bytes());
        assert_eq!((message.id.as_ref(), message.mark), ("ORDERS:7", None));
        unreadable.map(String::from)
    };
    assert_eq!(sequence(&[], "", ""), None);
    assert_eq!(sequence(&[("Nats-Msg-Id", "")], "", ""), None);
    let reason = |text: &str| Some(text.to_owned());
    assert_eq!(sequence(&[], "header = \"event-id\"", ""), reason("no id: there is no header \"event-id\""));
    assert_eq!(sequence(&[("event-id", "")], "header = \"event-id\"", ""), reason("no id: it is empty"));
    assert_eq!(sequence(&[], "json_pointer = \"/id\"", "{}"), reason("no id: the payload has nothing at /id"));
    assert_eq!(
        sequence(&[], "json_pointer = \"/id\"", r#"{"id":"a\r\nb"}"#),
        reason("no id: \"a\\r\\nb\" holds a control character")
    );
    assert_eq!(
        sequence(&[("Nats-Msg-Id", &"x".repeat(513))], "", ""),
        reason("no id: it has 513 bytes; 512 are the most")
    );
}

#[test]
fn payloads_that_were_promised_to_be_json_are_checked_whole() {
    let json = with("subject_token = 2", "", "json");
    for good in ["{}", " [1, 2] ", "\"ä\"", "3"] {
        assert_eq!(read(&json, &[], good.as_bytes()).1, None, "{good}");
    }
    for (bad, reason) in [
        (&b"{\"a\":\n  oops}"[..], "the payload is not JSON: expected value at line 2 column 3"),
        (b"{\"a\":\"\xff\"}", "the payload is not JSON: invalid utf-8 sequence of 1 bytes from index 6"),
        (b"{} {}", "the payload is not JSON: trailing characters at line 1 column 4"),
    ] {
        assert_eq!(read(&json, &[], bad).1.as_deref(), Some(reason));
    }
    assert_eq!(read(&with("", "", "bytes"), &[], b"\xff").1, None);
}

#[test]
fn an_unreadable_message_keeps_its_key_and_does_not_use_up_its_id() {
    let (message, unreadable) = read(&with("subject_token = 2", "", "json"), &[("Nats-Msg-Id", "m-1")], b"oops");
    assert!(unreadable.is_some());
    assert_eq!((message.key.as_deref(), message.id.as_ref(), message.mark), (Some("alice"), "ORDERS:7", None));
    assert_eq!((message.payload.as_ref(), message.sequence, message.published_at_ms), (&b"oops"[..], 7, 1_000));
}

#[test]
fn only_ids_that_need_a_mark_are_hashed() {
    let hashed = Cell::new(0);
    let count = |id: &str| {
        hashed.set(hashed.get() + 1);
        hash(id)
    };
    let ingest = with("", "", "bytes");
    ingest.read(delivered(&[], b""), &count);
    assert_eq!(hashed.get(), 0);
    ingest.read(delivered(&[("Nats-Msg-Id", "m")], b""), &count);
    assert_eq!(hashed.get(), 1);
}

/// The version, or why there is none.
fn version(ingest: &Ingest, headers: &[(&str, &str)], payload: &str) -> Result<Option<u64>, String> {
    let (message, unreadable) = read(ingest, headers, payload.as_bytes());
    unreadable.map_or_else(|| Ok(message.entity_version), |reason| Err(reason.into()))
}

const NO_NUMBER: &str = "which is not a whole number from 0 to 18446744073709551615";

#[test]
fn versions_come_from_where_the_manifest_says() {
    let header = by_version("subject_token = 2", "", "header = \"Entity-Version\"");
    let pointer = by_version("subject_token = 2", "", "json_pointer = \"/meta/0\"");
    for (text, number) in [("0", 0), ("7", 7), ("007", 7), ("18446744073709551615", u64::MAX)] {
        assert_eq!(version(&header, &[("entity-version", text)], ""), Ok(Some(number)));
        assert_eq!(version(&pointer, &[], &format!(r#"{{"meta":["{text}"]}}"#)), Ok(Some(number)));
    }
    for (text, number) in [("0", 0), ("7", 7), ("18446744073709551615", u64::MAX)] {
        assert_eq!(version(&pointer, &[], &format!(r#"{{"meta":[{text}]}}"#)), Ok(Some(number)));
    }
    assert_eq!(version(&with("subject_token = 2", "", "bytes"), &[("entity-version", "7")], ""), Ok(None));
}

#[test]
fn a_message_without_a_version_says_what_was_there_instead() {
    let header = by_version("subject_token = 2", "", "header = \"rev\"");
    let pointer = by_version("subject_token = 2", "", "json_pointer = \"/rev\"");
    assert_eq!(version(&header, &[], ""), Err("no version: there is no header \"rev\"".into()));
    for (payload, reason) in [
        ("{}", "no version: the payload has nothing at /rev"),
        (r#"{"rev":null}"#, "no version: there is null at /rev"),
        (r#"{"rev":{}}"#, "no version: there is an object at /rev"),
        ("rev", "the payload is not JSON: expected value at line 1 column 1"),
    ] {
        assert_eq!(version(&pointer, &[], payload), Err(reason.into()), "{payload}");
    }
    for text in ["", "-1", "+1", "1.0", "1e3", "18446744073709551616", "x", " 1", "٣"] {
        let flaw = format!("{text:?}, {NO_NUMBER}");
        assert_eq!(version(&header, &[("rev", text)], ""), Err(format!("no version: header \"rev\" is {flaw}")));
        let quoted = version(&pointer, &[], &serde_json::json!({ "rev": text }).to_string());
        assert_eq!(quoted, Err(format!("no version: at /rev is {flaw}")));
    }
    for number in ["-1", "1.0", "1e3", "18446744073709551616", "true"] {
        let found = version(&pointer, &[], &format!(r#"{{"rev":{number}}}"#));
        assert_eq!(found, Err(format!("no version: at /rev is \"{number}\", {NO_NUMBER}")));
    }
    let long = version(&header, &[("rev", &"ä".repeat(40))], "");
    assert_eq!(long, Err(format!("no version: header \"rev\" is \"{}\"…, {NO_NUMBER}", "ä".repeat(32))));
}

#[test]
fn a_message_without_a_version_keeps_its_key_and_does_not_use_up_its_id() {
    let ingest = by_version("subject_token = 2", "", "header = \"rev\"");
    let (message, unreadable) = read(&ingest, &[("Nats-Msg-Id", "m-1"), ("rev", "first")], b"");
    assert!(unreadable.is_some());
    assert_eq!((message.key.as_deref(), message.id.as_ref(), message.mark), (Some("alice"), "ORDERS:7", None));
    assert_eq!((message.entity_version, message.stream), (None, stream()));
}

#[test]
fn key_id_and_version_are_found_in_one_payload_also_where_one_lies_in_another() {
    let (key, id) = ("json_pointer = \"/a/key\"", "json_pointer = \"/a/b/id\"");
    let ingest = by_version(key, id, "json_pointer = \"/a/b/rev\"");
    let (message, unreadable) = read(&ingest, &[], br#"{"a":{"key":"k","b":{"id":"i","rev":3}},"z":[]}"#);
    assert_eq!((unreadable, message.key.as_deref(), message.id.as_ref()), (None, Some("k"), "i"));
    assert_eq!((message.entity_version, message.mark, message.stream), (Some(3), Some(hash("i")), stream()));
    let same = by_version("json_pointer = \"/n\"", "json_pointer = \"/n\"", "json_pointer = \"/n\"");
    let (message, unreadable) = read(&same, &[], br#"{"n":12}"#);
    assert_eq!((unreadable, message.key.as_deref(), message.entity_version), (None, Some("12"), Some(12)));
    let inside = by_version("json_pointer = \"/a\"", "", "json_pointer = \"/a/rev\"");
    let (message, unreadable) = read(&inside, &[], br#"{"a":{"rev":9}}"#);
    assert_eq!(unreadable.as_deref(), Some("no key: there is an object at /a"));
    assert_eq!(message.entity_version, Some(9), "what could be told is told");
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z/~ä\"]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[ab0-2/~]{0,2}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// What a scalar at the pointer reads as.
fn expected(value: &Value, pointer: &str) -> Option<String> {
    match value.pointer(pointer)? {
        Value::String(text) => Some(text.clone()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

proptest! {
    #[test]
    fn pointers_lead_where_serde_jsons_own_lead(
        value in json(),
        key in "(/(a|b|0|1|2|01|a~1|~0|b~01|)){1,4}",
        id in "(/(a|b|0|1|2)){1,3}",
        version in "(/(a|b|0|1)){1,4}",
    ) {
        let pointers = [&key, &id, &version].map(|text| JsonPointer::parse(text).unwrap());
        let found = find(value.to_string().as_bytes(), pointers.each_ref().map(Some)).unwrap();
        prop_assert_eq!(found.key.text().ok(), expected(&value, &key));
        prop_assert_eq!(found.id.text().ok(), expected(&value, &id));
        prop_assert_eq!(found.entity_version.text().ok(), expected(&value, &version));
    }

    #[test]
    fn whatever_arrives_a_key_is_never_empty_or_long(payload in prop::collection::vec(any::<u8>(), 0..40), text in "\\PC{0,600}") {
        let ingest = with("json_pointer = \"/k\"", "", "bytes");
        let object = serde_json::json!({ "k": text }).to_string();
        for bytes in [payload.as_slice(), object.as_bytes()] {
            let (message, unreadable) = read(&ingest, &[], bytes);
            prop_assert_eq!(message.key.is_none(), unreadable.is_some());
            prop_assert!(message.key.is_none_or(|key| (1..=KEY_BYTES_MAX).contains(&key.len())));
        }
    }
}
