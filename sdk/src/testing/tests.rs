//! The in-memory host: what an attempt may do, and what is left of one that fails.

use super::super::message;
use super::*;
use crate::outbox::Event as Emit;
use crate::{context, idempotency, log, outbox, state};

/// Does what its payload says, after it has counted and emitted.
fn handle(message: Message) -> crate::Result {
    let count = state::get::<u64>("count")?.unwrap_or(0) + 1;
    state::set("count", &count)?;
    assert_eq!(state::get::<u64>("count")?, Some(count), "an attempt reads what it wrote");
    outbox::emit("out.count", &count)?;
    log::info("counted", &[("count", &count)]);
    match message.text()? {
        "retry" => Err(Failure::retry_after("later", Duration::from_millis(5))),
        "retry-twice" if message.attempt <= 2 => Err(Failure::retry("later")),
        "reject" => Err(Failure::reject("never")),
        "park" => Err(Failure::park("not yet")),
        "panic" => panic!("it broke"),
        "limit" => {
            (0..2_000).for_each(|n| state::set_bytes(&n.to_string(), b"x"));
            Ok(())
        }
        "ungranted" => {
            outbox::emit("other.x", &1)?;
            Ok(())
        }
        "mark" => {
            idempotency::mark_for("request", Duration::from_secs(1));
            Ok(())
        }
        "config" => Ok(state::set("limit", &context::config_parsed::<u64>("limit")?)?),
        _ => Ok(()),
    }
}

fn host() -> Host {
    Host::new(handle).emits("out.>")
}

#[test]
fn nothing_of_a_failed_attempt_remains_but_its_lines() {
    for (payload, kind, reason) in [
        ("retry", "retry", "later"),
        ("reject", "reject", "never"),
        ("park", "park", "not yet"),
        ("panic", "trap", "it broke"),
        ("limit", "limit", "passed limits.writes_max = 1000"),
        ("ungranted", "reject", "no entry of grants.emit covers \"other.x\""),
    ] {
        let mut host = host();
        let attempt = host.handle(&message("in.a").key("a").text(payload));
        assert_eq!(attempt.outcome.kind(), kind);
        assert!(attempt.outcome.reason().unwrap().contains(reason), "{:?}", attempt.outcome);
        assert!(host.entries("a").is_empty() && host.events().is_empty() && attempt.events.is_empty(), "{payload}");
        assert_eq!(attempt.logs.len(), 1);
    }
}

#[test]
fn an_id_is_applied_once_and_failed_attempts_of_it_are_counted() {
    let mut host = host();
    let message = message("in.a").key("a").id("m-1").text("retry-twice");
    let numbers: Vec<_> =
        (0..4).map(|_| host.handle(&message)).map(|done| (done.number, done.outcome.kind())).collect();
    assert_eq!(numbers, [(1, "retry"), (2, "retry"), (3, "applied"), (1, "duplicate")]);
    assert_eq!(host.state::<u64>("a", "count"), Some(1));
    assert_eq!(host.events().len(), 1);
}

#[test]
fn a_park_is_not_counted_as_an_attempt() {
    let mut host = host();
    let parked = message("in.a").key("a").id("m-1").text("park");
    assert_eq!((host.handle(&parked).number, host.handle(&parked).number), (1, 1));
}

#[test]
fn keys_have_their_own_state_unless_they_share_it() {
    let send = |host: &mut Host| {
        for key in ["a", "b", "a"] {
            host.handle(&message("in.x").key(key).text("")).applied();
        }
    };
    let mut own = host();
    send(&mut own);
    assert_eq!((own.state::<u64>("a", "count"), own.state::<u64>("b", "count")), (Some(2), Some(1)));
    let mut shared = host().shared_state();
    send(&mut shared);
    assert_eq!(shared.state::<u64>(None, "count"), Some(3));
}

#[test]
fn the_clock_stands_until_it_is_advanced_and_marks_are_forgotten_in_time() {
    let mut host = host();
    host.handle(&message("in.a").key("a").text("mark")).applied();
    assert!(host.is_marked("a", "request") && !host.is_marked("b", "request"));
    host.advance(Duration::from_millis(999));
    assert!(host.is_marked("a", "request"));
    host.advance(Duration::from_millis(1));
    assert!(!host.is_marked("a", "request"));
}

#[test]
fn events_carry_what_the_real_host_gives_them() {
    fn handle(_: Message) -> crate::Result {
        Emit::bytes("out.a", "x").header("own", "1").emit()?;
        Emit::bytes("out.b", "y").key("other").emit()?;
        Ok(())
    }
    let mut host = Host::new(handle).emits("out.*").named("orders", "IN");
    let message = message("in.a").key("a").id("m-1").header("traceparent", "t").sequence(7);
    let events = host.handle(&message).applied();
    assert_eq!((events[0].id.as_str(), events[1].id.as_str()), ("orders:IN:0:7:0", "orders:IN:0:7:1"));
    assert_eq!((events[0].key.as_deref(), events[1].key.as_deref()), (Some("a"), Some("other")));
    let headers: Vec<_> = events[0].headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expected =
        [("pelton-correlation-id", "m-1"), ("pelton-causation-id", "m-1"), ("traceparent", "t"), ("own", "1")];
    assert_eq!(headers, expected);
}

#[test]
fn configuration_is_read_as_text_and_a_value_that_cannot_be_read_rejects() {
    let mut host = host().config("limit", 3);
    host.handle(&message("in.a").key("a").text("config")).applied();
    assert_eq!(host.state::<u64>("a", "limit"), Some(3));
    let mut wrong = super::super::Host::new(handle).emits("out.>").config("limit", "three");
    assert_eq!(wrong.handle(&message("in.a").key("a").text("config")).outcome.kind(), "reject");
}

#[test]
#[should_panic(expected = "run the handler with pelton_sdk::testing::Host")]
fn a_call_outside_of_an_attempt_says_what_to_do() {
    _ = state::get_bytes("x");
}

#[test]
#[should_panic(expected = "the message was not applied")]
fn a_test_that_wants_an_applied_message_fails_with_the_reason() {
    host().handle(&message("in.a").text("reject")).applied();
}
