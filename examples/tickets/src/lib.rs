//! The booking system of a theatre: commands to `tickets.SHOW.COMMAND` in, an event for every outcome to `ticket-events.SHOW` out.
//!
//! The ordering key is the show: its commands are handled one at a time, so that two customers never get one seat. What is decided is in
//! `booking`, which knows no host; here are the state, the request ids and the events.

mod booking;

use std::time::Duration;

use booking::{Action, Outcome, Seat};
use pelton_sdk::{Failure, Message, Result, context, idempotency, log, outbox, state};
use serde::{Deserialize, Serialize};

/// For `open`.
#[derive(Deserialize)]
struct Opening {
    request: String,
    seats: Option<u32>,
}

/// For `reserve`, `book` and `cancel`.
#[derive(Deserialize)]
struct Claim {
    request: String,
    seat: u32,
    customer: String,
}

#[derive(Serialize)]
struct Event<'a> {
    show: &'a str,
    request: &'a str,
    #[serde(flatten)]
    outcome: &'a Outcome,
}

pelton_sdk::consumer!(handle);

fn handle(message: Message) -> Result {
    let show = message.key.as_deref().ok_or_else(|| Failure::reject("the manifest names no ordering key"))?;
    let command = message.subject_token(3).unwrap_or_default();
    let (request, outcomes) = match command {
        "open" => {
            let opening: Opening = message.json()?;
            let outcomes = once(&opening.request, || open(opening.seats))?;
            (opening.request, outcomes)
        }
        "reserve" => claim(Action::Reserve, &message)?,
        "book" => claim(Action::Book, &message)?,
        "cancel" => claim(Action::Cancel, &message)?,
        _ => return Err(Failure::reject(format!("no such command: {}", message.subject))),
    };
    for outcome in &outcomes {
        outbox::emit(format!("ticket-events.{show}"), &Event { show, request: &request, outcome })?;
        log::info("decided", &[("request", &request), ("outcome", &outcome.name())]);
    }
    Ok(())
}

/// A customer who pressed the button twice sent two messages with one request id: the second has no effect but its event.
fn once(request: &str, decide: impl FnOnce() -> Result<Vec<Outcome>>) -> Result<Vec<Outcome>> {
    if idempotency::first(request) { decide() } else { Ok(vec![Outcome::Repeated]) }
}

fn open(seats: Option<u32>) -> Result<Vec<Outcome>> {
    let seats = match seats {
        Some(seats) => seats,
        None => context::config_parsed("seats")?.unwrap_or(100),
    };
    let outcome = booking::open(state::get("seats")?, seats);
    if let Outcome::Opened { seats } = &outcome {
        state::set("seats", seats)?;
    }
    Ok(vec![outcome])
}

fn claim(action: Action, message: &Message) -> Result<(String, Vec<Outcome>)> {
    let claim: Claim = message.json()?;
    let outcomes = once(&claim.request, || {
        let minutes: u64 = context::config_parsed("hold_minutes")?.unwrap_or(10);
        let hold = Duration::from_secs(minutes.saturating_mul(60));
        let entry = format!("seat/{}", claim.seat);
        let before: Option<Seat> = state::get(&entry)?;
        let theatre = booking::Theatre { seats: state::get("seats")?, now_ms: context::now_ms(), hold };
        let decision = theatre.decide(action, claim.seat, &claim.customer, before);
        match decision.seat {
            Some(seat) => state::set(&entry, &seat)?,
            None => state::delete(&entry),
        }
        Ok(decision.outcomes)
    })?;
    Ok((claim.request, outcomes))
}

#[cfg(test)]
mod tests {
    use pelton_sdk::testing::{Attempt, Host, message};
    use serde_json::{Value, json};

    use super::*;

    fn command(host: &mut Host, name: &str, body: Value) -> Attempt {
        host.handle(&message(format!("tickets.hamlet.{name}")).key("hamlet").json(&body))
    }

    fn outcomes(host: &Host) -> Vec<String> {
        let outcome = |event: &pelton_sdk::testing::Event| event.json::<Value>()["outcome"].to_string();
        host.events().iter().map(outcome).collect()
    }

    #[test]
    fn a_double_click_is_answered_and_reserves_once() {
        let mut host = Host::new(handle).emits("ticket-events.*").config("hold_minutes", 10);
        command(&mut host, "open", json!({ "request": "r1", "seats": 50 })).applied();
        for _ in 0..2 {
            command(&mut host, "reserve", json!({ "request": "r2", "seat": 7, "customer": "ada" })).applied();
        }
        assert_eq!(outcomes(&host), ["\"opened\"", "\"reserved\"", "\"repeated\""]);
        let until_ms = host.now_ms() + 600_000;
        let seat = Seat::Reserved { customer: "ada".to_owned(), until_ms };
        assert_eq!(host.state("hamlet", "seat/7"), Some(seat));
        host.advance(Duration::from_secs(600));
        command(&mut host, "reserve", json!({ "request": "r3", "seat": 7, "customer": "bob" })).applied();
        assert_eq!(outcomes(&host)[3..], ["\"expired\"", "\"reserved\""]);
    }

    #[test]
    fn what_is_no_command_is_rejected_and_leaves_nothing() {
        let mut host = Host::new(handle).emits("ticket-events.*");
        assert_eq!(command(&mut host, "burn", json!({})).outcome.kind(), "reject");
        assert!(host.entries("hamlet").is_empty() && host.events().is_empty());
    }
}
